"""The recipes: their files, and the commands that their headers hold."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
OWN = ("quickstart", "synthetic", "rgbd", "handheld")
"""Beginnings of the names of recipes on rendered scenes or on one's own data, which repeat no number of a paper's table."""
OF_PAPERS = [recipe for recipe in RECIPES if not recipe.stem.startswith(OWN)]
PARADIGMS = sorted({recipe.parent.name for recipe in OF_PAPERS})
STAND_FOR_ALL = (
    "quickstart.yaml",
    "geometry_preserving/gp2_mixture.yaml",
    "self_supervised_video/kitti_mono_stereo_640x192.yaml",
    "semi_supervised/synthetic_student.yaml",
    "semi_supervised/metric_nyu.yaml",
    "diffusion/metricgold_sd2.yaml",
    "diffusion/end_to_end.yaml",
)
"""A recipe of every paradigm; the others are tried when slow tests are run."""
PLACES = {"DATA": "DATA", "SKY": "SKY", "DEVICE": "cpu"}
"""What the commands' variables stand for where nothing is run."""


def named(recipe: Path) -> str:
    """The recipe's path below ``recipes``."""
    return recipe.relative_to(ROOT / "recipes").as_posix()


def header(recipe: Path) -> list[str]:
    """The lines before the first key."""
    lines = recipe.read_text().splitlines()
    return lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]


def commands(recipe: Path, mark: str = "$", places: Mapping[str, str] = PLACES) -> list[list[str]]:
    """The words behind ``depthkit`` of every command in a recipe's header, as bash reads them; ``mark`` is ``$`` or ``|``."""
    lines = [line.removeprefix(f"#{mark}") for line in header(recipe) if line.startswith(f"#{mark}")]
    script = 'set -euo pipefail\ndepthkit() { printf "%s\\0" "$@"; printf "\\n\\0"; }\n' + "\n".join(lines)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **places})
    return spoken(done.stdout)


def spoken(text: str) -> list[list[str]]:
    """The words of commands of which each ends with a zero byte, and each command with a line."""
    found: list[list[str]] = [[]]
    for word in text.split("\0")[:-1]:
        if word == "\n":
            found.append([])
        else:
            found[-1].append(word)
    return found[:-1]


def content(recipe: Path) -> dict[str, Any]:
    """The recipe's keys."""
    return yaml.safe_load(recipe.read_text())


def at(recipe: Any, path: str) -> Any:
    """What stands at a path of keys; an object as its class and arguments, None where nothing is said."""
    for key in path.split("."):
        while isinstance(recipe, dict) and "init_args" in recipe:
            recipe = recipe["init_args"]
        recipe = recipe[int(key)] if isinstance(recipe, list) else (recipe or {}).get(key)
    if isinstance(recipe, dict) and "class_path" in recipe:
        return recipe["class_path"], recipe.get("init_args", {})
    return recipe
