"""What a run writes down before its first sample: everything that shapes its samples, so that no other run continues it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthkit.errors import ShardError


def manifest_file(root: Path, split: str) -> Path:
    """Name the manifest of a split."""
    return root / f"{split}.manifest.json"


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Bring facts to the form in which JSON gives them back."""
    return dict(json.loads(json.dumps(facts, default=str)))


def agree(file: Path, manifest: Mapping[str, Any]) -> None:
    """Check that the manifest in a file states the same.

    Raises:
        ShardError: it is missing, or says something else; the sentence names the first fact with its old and new value.
    """
    try:
        found = dict(json.loads(file.read_bytes()))
    except FileNotFoundError as error:
        raise ShardError(
            f"expected {file} to say how its samples were made; it is missing. Overwrite them, or choose another folder."
        ) from error
    except (ValueError, TypeError) as error:
        raise ShardError(
            f"expected {file} to be a manifest; it does not read ({error}). Overwrite the split, or choose another folder."
        ) from error
    for name in {**manifest, **found}:
        was, wanted = found.get(name), manifest.get(name)
        if was == wanted:
            continue
        if isinstance(was, Mapping) and isinstance(wanted, Mapping):
            key = next(key for key in {**wanted, **was} if wanted.get(key) != was.get(key))
            name, was, wanted = (key if name == "options" else f"{name} {key}"), was.get(key), wanted.get(key)
        raise ShardError(
            f"expected {file.parent} to hold labels made in the same way; their {name} was {was!r} and is {wanted!r} now. "
            f"Go on with the settings of {file.name}, overwrite them, or choose another folder."
        )
