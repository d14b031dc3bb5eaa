"""``depthkit recipes``: the recipes that come with depthkit, which ``--config`` takes by name anywhere."""

import shutil
import sys
from difflib import get_close_matches
from pathlib import Path

import depthkit
from depthkit.errors import RecipeError
from depthkit.writing import replacing


def recipes(name: str = "", out: Path = Path()) -> None:
    """List the recipes, or copy one to edit it.

    Args:
        name: name of a recipe, such as `quickstart` or `affine_invariant/midas_mix5`; empty lists all.
        out: folder for the copy.

    Raises:
        RecipeError: there is no recipe of this name, or a file is in the copy's place.
    """
    if not name:
        width = max(map(len, recipe_files()))
        for key, file in recipe_files().items():
            sys.stdout.write(f"{key:<{width}}  {file.read_text().partition(chr(10))[0].lstrip('# ')}\n")
        return
    file = find_recipe(name)
    copy = out / file.name
    if copy.exists():
        raise RecipeError(f"expected no file at {copy}, where the copy goes; there is one. Move it, or pass another --out.")
    with replacing(copy) as part:
        shutil.copyfile(file, part)
    sys.stdout.write(f"{copy}: depthkit fit --config {copy}\n")


def recipe_files() -> dict[str, Path]:
    """Map each recipe's name, its path without ending, to its file: beside the package in a checkout, in it when installed."""
    package = Path(depthkit.__file__).parent
    root = next(folder for folder in (package / "recipes", package.parent / "recipes") if folder.is_dir())
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Find a recipe by its path, its name, or the last part of its name.

    Raises:
        RecipeError: there is no such file, and no recipe, or more than one, has the name.
    """
    if Path(name).is_file():
        return Path(name)
    files, wanted = recipe_files(), name.removeprefix("recipes/").removesuffix(".yaml")
    found = [key for key in files if wanted in (key, key.rpartition("/")[2])]
    if len(found) == 1:
        return files[found[0]]
    close = found or get_close_matches(wanted, [*files, *(key.rpartition("/")[2] for key in files)], n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    state = "more than one is" if found else "there is no"
    raise RecipeError(f"expected a recipe's file or name; {state} {name!r}. {hint}`depthkit recipes` lists them.")
