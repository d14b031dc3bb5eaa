"""What a recipe's header says can be typed: its commands parse, write what the recipe reads, and run in the scripts' order."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from depthkit.convert.catalogue import find
from depthkit.evaluation import find_protocol, find_table
from depthkit.evaluation.protocols.benchmark_data import place_of
from tests.contracts.commands import understood
from tests.contracts.recipes import (
    OF_PAPERS,
    PARADIGMS,
    RECIPES,
    ROOT,
    STAND_FOR_ALL,
    at,
    commands,
    content,
    header,
    named,
    spoken,
)

SECTIONS = ("Data:", "Run:", "Cost:", "Expect:")
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=named)


@pytest.mark.quick(recipe=[str(ROOT / "recipes" / name) for name in STAND_FOR_ALL])
@every_recipe
def test_every_command_is_understood(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = commands(recipe)
    assert [words for words in found if words[0] in ("fit", "demo")]
    for words in found:
        meaning = understood(*words)
        if words[0] == "benchmark":
            assert meaning.row in find_table(meaning.table).figures
        if words[0] == "evaluate":
            assert find_protocol(meaning.protocol)
        if words[0] == "fit":
            assert f"recipes/{named(recipe)}" in words


WITH_VARIANTS = [recipe for recipe in RECIPES if commands(recipe, "|")]


@pytest.mark.parametrize("recipe", WITH_VARIANTS, ids=named)
def test_variants_keep_their_checkpoints_apart(recipe: Path) -> None:
    fits = [words for words in commands(recipe, "|") if words[0] == "fit"]
    folders = [words[words.index("--trainer.callbacks.dirpath") + 1] for words in fits]
    assert len({f"runs/{recipe.stem}", *folders}) == 1 + len(fits)
    assert all(f"recipes/{named(recipe)}" in words for words in fits)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WITH_VARIANTS, ids=named)
def test_every_variant_is_understood(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(recipe, "|"):
        meaning = understood(*words)
        if words[0] == "fit":
            (kept,) = [c.init_args.dirpath for c in meaning.trainer.callbacks if c.class_path.endswith("ModelCheckpoint")]
            assert kept in words


def test_a_wrong_word_is_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    good = next(words for words in commands(RECIPES[0]) if words[0] == "fit")
    for words in (
        [*good, "--model.gradient_weigth", "1"],
        ["shards", "write", "redweb", "a", "b", "--holdouts", "1"],
        ["benchmark", "m", "--shards", "s"],
    ):
        with pytest.raises((SystemExit, Exception)):
            understood(*words)


def written(words: list[str]) -> Iterator[tuple[str, str]]:
    """Folder and split of the shards that a command writes."""
    if words[0] == "label":
        yield words[3], "train"
    elif words[:2] == ["shards", "write"]:
        meaning, known = understood(*words), find(words[2])
        split = meaning["split"] or (next(iter(known.published)) if len(known.published) == 1 else "train")
        yield meaning["out"], split
        if meaning.get("holdout") and not known.published and not meaning["split"]:
            yield meaning["out"], "test"


def around(recipe: Path) -> list[Path]:
    """The recipe after those that its header names as writers of its data."""
    text = " ".join(line for line in header(recipe) if line.startswith("# Data:"))
    others = [ROOT / "recipes" / name for name in re.findall(r"(\w+/\w+\.yaml)", text)]
    others += [recipe.with_name(name) for name in re.findall(r"(?<![\w/])(\w+\.yaml)", text)]
    return [r for other in others if other != recipe for r in around(other)] + [recipe]


@every_recipe
def test_a_recipe_reads_what_its_commands_write(recipe: Path) -> None:
    if any(words[0] == "demo" for words in commands(recipe)):
        return
    there = {place for r in around(recipe) for words in commands(r) for place in written(words)}
    sources = [s for key in ("sources", "val_sources", "val_loss_sources") for s in at(content(recipe), f"data.{key}") or ()]
    assert {(s["root"], s.get("split", "train")) for s in sources} <= there
    for words in commands(recipe):
        if words[0] in ("evaluate", "roundtrip"):
            meaning = understood(*words)
            assert {(folder, meaning.split) for folder in meaning.shards} <= there
        if words[0] == "benchmark":
            roots = {root for root, split in there if split != "train"}
            places = {
                c.label.split()[0]: {_folder(p, c.images, roots) for p in c.protocols}
                for c in find_table(words[words.index("--table") + 1]).columns
            }
            missing = {label for label, folders in places.items() if not folders & roots}
            assert not missing


def _folder(protocol: str, images: int | None, roots: set[str]) -> str:
    place = place_of(protocol, "shards", images)
    if place is None:  # no converter
        return protocol
    plain = str(place.folder).removesuffix(f"_{images}")
    return next((root for root in (f"{plain}_{images}", plain) if root in roots), plain)


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_a_papers_script_runs_its_recipes_in_an_order_that_works(paradigm: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stub = tmp_path / "depthkit"
    stub.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >> {log}\nprintf "\\n\\0" >> {log}\n')
    stub.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DATA": "DATA", "SKY": "SKY", "DEVICE": "cpu", "LAUNCH": "env RANKS=8"}
    done = subprocess.run([ROOT / "recipes" / paradigm / "reproduce.sh"], env=env, capture_output=True, text=True, check=True)
    order = [Path(line).name for line in done.stderr.splitlines() if line.startswith("== ")]
    assert sorted(order) == sorted(r.name for r in RECIPES if r.parent.name == paradigm and r in OF_PAPERS)
    here = [ROOT / "recipes" / paradigm / name for name in order]
    ran = spoken(log.read_text())
    assert ran == [words for recipe in here for words in commands(recipe)]
    made: set[str] = set()
    for words in ran:
        used = {word for word in words if word.startswith("runs/") and word.endswith(".ckpt")}
        if words[0] == "fit":
            recipe = content(ROOT / words[words.index("--config") + 1])
            used |= set(re.findall(r"runs/[\w=./]+\.ckpt", str(recipe["model"])))
        assert {Path(path).parent for path in used} <= {Path(path) for path in made}, words
        if words[0] == "fit":
            made.add(recipe["trainer"]["default_root_dir"])


def test_lists_are_fetched_once_and_refused_with_another_number_of_lines(tmp_path: Path) -> None:
    script = (ROOT / "recipes" / "lists").read_text()
    values = dict(re.findall(r"^(splits|bts|marigold)=(\S+)$", script, re.M))
    fetched = re.findall(r"^fetch (\S+) (\d+) (?:\\\n +)?(\S+)$", script, re.M)
    assert len(fetched) == 15
    for _, lines, place in fetched:
        file = tmp_path / "hub" / re.sub(r"\$(\w+)", lambda m: values[m[1]], place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("2011_09_26/2011_09_26_drive_0002_sync 69 l\n" * (int(lines) or 3))
    env = {"PATH": "/usr/bin:/bin", "GITHUB_RAW": f"file://{tmp_path}/hub"}
    run = [ROOT / "recipes" / "lists", tmp_path / "splits"]
    subprocess.run(run, env=env, check=True, capture_output=True)
    assert {str(f.relative_to(tmp_path / "splits")) for f in (tmp_path / "splits").rglob("*.*")} == {
        *(name for name, _, _ in fetched),
        "kitti_midas.txt",
    }
    wanted = {w for r in RECIPES for mark in "$|" for c in commands(r, mark) for w in c if w.startswith("DATA/splits/")}
    assert {path.removeprefix("DATA/splits/") for path in wanted} <= {name for name, _, _ in fetched} | {"kitti_midas.txt"}
    (tmp_path / "splits" / "eigen_zhou" / "val_files.txt").unlink()
    file = next((tmp_path / "hub").rglob("eigen_zhou/val_files.txt"))
    file.write_text("a line\n")
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "eigen_zhou/val_files.txt: expected 4424 lines" in done.stderr


@every_recipe
def test_a_header_says_its_claim_its_commands_and_its_cost(recipe: Path) -> None:
    lines = header(recipe)
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 40
    named_sections = [line.split()[1] for line in lines if re.match(r"# \w+:", line)]
    wanted = SECTIONS if recipe in OF_PAPERS else ("Run:", "Cost:")
    assert not set(wanted) - set(named_sections)
    if recipe in OF_PAPERS:
        assert {"Paper:"} <= set(named_sections)
        cost = " ".join(line for line in lines if line.startswith("# Cost:"))
        assert re.search(r"\d", cost)


TRAINED_BATCH_NORM = ("midas_", "lrn_", "monodepth2_", "pose_")
"""Beginnings of the names of networks whose batch normalisation trains, unless it is frozen."""


@every_recipe
def test_devices_are_fixed_and_batch_norm_is_of_the_whole_batch(recipe: Path) -> None:
    keys = content(recipe)
    assert isinstance(keys["trainer"]["devices"], int)
    network = at(keys, "model.model")[0].rpartition(".")[2]
    frozen = bool(at(keys, "model.freeze_batch_norm"))
    if recipe in OF_PAPERS and network.startswith(TRAINED_BATCH_NORM) and not frozen:
        assert keys["trainer"]["sync_batchnorm"] is True
    else:
        assert "sync_batchnorm" not in keys["trainer"] or network.startswith(TRAINED_BATCH_NORM)


HELD_OUT_AS_TEST = {"shards/movies", "shards/diml_indoor", "shards/mine"}
"""Training sets whose held-out part is called test, and which no paper is scored on."""


@pytest.mark.parametrize("recipe", OF_PAPERS, ids=named)
def test_validation_is_on_what_training_sets_hold_out(recipe: Path) -> None:
    keys = content(recipe)
    trained = {s["root"] for s in at(keys, "data.sources")}
    held_out = [*(at(keys, "data.val_sources") or ()), *(at(keys, "data.val_loss_sources") or ())]
    assert held_out
    for source in held_out:
        assert source.get("split") != "test" or source["root"] in HELD_OUT_AS_TEST
        labelled_rooms = recipe.stem == "metric_nyu" and source["root"] == "shards/nyuv2" and source["split"] == "train"
        assert source["root"] in trained or labelled_rooms


@pytest.mark.parametrize("recipe", OF_PAPERS, ids=named)
def test_checkpoints_lie_where_later_stages_look(recipe: Path) -> None:
    trainer = content(recipe)["trainer"]
    assert trainer["default_root_dir"] == f"runs/{recipe.stem}"
    last = trainer["callbacks"][-1]  # which --trainer.callbacks.dirpath names
    assert (last["class_path"], last["init_args"]["dirpath"]) == ("ModelCheckpoint", f"runs/{recipe.stem}")
    assert last["init_args"]["save_last"] is True
