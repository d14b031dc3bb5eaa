"""What a run writes down before its first sample: everything that shapes its samples, so that no other run continues it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthkit.errors import ShardError
from depthkit.shards.files import replace_text

MANIFEST = "manifest.json"


def manifest_file(root: Path, split: str) -> Path:
    """Name the manifest of a split in a folder of several."""
    return root / f"{split}.{MANIFEST}"


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Bring facts to the form in which JSON gives them back."""
    return dict(json.loads(json.dumps(facts, default=str)))


def agree(file: Path, manifest: Mapping[str, Any], *, ignore: tuple[str, ...] = (), begun: bool = False) -> None:
    """Write the manifest, or check that the stored one states the same. The caller holds a lock.

    Args:
        file: path of the manifest.
        manifest: what shapes the samples.
        ignore: facts that may differ.
        begun: whether there are samples already, so that the manifest must be there.

    Raises:
        ShardError: it says something else; the sentence names the first fact with its old and new value.
    """
    manifest = plain(manifest)
    if not file.exists() and begun:
        raise ShardError(
            f"expected {file} to say how its samples were made; it is missing. Overwrite them, or choose another folder."
        )
    if not file.exists():
        replace_text(file, json.dumps(manifest, indent=1) + "\n")
        return
    try:
        found = dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ShardError(f"expected {file} to be a manifest; it does not read ({error}).") from error
    for name in [name for name in {**manifest, **found} if name not in ignore]:
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
