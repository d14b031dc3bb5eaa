"""What ``depthkit fit --help`` says of models and data, whose options the parser knows only once their class is chosen."""

import inspect
from collections.abc import Iterator

from docstring_parser import parse

import depthkit.paradigms
from depthkit.data import DepthDataModule, VideoDataModule
from depthkit.paradigms import DepthModule

_WIDTH = 30


def main_options() -> str:
    """List the paradigms with what all of them take, and the options of the data modules, a line each."""
    modules = [getattr(depthkit.paradigms, name) for name in depthkit.paradigms.__all__]
    paradigms = [x for x in modules if inspect.isclass(x) and issubclass(x, DepthModule) and x is not DepthModule]
    lines = ["", "models, --model NAME (what each takes: depthkit fit --model.help NAME):"]
    lines += [f"  {paradigm.__name__:<{_WIDTH}} {_first_line(paradigm)}" for paradigm in paradigms]
    lines += ["", "options of every model, --model.OPTION:", *_options(DepthModule)]
    lines += ["", f"options of images, --data.OPTION ({DepthDataModule.__name__}):", *_options(DepthDataModule)]
    known = set(inspect.signature(DepthDataModule).parameters)
    lines += ["", f"further ones of videos, --data {VideoDataModule.__name__}:", *_options(VideoDataModule, known)]
    return "\n".join([*lines, "", "A recipe sets them all: depthkit recipes lists those there are.", ""])


def _options(owner: type, known: set[str] | None = None) -> Iterator[str]:
    described = {found.arg_name: found.description or "" for found in parse(inspect.getdoc(owner) or "").params}
    for name, parameter in inspect.signature(owner).parameters.items():
        if name in (known or ()) or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        empty = parameter.default is parameter.empty
        shown = f"{name}" if empty or parameter.default is None else f"{name} = {_plain(parameter.default)}"
        yield f"  {shown:<{_WIDTH}} {_first_sentence(described.get(name, ''))}"


def _plain(value: object) -> str:
    return value.__name__ if inspect.isclass(value) or inspect.isfunction(value) else str(value)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition("; ")[0].rstrip(".")


def _first_line(owner: type) -> str:
    return (inspect.getdoc(owner) or "").partition("\n")[0].rstrip(".")
