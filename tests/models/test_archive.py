"""An exported program from elsewhere runs nothing but its arithmetic: torch would execute what else it may hold."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import CheckpointError
from depthkit.inference import export_program
from depthkit.models import from_pretrained
from depthkit.models.archive import dangers
from depthkit.types import Ambiguity
from tests.contracts.model import smallest

Members = dict[str, bytes]


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.manual_seed(0)
    return export_program(smallest(), file, size=(64, 64), ambiguity=Ambiguity.SHIFT_SCALE, dynamic=True).path


def pickled(path: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"x": Touch(path)}, stream)
    return stream.getvalue()


def member(members: Members, part: str) -> str:
    """Name of the first member of a kind; before torch 2.8 all members lay flat, under other names."""
    flat = {"sample_inputs": "example_inputs", "models/": "exported_program.json"}.get(part, part)
    found = [name for name in members if part in name or flat in name]
    return found[0] if found else pytest.skip(f"this version of torch writes no {part}")


def edited(part: str, change: Callable[[Any], None]) -> Callable[[Members, Path], None]:
    def edit(members: Members, _: Path) -> None:
        name = member(members, part)
        content = json.loads(members[name])
        change(content)
        members[name] = json.dumps(content).encode()

    return edit


def nodes(content: Any) -> list[dict[str, Any]]:
    return content["graph_module"]["graph"]["nodes"]


def expressions(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return [found for part in content for found in expressions(part)]
    if not isinstance(content, dict):
        return []
    return [content] * ("expr_str" in content) + [found for part in content.values() for found in expressions(part)]


def first_node(target: str) -> Callable[[Members, Path], None]:
    return edited("models/", lambda content: nodes(content)[0].update(target=target))


CODE = "__import__('pathlib').Path('{}').touch()"
HOSTILE: dict[str, Callable[[Members, Path], None]] = {
    "inputs as objects": lambda members, path: members.update({member(members, "sample_inputs"): pickled(path)}),
    "inputs as a bare pickle": lambda members, path: members.update(
        {member(members, "sample_inputs"): pickle.dumps({"x": Touch(path)})}
    ),
    "a compiled library": lambda members, path: members.update({"net/data/aotinductor/model/a.so": b"\x7fELF"}),
    "an object as a constant": lambda members, path: members.update(
        {"net/data/constants/opaque_obj_0": pickle.dumps(Touch(path))}
    ),
    "weights as objects": edited(
        "weights_config", lambda content: next(iter(content["config"].values())).update(use_pickle=True)
    ),
    "a function of Python": first_node("torch.os.system"),
    "a file as an operator": first_node("torch.ops.aten.from_file.default"),
    "a method by name": first_node("_operator.methodcaller"),
    "code as a size": lambda members, path: edited(
        "models/", lambda content: expressions(content)[0].update(expr_str=CODE.format(path))
    )(members, path),
    "an endless size": edited("models/", lambda content: expressions(content)[0].update(expr_str="9**9**9**9")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_program_that_might_run_code_is_refused(what: str, program: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    HOSTILE[what](members, tmp_path / "ran")
    file = tmp_path / "net.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match=r"expected a program of `depthkit export` at .* it holds .* might run code"):
        from_pretrained(file)
    assert not (tmp_path / "ran").exists()


def test_guards_are_not_executed(program: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if "guards_code" not in json.loads(members[member(members, "models/")]):
        pytest.skip("this version of torch stores no guards")
    edited("models/", lambda content: content.update(guards_code=[CODE.format(tmp_path / "ran")]))(members, tmp_path)
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert_close(from_pretrained(tmp_path / "net.pt2")(image), from_pretrained(program)(image))
    assert not (tmp_path / "ran").exists()


def test_what_export_writes_holds_nothing_of_it(program: Path) -> None:
    assert list(dangers(program)) == []
