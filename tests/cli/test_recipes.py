"""Recipes are found by path and by name, from any folder, also by a depthkit that was installed from a wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from depthkit.cli.main import main
from depthkit.cli.recipes import find_recipe, recipe_files
from depthkit.errors import RecipeError

ROOT = Path(__file__).parents[2]


def test_every_recipe_has_a_name_and_is_found_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(recipe_files().values()) == set((ROOT / "recipes").rglob("*.yaml"))
    for name, file in recipe_files().items():
        assert find_recipe(name) == find_recipe(f"recipes/{name}.yaml") == file
    assert find_recipe("midas_mix5") == ROOT / "recipes/affine_invariant/midas_mix5.yaml"


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("seed_everything: 1")
    assert find_recipe("quickstart") == Path("quickstart")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rgbd_lite0", "more than one is.*affine_invariant/rgbd_lite0 or geometry_preserving/rgbd_lite0"),
        ("quikstart", "there is no 'quikstart'. Did you mean quickstart"),
        ("zzz.yaml", r"there is no 'zzz.yaml'. `depthkit recipes` lists them"),
    ],
)
def test_no_recipe_or_several_are_one_sentence(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=message):
        find_recipe(name)


def test_the_command_lists_and_copies_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["recipes"])
    assert len(capsys.readouterr().out.splitlines()) == len(recipe_files())
    main(["recipes", "quickstart", "--out", "mine"])
    assert Path("mine/quickstart.yaml").read_bytes() == (ROOT / "recipes/quickstart.yaml").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main(["recipes", "quickstart", "--out", "mine"])
    assert stopped.value.code == 2
    assert "expected no file at mine/quickstart.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--config", "quickstart"], ["--config=quickstart"], ["-c", "quickstart"]])
def test_fit_takes_a_name(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *option, "--print_config"])
    assert stopped.value.code == 0
    assert "AffineInvariantModule" in capsys.readouterr().out


def test_a_wheel_holds_the_recipes(tmp_path):
    code = f"import hatchling.build as build; print(build.build_wheel({str(tmp_path)!r}))"
    wheel = tmp_path / subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()[-1]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    inside, outside = tmp_path / "installed/depthkit/recipes", ROOT / "recipes"
    files = {file.relative_to(outside) for file in outside.rglob("*.*") if file.suffix != ".pyc"}
    assert {file.relative_to(inside) for file in inside.rglob("*.*")} == files
    listed = subprocess.check_output(
        [sys.executable, "-c", "from depthkit.cli.main import main; main(['recipes'])"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": ""},
        text=True,
    )
    assert len(listed.splitlines()) == len(recipe_files())


def test_the_command_finds_modules_of_the_folder_where_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["depthkit", "recipes"])
    main()
    assert sys.path[-1] == str(tmp_path)
