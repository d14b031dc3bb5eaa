"""Scores of a camera's predicted path."""
