"""What the documentation shows runs: Python and tutorials as they stand, commands as far as they parse, links to pages."""

import functools
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from depthkit.cli.main import COMMANDS, TRAINING, command_module, main
from depthkit.cli.shards_write import parsed
from tests.contracts.commands import understood

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts)
TUTORIALS = [page for page in PAGES if "depthkit fit" in page.read_text() and page.parent.name == "tutorials"]
"""Those that train, in a folder of their own; the others are Python alone, or need the reader's files."""


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of each block to run, in order; those marked as not run are left out."""
    text = re.sub(r"<!-- not run: [^\n]+ -->\n```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if language in languages]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") and p not in TUTORIALS], ids=lambda page: page.stem)
def test_python_runs_from_top_to_bottom(page: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for _, block in blocks(page, "python"):
        if "from_pretrained(" not in block:  # which would fetch weights
            exec(compile(block, str(page), "exec"), names)


@pytest.mark.timeout(1800)
@pytest.mark.slow  # minutes each; `.ci/run` runs them
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}
    names: dict[str, object] = {"__name__": page.stem}
    for language, block in blocks(page, "python", "bash"):
        if language == "python":
            exec(compile(block, str(page), "exec"), names)
            if named := re.match(r"# (\w+\.py)\n", block):
                Path(named[1]).write_text(block)
            continue
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def commands(page: Path) -> list[list[str]]:
    """Each ``depthkit`` command of a page's shell blocks, in words."""
    lines = (line for _, block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines())
    found = (shlex.split(line, comments=True) for line in lines)
    return [words[words.index("depthkit") + 1 :] for words in found if "depthkit" in words]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called: list[str] = []
    for name in COMMANDS:
        module = import_module(command_module(name))
        for function in ("info", "verify") if name == "shards" else (name,):

            @functools.wraps(getattr(module, function))
            def instead(*arguments: object, **options: object) -> None:
                called.append("parsed")

            monkeypatch.setattr(module, function, instead)
    for words in commands(page):
        if words[0] in TRAINING:
            recipe = words[words.index("--config") + 1]
            if words[0] == "fit" and recipe != "RECIPE" and not any("mylab." in word for word in words):
                assert understood(*words)
        elif words[:2] == ["shards", "write"]:
            assert words[2] == "--list" or ":" in words[2] or parsed(words[2:])
        else:
            called.clear()
            main(words)
            assert called or "--help" in words, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        path = (page.parent / target).resolve()
        assert path.is_file() or "reference" in path.parts, target  # which each build of the site writes anew
