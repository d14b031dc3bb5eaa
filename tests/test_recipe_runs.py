"""A paper from end to end: what its recipes' headers say, in the script's order, on rendered scenes, shrunk by flags alone.

Datasets are made: whatever a command reads is rendered scenes with labels of the dataset's kind. How the files of each are
read is tested in ``tests/convert``.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depthkit.cli import shards_write
from depthkit.cli.main import main
from depthkit.convert.records.dataset import Dataset
from depthkit.data.transforms import WeakenLabel, WithoutLabel
from depthkit.shards import ShardIndex
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Representation, Sample, Views
from tests.contracts.recipes import PARADIGMS, ROOT, at, commands, content
from tests.test_recipes import SMALL, SMALL_POSE, dpt, of_any_size

SIZES = {"kitti_improved": (375, 1242), "kitti_eigen": (375, 1242), "nyuv2": (480, 640)}
"""Pictures of tests whose crops are in pixels, (height, width)."""
ORDER = {
    "affine_invariant": ("midas_redweb", "midas_mix5"),
    "geometry_preserving": ("gp2_mixture", "gp2_nyu_raw"),
    "self_supervised_video": ("kitti_mono_640x192", "kitti_mono_1024x320", "kitti_stereo_640x192", "kitti_mono_stereo_640x192"),
    "semi_supervised": ("teacher_large", "student_small", "metric_nyu", "metric_kitti", "metric_v2_hypersim"),
    "diffusion": ("metricgold_sd2", "end_to_end"),
}
"""Recipes that are run, in their script's order: of several that differ in a size alone, one."""


def made(known: Dataset, root: str, split: str | None, options: Mapping[str, Any]) -> list[Sample]:
    """Rendered scenes instead of a dataset: six to train on, two of other scenes elsewhere."""
    training = split in ("train", None)
    views = options.get("views", Views.SINGLE)
    scenes = SyntheticScenes(6 if training else 2, size=(64, 96), kind="street", seed=int(not training), views=views)
    return [_of_kind(known, _enlarged(sample, SIZES.get(known.name))) for sample in scenes]


def _enlarged(sample: Sample, size: tuple[int, int] | None) -> Sample:
    if size is None:
        return sample
    rows, columns = (np.arange(n) * old // n for n, old in zip(size, sample.size, strict=True))
    maps = {name: getattr(sample, name)[rows[:, None], columns] for name in ("image", "label", "valid", "sky")}
    return sample.replace(**maps)


def _of_kind(known: Dataset, sample: Sample) -> Sample:
    rng, kind = np.random.default_rng(0), known.kind
    ambiguity = Ambiguity.METRIC if kind is None else kind.ambiguity
    if ambiguity == Ambiguity.ORDINAL:
        bare = WithoutLabel()(sample, rng)
        pairs = np.array([[5, 9, 50, 60, -1]], np.int32)
        return bare.replace(pairs=pairs, ambiguity=ambiguity, representation=Representation.DISPARITY)
    if ambiguity in (Ambiguity.SCALE, Ambiguity.SHIFT_SCALE):
        return WeakenLabel(float(ambiguity == Ambiguity.SCALE))(sample, rng)
    return WithoutLabel()(sample, rng) if ambiguity == Ambiguity.UNLABELLED else sample


def shrunk(words: list[str]) -> list[str]:
    """A command with the flags that make it small."""
    if words[:2] == ["shards", "write"]:
        return [*words, "--samples_per_shard", "2", "--workers", "0"]
    if words[0] == "label":
        few = {
            "precision": "32",
            "num_workers": "0",
            "accelerator": "cpu",
            "devices": "1",
            "threads": "1",
            "images_per_shard": "2",
        }
        return [*words, *(word for name, value in few.items() for word in (f"--{name}", value))]
    return [*words, *_small_training(content(ROOT / words[words.index("--config") + 1]))] if words[0] == "fit" else words


def _small_training(recipe: dict[str, Any]) -> Iterator[str]:
    model, data = recipe["model"]["init_args"], recipe["data"]["init_args"]
    paradigm = recipe["model"]["class_path"].rpartition(".")[2]
    sources = [of_any_size(source) for source in data["sources"]]
    video = "views" in data
    flags: dict[str, Any] = {
        "trainer.devices": 1,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.max_steps": 10 if video else 2,  # the larger sizes of Monodepth2 start from ten epochs of the smaller
        "trainer.accumulate_grad_batches": 1,
        "trainer.limit_val_batches": 1,
        "trainer.check_val_every_n_epoch": 10 if video else 1,
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
        "data.num_workers": 0,
        "data.batch_size": max(len(sources), 3),
        "data.epoch_size": max(len(sources), 3),
        "data.size": [64, 96],
        "data.transform": {"class_path": "depthkit.data.transforms.Resize", "init_args": {"size": [64, 96]}},
        "data.sources": sources,
        "model.model": SMALL[paradigm]["model"],
    }
    if "every_n_train_steps" in recipe["trainer"]["callbacks"][-1]["init_args"]:
        flags["trainer.callbacks.every_n_train_steps"] = 1
    if "pose_net" in model:
        flags["model.pose_net"] = SMALL_POSE
    if "network_size" in model:
        flags["model.network_size"] = [48, 64]
    if "base_lr" in model:
        flags["model.base_lr"] = None
    for name, value in flags.items():
        yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def _nowhere(model: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.zeros(image.shape[:2], bool)


def test_every_paradigm_has_its_order() -> None:
    assert sorted(ORDER) == PARADIGMS


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ORDER)
def test_a_paper_runs_from_end_to_end(paradigm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if paradigm == "diffusion":
        pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Dataset, "open", lambda known, root, split=None, options=None: made(known, root, split, options or {}))
    monkeypatch.setattr(shards_write, "_finder", _nowhere)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    places = {"DATA": str(tmp_path / "data"), "SKY": "none", "DEVICE": "cpu"}
    for name in ORDER[paradigm]:
        recipe = ROOT / "recipes" / paradigm / f"{name}.yaml"
        for words in commands(recipe, places=places):
            if words[0] == "label":
                _pictures(Path(words[2]))
            if words[0] == "fit" and "--model.model.pretrained" in words:  # a file that is not at hand; the network is small
                del words[(at_ := words.index("--model.model.pretrained")) : at_ + 2]
            main(shrunk(words))
            if words[:2] == ["shards", "write"]:
                assert ShardIndex.load(words[4]).splits
            if words[0] == "fit":
                assert (tmp_path / at(content(recipe), "trainer.default_root_dir") / "last.ckpt").is_file()
            if words[0] == "benchmark":
                ledger = json.loads((tmp_path / "benchmark.json").read_text())
                cells = ledger["networks"][0]["columns"]
                assert sum(cell["ours"] is not None for cell in cells) >= len(cells)


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n, sample in enumerate(SyntheticScenes(4, size=(64, 96), kind="street", seed=2)):
        Image.fromarray(sample.image).save(folder / f"{n}.jpg")


def test_a_small_training_keeps_what_a_recipe_says_of_its_labels() -> None:
    recipe = content(ROOT / "recipes" / "geometry_preserving" / "gp2_nyu_raw.yaml")
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in _small_training(recipe))
    assert "WeakenLabel" in flags["data.sources"]
    assert dpt()["class_path"] != flags["model.model"]
