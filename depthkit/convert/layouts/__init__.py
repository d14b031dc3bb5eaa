"""Folders as other people's tools leave them: told by the files that name the layout, or refused in a sentence."""
