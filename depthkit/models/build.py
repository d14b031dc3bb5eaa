"""Rebuild a network from the plain values that built it, as a checkpoint stores them."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from depthkit.errors import CheckpointError, RecipeError
from depthkit.models.net import Buildable

P = ParamSpec("P")
Net = TypeVar("Net", bound=Buildable)
_ARCHITECTURES: dict[str, Callable[..., Any]] = {}
_HERE = "depthkit."


def architecture(function: Callable[P, Net]) -> Callable[P, Net]:
    """Mark a function as a named architecture: the network it returns stores in ``config`` how to ``build`` it again.

    A function outside of depthkit stores its module, too; ``--allow`` lets a command import it to rebuild the network.

    Raises:
        RecipeError: depthkit has an architecture of this name.
    """

    @functools.wraps(function)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> Net:
        model = function(*args, **kwargs)
        arguments = inspect.signature(function).bind(*args, **kwargs).arguments
        plain = {name: _plain(value) for name, value in arguments.items()}
        if "pretrained" in inspect.signature(function).parameters:
            plain["pretrained"] = False
        if not any(isinstance(value, Buildable) and value.config is None for value in arguments.values()):
            own = {} if function.__module__.startswith(_HERE) else {"module": function.__module__}
            model.config = {"architecture": function.__name__} | own | plain
        return model

    known = _ARCHITECTURES.get(function.__name__)
    if known is not None and known.__module__.startswith(_HERE) and not function.__module__.startswith(_HERE):
        raise RecipeError(f"expected another name than {function.__name__}, which depthkit.models has. Rename the function.")
    _ARCHITECTURES[function.__name__] = recorded
    return recorded


def is_architecture(name: str, module: str) -> bool:
    """Tell whether a function ``name`` of ``module`` has been marked as an architecture."""
    return name in _ARCHITECTURES and _ARCHITECTURES[name].__module__ == module


def _plain(value: Any) -> Any:
    """Convert an argument to a plain value for a checkpoint: a member of an enumeration to text, a network to its config."""
    if isinstance(value, Buildable):
        return value.config
    return str(value) if isinstance(value, str) else value


def build(config: Mapping[str, Any], *, pretrained: bool | str | Path = False) -> Any:
    """Build the network of a named architecture with random weights, without downloads.

    Args:
        config: the network's ``config``: "architecture", the function's name, and its arguments.
        pretrained: weights of its encoder instead of random ones, see ``TimmEncoder``.

    Raises:
        CheckpointError: there is no architecture of this name, or it does not take these arguments.

    Example:
        >>> from depthkit.models import midas_timm
        >>> model = midas_timm("mobilenetv2_035", pretrained=False, features=8)
        >>> build(model.config).state_dict().keys() == model.state_dict().keys()
        True
    """
    arguments = dict(config)
    name, _ = arguments.pop("architecture", None), arguments.pop("module", None)
    if name not in _ARCHITECTURES:
        raise CheckpointError(f"expected an architecture among {', '.join(sorted(_ARCHITECTURES))}; got {name!r}.")
    try:
        bound = inspect.signature(_ARCHITECTURES[name]).bind(**arguments)
    except TypeError as error:
        raise CheckpointError(
            f"expected arguments of {name} as this version of depthkit knows them; {error}. Use the version that wrote them."
        ) from error
    bound.arguments["pretrained"] = pretrained
    return _ARCHITECTURES[name](*bound.args, **bound.kwargs)
