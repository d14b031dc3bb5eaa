"""Every benchmark can be run at its smallest size, as `.ci/run` does."""

import argparse
import ast
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(file for file in FOLDER.glob("*.py") if not file.name.startswith("_"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_smallest_changes_options_that_the_script_has(script):
    tree = ast.parse(script.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    added = {
        part.value.lstrip("-").replace("-", "_")
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for part in call.args
    }
    (parsed,) = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "parsed")
    assert {keyword.arg for keyword in parsed.keywords} <= added
    assert parsed.keywords


def test_what_the_command_line_gives_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from _command import parsed

    def options(*given):
        monkeypatch.setattr(sys, "argv", ["benchmark", *given])
        parser = argparse.ArgumentParser()
        parser.add_argument("--repeat", type=int, default=9)
        return parsed(parser, repeat=1)

    assert options().repeat == 9
    assert options("--smallest").repeat == 1
    assert options("--smallest", "--repeat", "3").repeat == 3
    assert (options("--smallest").smallest, options().smallest) == (True, False)
