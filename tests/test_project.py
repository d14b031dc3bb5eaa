"""Files that other programs read: the citation, forms, the image of a container, jobs of clusters."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import depthkit
from depthkit.cli.main import COMMANDS, TRAINING
from depthkit.cli.recipes import find_recipe

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "docs" / "clusters"


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == depthkit.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda form: form.stem)
def test_a_form_asks_for_what_it_needs(form: Path) -> None:
    found = yaml.safe_load(form.read_text())
    assert {"name", "description"} <= found.keys()
    names = [part["id"] for part in found["body"]]
    assert len(names) == len(set(names))
    assert all(part["type"] in ("textarea", "input") and part["attributes"]["label"] for part in found["body"])
    assert any(part.get("validations", {}).get("required") for part in found["body"])


def test_the_container_copies_what_is_there_and_installs_extras_that_are_declared() -> None:
    text = (ROOT / "Dockerfile").read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert name in allowed
    extras = re.search(r"'\.\[([\w,]+)\]'", text)
    assert extras
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def shell(job: Path) -> str:
    if job.suffix == ".yaml":
        task = yaml.safe_load(job.read_text())
        assert find_recipe(task["envs"]["RECIPE"])
        return str(task["run"])
    return job.read_text()


@pytest.mark.parametrize("job", [JOBS / "slurm.sbatch", JOBS / "skypilot.yaml"], ids=lambda job: job.name)
def test_a_job_is_shell_and_its_command_has_options_that_exist(job: Path) -> None:
    subprocess.run(["bash", "-n"], input=shell(job), text=True, check=True)
    (line,) = [line for line in shell(job).replace("\\\n", " ").splitlines() if "depthkit fit" in line]
    words = shlex.split(line)
    command = words[words.index("depthkit") + 1]
    assert command in (*TRAINING, *COMMANDS)
    check_options([word for word in words if word.startswith("--")])


def test_the_job_of_submitit_calls_the_command_with_options_that_exist() -> None:
    tree = ast.parse((JOBS / "submitit_fit.py").read_text())
    words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    check_options([word for word in words if re.fullmatch(r"--[\w.]+", word)])


def check_options(options: list[str]) -> None:
    from inspect import signature

    import lightning.pytorch as pl

    trainer = signature(pl.Trainer).parameters
    assert options
    for option in options:
        name = option.removeprefix("--").partition("=")[0].rstrip("+")
        assert name in ("config", "ckpt_path") or name.removeprefix("trainer.") in trainer, option
