"""Arguments as people type them: several values in a row, flags without a value."""

import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS = ("true", "false")


def gathered(function: Callable[..., Any], arguments: Sequence[str]) -> list[str]:
    """Write the arguments of a command as its parser reads them.

    The last positional argument that takes a list takes all that are given, an option of n numbers takes n, and an option that
    is true or false needs no value: ``m a b --range 0 10 --flip`` is ``m ["a", "b"] --range [0, 10] --flip true``. What is in
    brackets already stays as it is.

    Args:
        function: the command; its signature says what it takes.
        arguments: what was typed after its name.
    """
    hints = get_type_hints(function)
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    left, positional, options = list(arguments), list[str](), list[str]()
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            positional.append(word)
            continue
        options.append(word)
        hint = _hint(hints, word.removeprefix("--"))
        count = _length(hint)
        if "=" in word or word == "--help":
            continue
        if bool in _kinds(hint):
            options.append(left.pop(0) if left and left[0] in _WORDS else "true")
        elif count and len(left) >= count and all(map(_is_number, left[:count])):
            options.append(f"[{', '.join(left[:count])}]")
            del left[:count]
        elif left and not left[0].startswith("--"):
            options.append(left.pop(0))
    if required and get_origin(hints.get(required[-1])) is list and len(positional) >= len(required):
        many = positional[len(required) - 1 :]
        if len(many) > 1 or not many[0].startswith("["):
            positional[len(required) - 1 :] = [json.dumps(many)]
    return [*positional, *options]


def _hint(hints: Mapping[str, Any], name: str) -> Any:
    """Find the type of an option; ``a.b`` is the attribute ``b`` of the type of ``a``."""
    first, _, rest = name.partition(".")
    if not rest:
        return hints.get(first)
    found = next((kind for kind in _kinds(hints.get(first)) if is_dataclass(kind)), None)
    return None if found is None else _hint(get_type_hints(found), rest)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _length(hint: Any) -> int:
    """Count the values that a tuple of fixed length has; 0 of anything else."""
    for kind in _kinds(hint):
        if get_origin(kind) is tuple and Ellipsis not in get_args(kind):
            return len(get_args(kind))
    return 0


def _kinds(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    else:
        yield hint
