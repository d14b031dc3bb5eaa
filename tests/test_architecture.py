"""The tree keeps its shape: imports point to smaller rows, third parties stay in their rooms, nothing grows too long."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "depthkit"
ROWS = (
    ("types", "errors", "precision", "devices"),
    ("checks", "masked"),
    ("representation", "alignment", "geometry", "images", "writing"),
    ("losses", "metrics", "shards", "resize"),
    ("models", "data", "synthetic"),
    ("convert", "evaluation"),
    ("inference",),
    ("paradigms", "callbacks", "app"),
    ("cli",),
)
ROW = {room: number for number, row in enumerate(ROWS) for room in row}
# Rooms (or files) where a third-party package may be imported; packages not named here may be imported anywhere.
ALLOWED = {
    "timm": ("models",),
    "diffusers": ("models",),
    "webdataset": ("shards", "data"),
    "av": ("convert", "inference/film"),
    "albumentations": ("data/transforms",),
    "cv2": ("shards", "data", "convert", "geometry/flow", "inference/labelling", "inference/film"),
    "lightning": ("data/datamodule", "inference/labelling", "paradigms", "callbacks", "cli"),
    "omegaconf": ("cli",),
    "jsonargparse": ("cli",),
    "torchmetrics": ("metrics", "evaluation", "paradigms", "inference", "callbacks", "cli"),
}
MAX_LINES, MAX_STEP_LINES, MAX_BASE_LINES = 400, 60, 150
MAX_FILES = 14
CROWDED = {
    "convert": "one file per dataset, all alike, so that `depthkit.convert.<dataset>` is where it is looked for",
}
"""Folders that may hold more files, with the reason."""
WRITERS = ("write_text", "write_bytes", "copyfile", "save_file", "save_model", "imwrite")
"""What writes a file by its name: only inside a block of ``replacing`` or ``unfinished``, so that no kill leaves half of it."""
SCRATCH = ("models/diffusion/empty_prompt.py", "models/weights/registry.py")
"""Where it may as well be a folder for temporary files."""
FOREIGN_PRIVATES = {
    "_signal_connector": ("lightning", "SIGTERM must end all ranks after the same batch"),
    "_batch_arg_name": ("lightning", "a search for a batch size that nothing reads would find any"),
    "_kwargs": ("lightning", "of TensorBoard's writer: a resumed run drops what it logs again"),
}
"""Private attributes of other packages: whose (its version has a ceiling in pyproject.toml, torch's apart), and why."""
HEAVY = ("lightning", "pytorch_lightning", "timm", "kornia", "albumentations", "diffusers", "webdataset", "cv2")
BANNED = {"utils", "common", "misc", "helpers"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(file: Path, package: Path = PACKAGE) -> str:
    """The first part of the file's path inside the package."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write imports absolutely"
            names = [alias.name for alias in node.names]
            yield from ((node.lineno, f"{node.module}.{n}" if node.module == "depthkit" else str(node.module)) for n in names)


def violations(file: Path, package: Path = PACKAGE) -> list[str]:
    """What the file imports against the rules, one sentence each."""
    here, place, found = room(file, package), file.relative_to(package).as_posix(), []
    for line, name in imports(ast.parse(file.read_text())):
        parts = name.split(".")
        if parts[0] == "depthkit" and len(parts) > 1 and here != "__init__":
            there = parts[1]
            if there in ROW and there != here and ROW[there] >= ROW[here]:
                found.append(f"{place}:{line}: {here} must not import {there}")
        elif parts[0] in ALLOWED and not place.startswith(ALLOWED[parts[0]]):
            found.append(f"{place}:{line}: {parts[0]} belongs in {', '.join(ALLOWED[parts[0]])}")
    return found


def test_every_room_has_a_row() -> None:
    assert {room(file) for file in FILES} - {"__init__"} <= set(ROW)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_point_to_smaller_rows(file: Path) -> None:
    assert violations(file) == []


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("metrics/bad.py", "from depthkit.losses import SSILoss", "metrics must not import losses"),
        ("losses/bad.py", "import depthkit.evaluation", "losses must not import evaluation"),
        ("types.py", "from depthkit import checks", "types must not import checks"),
        ("paradigms/bad.py", "import timm", "timm belongs in models"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, name: str, line: str, complaint: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(line)
    assert [found for found in violations(file, tmp_path) if complaint in found]


def test_no_file_is_too_long_and_no_room_is_a_junk_drawer() -> None:
    assert {f.name: n for f in FILES if (n := len(f.read_text().splitlines())) > MAX_LINES} == {}
    assert not {part for f in FILES for part in f.relative_to(PACKAGE).with_suffix("").parts} & BANNED


def test_a_training_step_reads_like_the_algorithm() -> None:
    steps = {
        f"{file.name}:{node.name}": node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "training_step" and node.end_lineno
    }
    assert {name: length for name, length in steps.items() if length > MAX_STEP_LINES} == {}


def test_the_base_of_the_paradigms_stays_small() -> None:
    assert len((PACKAGE / "paradigms/base.py").read_text().splitlines()) <= MAX_BASE_LINES


def module_of(file: Path) -> str:
    parts = ("depthkit", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_files(file: Path, modules: set[str]) -> set[str]:
    """Modules of depthkit that a file imports anywhere but under TYPE_CHECKING."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "depthkit":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) | ({node.module} if names - modules else set())
    return found - {module_of(file)}


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {module_of(file) for file in FILES}
    graph = {module_of(file): imported_files(file, modules) for file in FILES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("files import each other in a circle: " + " -> ".join(error.args[1]))


def test_no_folder_is_crowded_without_a_reason() -> None:
    sizes = Counter(file.parent.relative_to(PACKAGE).as_posix() for file in FILES if file.stem != "__init__")
    assert {folder for folder, files in sizes.items() if files > MAX_FILES} == set(CROWDED)


def test_every_folder_says_what_belongs_in_it() -> None:
    folders = {file.parent for file in FILES}
    assert [f for f in folders if not ast.get_docstring(ast.parse((f / "__init__.py").read_text()))] == []


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names with an underscore that a file reads from objects or imports from other packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith(("depthkit", "__")):
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from ((node.lineno, part) for part in parts if part.startswith("_"))


def test_private_names_of_other_packages_are_listed_with_their_reason() -> None:
    own, read = {"_asdict", "_exit", "_replace"}, set()  # public all the same: NamedTuple's methods, os._exit
    for file in FILES:
        for node in ast.walk(tree := ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
        read |= {name for _, name in private_names(tree)}
    assert read - own == set(FOREIGN_PRIVATES)
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    wanted = [r for extra in project["optional-dependencies"].values() for r in extra]
    for package in {package for package, _ in FOREIGN_PRIVATES.values()} - {"torch"}:
        assert [r for r in wanted if re.match(rf"{package}\W", r) and "<" in r], f"{package} needs a version ceiling"


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        ("import depthkit.metrics, depthkit.losses", HEAVY),
        ("import depthkit.shards", ("torch", *HEAVY[:-1])),
        *[
            (f"from depthkit.cli.main import main; main({words.split()!r})", (*HEAVY[:-2], *more))
            for words, more in (
                ("--help", ("torch", "webdataset", "cv2")),
                ("shards info SHARDS", ("torch", "webdataset")),
                ("shards write tum --help", ()),
            )
        ],
    ],
)
def test_light_imports_stay_light(line: str, heavy: tuple[str, ...], tmp_path: Path) -> None:
    index = {"schema": 1, "dataset": "none", "licence": "", "splits": {}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    line = line.replace("SHARDS", str(tmp_path))
    program = f"import sys\ntry:\n    {line}\nexcept SystemExit as end:\n    assert not end.code\n"
    program += f"print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def written_in_place(tree: ast.AST, *, safe: bool = False) -> Iterator[int]:
    """The lines that write a file under its final name."""
    for node in ast.iter_child_nodes(tree):
        inside = safe
        if isinstance(node, ast.With):
            called = [item.context_expr.func for item in node.items if isinstance(item.context_expr, ast.Call)]
            inside = safe or any(isinstance(func, ast.Name) and func.id in ("replacing", "unfinished") for func in called)
        if isinstance(node, ast.Call) and not safe:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in WRITERS:
                yield node.lineno
        yield from written_in_place(node, safe=inside)


def test_no_file_has_its_final_name_before_it_is_whole():
    files = [file for file in FILES if not file.as_posix().endswith(SCRATCH)]
    found = [f"{file.relative_to(PACKAGE)}:{line}" for file in files for line in written_in_place(ast.parse(file.read_text()))]
    assert not found, "write to a name of depthkit.writing.replacing: " + ", ".join(found)
    assert [*written_in_place(ast.parse("with open('x') as f:\n    Path('a').write_text('b')"))] == [2]
    assert not [*written_in_place(ast.parse("with replacing(Path('a')) as part:\n    part.write_text('b')"))]
