"""Arguments as people type them: several values in a row, flags without a value."""

import inspect
import json
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import takewhile
from typing import Any, Union, get_args, get_origin, get_type_hints

from depthkit.errors import RecipeError

_NOISE = re.compile(r"does not validate against|^subtypes:|^errors:|^given value|^expected a <class 'nonetype'>", re.IGNORECASE)
_SHORT = 80  # characters of a value that is repeated
_WORDS = ("true", "false")


def parser_sentence(message: str) -> str:
    """Shorten a parser's nested message to one line: the keys down to the wrong one, the reason, what was given."""
    lines = [line.strip(" -\t") for line in message.splitlines()]
    kept = [line.rstrip(":") for line in lines if line and not _NOISE.search(line)]
    text = ": ".join(re.sub(r'^Parser key "(.+)"$', r"\1", line) for line in kept).rstrip(".")
    given = "".join(f" {line}." for line in lines if line.startswith("Given value: ") and len(line) <= _SHORT)
    return re.sub(r"<class '(.*?)'>|typing\.", r"\1", f"{text}.{given}")


def usage_error(error: Exception, command: str) -> RecipeError:
    """Make one sentence of what a parser says of a word that it does not understand, and name the command's help."""
    return RecipeError(f"{parser_sentence(str(error)).replace(f'{command}.', '')} See `depthkit {command} --help`.")


def with_environment(arguments: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Add the options that environment variables give: ``DEPTHKIT_FIT__TRAINER__MAX_EPOCHS=5`` is ``--trainer.max_epochs 5``.

    They outweigh a recipe, and what is typed outweighs them.

    Args:
        arguments: the command and what was typed after it.
        variables: of the environment.
    """
    prefix = f"DEPTHKIT_{arguments[0].upper()}__"
    names = sorted(name for name in variables if name.startswith(prefix))
    options = [f"--{name.removeprefix(prefix).lower().replace('__', '.')}={variables[name]}" for name in names]
    recipes = [n for n, word in enumerate(arguments) if word in ("--config", "-c") or word.startswith("--config=")]
    place = recipes[-1] + 1 + ("=" not in arguments[recipes[-1]]) if recipes else 1
    return [*arguments[:place], *options, *arguments[place:]]


def gathered(function: Callable[..., Any], arguments: Sequence[str], *others: Callable[..., Any]) -> list[str]:
    """Write the arguments of a command as its parser reads them.

    The last positional argument that takes a list takes all that are given, an option of n numbers takes n, one of words
    takes one, and as often as it is given, and an option that is true or false needs no value: ``m a b --range 0 10 --flip`` is
    ``m ["a", "b"] --range [0, 10] --flip true``. What is in brackets already stays as it is.

    Args:
        function: the command; its signature says what it takes.
        arguments: what was typed after its name.
        others: functions whose options the command takes, too.
    """
    hints = {name: hint for known in (*others, function) for name, hint in get_type_hints(known).items()}
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    left, positional, options, lists = list(arguments), list[str](), list[str](), dict[str, list[str]]()
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            positional.append(word)
            continue
        name, equals, value = word.partition("=")
        hint = _hint(hints, name.removeprefix("--"))
        if list[str] in _kinds(hint) and (equals or (left and not left[0].startswith("--"))):
            value = value if equals else left.pop(0)
            if not value.startswith("["):
                lists.setdefault(name, []).append(value)
                continue
            options += [name, value]
            continue
        options.append(word)
        count = _length(hint)
        if "=" in word or word == "--help":
            continue
        if bool in _kinds(hint):
            options.append(left.pop(0) if left and left[0] in _WORDS else "true")
        elif count is None or (count and len(left) >= count and all(map(_is_number, left[:count]))):
            numbers = list(takewhile(_is_number, left[:count]))
            options.append(f"[{', '.join(numbers)}]" if numbers else left.pop(0))
            del left[: len(numbers)]
        elif left and not left[0].startswith("--"):
            options.append(left.pop(0))
    if required and get_origin(hints.get(required[-1])) is list and len(positional) >= len(required):
        many = positional[len(required) - 1 :]
        if len(many) > 1 or not many[0].startswith("["):
            positional[len(required) - 1 :] = [json.dumps(many)]
    return [*positional, *options, *(word for name, many in lists.items() for word in (name, json.dumps(many)))]


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


def _length(hint: Any) -> int | None:
    """Count the values that a tuple of fixed length has; None for any number of them, 0 for what is no list of numbers."""
    for kind in _kinds(hint):
        if get_origin(kind) is tuple and Ellipsis not in get_args(kind):
            return len(get_args(kind))
        if get_origin(kind) in (Sequence, tuple, list) and get_args(kind)[0] in (float, int):
            return None
    return 0


def _kinds(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    else:
        yield hint
