"""Fine-tuning: what it looks at, what it chooses, that it goes on, and that nothing it writes is worse than the start."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthkit.cli.finetuning import choices
from depthkit.cli.finetuning import finetune as module
from depthkit.cli.finetuning.choices import method_for
from depthkit.cli.finetuning.finetune import finetune
from depthkit.cli.finetuning.sources import opened
from depthkit.cli.finetuning.survey import survey
from depthkit.cli.main import main
from depthkit.models import dpt_timm, from_pretrained, latent_diffusion_tiny, midas_timm, save_network
from depthkit.models.weights.files import read_file
from depthkit.shards import ShardWriter
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

SIZE = (64, 96)


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image whose brightness tells its depth in millimetres."""
    coarse = rng.uniform(0, 1, (3, 4)).astype(np.float32)
    shade = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return np.repeat((shade * 255).astype(np.uint8)[..., None], 3, 2), (1000 + 3000 * shade).astype(np.uint16)


def written(root: Path, images: int, *, scale: float = 1.0, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in ("rgb", "depth"):
        (root / name).mkdir(parents=True)
    for number in range(images):
        image, depth = picture(rng)
        cv2.imwrite(str(root / "rgb" / f"{number:03d}.png"), image)
        cv2.imwrite(str(root / "depth" / f"{number:03d}.png"), (depth * scale).astype(np.uint16))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("own") / "kitchen", 12)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "net.ckpt"
    save_network(midas_timm("mobilenetv3_small_050", pretrained=False, features=8), file, ambiguity="shift_scale", size=SIZE)
    return file


@pytest.fixture(scope="module")
def done(net: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "_CHECKS", 2)  # validations
        main(["finetune", str(net), str(data), "--out", str(out), "--steps", "12", "--lr", "0.005"])
    return out


def weights(file: Path) -> dict[str, torch.Tensor]:
    return dict(read_file(file, "a checkpoint")["state_dict"])


def test_the_result_is_a_model_in_metres_and_better_than_its_start(done: Path) -> None:
    network = from_pretrained(done / "model.ckpt")
    assert (network.ambiguity, network.trained_size) == (Ambiguity.METRIC, SIZE)
    before, after = (json.loads((done / f"{name}.json").read_text()) for name in ("zero-shot", "fine-tuned"))
    assert after["summary"]["abs_rel"] < before["summary"]["abs_rel"] < 1  # the start was brought to metres, too
    assert [row["key"] for row in before["per_image"]] == [row["key"] for row in after["per_image"]]
    assert "fine-tuned is better" in (done / "report.txt").read_text()
    assert weights(done / "model.ckpt").keys() == weights(done / "start.ckpt").keys()


def test_the_encoder_and_its_statistics_stay_where_there_are_few_images(done: Path) -> None:
    before, after = weights(done / "start.ckpt"), weights(done / "run" / "best.ckpt")
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert "encoder" not in changed


@pytest.mark.slow
def test_the_recipe_does_the_same_again(done: Path, tmp_path: Path) -> None:
    best = weights(done / "run" / "best.ckpt")
    kept = tmp_path / "run"
    shutil.move(done / "run", kept)
    try:
        main(["fit", "--config", str(done / "recipe.yaml")])
        again = weights(done / "run" / "best.ckpt")
        assert best.keys() == again.keys()
        assert all(torch.equal(best[name], again[name]) for name in best)
    finally:
        shutil.rmtree(done / "run", ignore_errors=True)
        shutil.move(kept, done / "run")


def test_a_finished_run_is_scored_again_and_not_trained_again(
    done: Path, net: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (done / "report.txt").read_text()
    monkeypatch.setattr(module, "_train", None)
    result = finetune(str(net), str(data), out=done, steps=12, lr=0.005)
    assert (result.improved, (done / "report.txt").read_text()) == (True, before)


def test_what_does_not_help_is_not_kept(net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(out: Path, devices: int) -> None:
        content = read_file(out / "start.ckpt", "a checkpoint")
        content["depthkit"]["model"]["scale"] *= 100
        (out / "run").mkdir()
        torch.save(content, out / "run" / "best.ckpt")

    monkeypatch.setattr(module, "_train", spoil)
    result = finetune(str(net), str(data), out=tmp_path / "out", steps=1)
    assert result.comparison.metrics["abs_rel"].difference > 0
    assert not result.improved
    assert result.model.read_bytes() == (tmp_path / "out" / "start.ckpt").read_bytes()


def test_equal_is_no_gain(net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def nothing(out: Path, devices: int) -> None:
        (out / "run").mkdir()
        shutil.copyfile(out / "start.ckpt", out / "run" / "best.ckpt")

    monkeypatch.setattr(module, "_train", nothing)
    result = finetune(str(net), str(data), out=tmp_path / "out", steps=1)
    assert not result.improved
    assert result.model.read_bytes() == (tmp_path / "out" / "start.ckpt").read_bytes()
    assert "no gain on the images held out" in capsys.readouterr().out


def test_the_look_finds_what_is_there(tmp_path: Path) -> None:
    root = written(tmp_path / "room", 4)
    shutil.copyfile(root / "rgb" / "001.png", root / "rgb" / "003.png")
    depth = cv2.imread(str(root / "depth" / "000.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(root / "depth" / "000.png"), np.where(np.arange(SIZE[1]) < SIZE[1] // 2, depth, 0).astype(np.uint16))
    (root / "intrinsics.json").write_text(json.dumps({"fx": 80, "fy": 80, "cx": 48, "cy": 32, "width": 96, "height": 64}))
    facts = survey(opened(str(root)), str(root)).facts()
    assert facts["label"] == {"ambiguity": "metric", "representation": "depth"}
    assert (facts["unit"], facts["images"], facts["scenes"]) == ("m", 4, {"room": 4})
    assert facts["valid_share"] == pytest.approx(7 / 8)
    assert (facts["exact_duplicates"], facts["focal_length"], facts["with_intrinsics"]) == (1, [80.0, 80.0], 4)
    low, middle, high = facts["range_5_50_95"]
    assert 1 < low < middle < high < 4


def test_folders_of_scenes_and_shards_are_read_alike(tmp_path: Path) -> None:
    """Scenes are named by their folders; what is in shards is the same samples in the same order."""
    for seed, name in enumerate(("attic", "cellar")):
        written(tmp_path / "house" / name, 3, seed=seed)
    source = opened(str(tmp_path / "house"))
    found = survey(source, "house")
    assert found.scenes == {"attic": 3, "cellar": 3}
    with ShardWriter(tmp_path / "stored", split="train", dataset="house", image_format="png", samples_per_shard=4) as writer:
        for n in range(6):
            writer.write(source[n].replace(source={}))
    stored = opened(str(tmp_path / "stored"))
    assert [stored.key(n) for n in range(6)] == list(found.keys)
    for n in (5, 1, 2, 4):  # also out of order
        assert stored[n].key == found.keys[n]
        np.testing.assert_array_equal(stored[n].image, source[n].image)


@pytest.mark.parametrize(
    ("label", "representation", "ambiguity", "expected"),
    [
        ("metric", "disparity", "shift_scale", ("MetricModule", "metric", "small_metric")),
        ("metric", "depth", "metric", ("MetricModule", "metric", "small_metric")),
        ("scale", "disparity", "shift_scale", ("AffineInvariantModule", "shift_scale", "small_affine")),
        ("scale", "log_disparity", "scale", ("GeometryPreservingModule", "scale", "small_scale")),
        ("scale", "disparity", "scale", ("GeometryPreservingModule", "scale", "small_scale")),
        ("shift_scale", "disparity", "metric", ("AffineInvariantModule", "shift_scale", "held_out_affine_384")),
        ("shift_scale", "log_disparity", "scale", ("GeometryPreservingModule", "shift_scale", "held_out_affine_384")),
    ],
)
def test_labels_choose_the_method(label: str, representation: str, ambiguity: str, expected: tuple[str, str, str]) -> None:
    stored = Representation.DISPARITY if label == "shift_scale" else Representation.DEPTH
    found = method_for(LabelKind(Ambiguity(label), stored), Representation(representation), Ambiguity(ambiguity))
    assert (found.paradigm, found.ambiguity, found.protocol) == expected


@pytest.mark.slow
def test_adapters_are_merged_into_an_ordinary_network(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = dpt_timm("test_vit", pretrained=False, features=8, max_depth=10.0)
    save_network(start, tmp_path / "vit.ckpt", ambiguity="metric", size=SIZE)
    result = finetune(str(tmp_path / "vit.ckpt"), str(data), out=tmp_path / "out", steps=6, lr=0.003, adapters=2)
    assert result.improved
    before, after = weights(tmp_path / "out" / "start.ckpt"), weights(result.model)
    assert before.keys() == after.keys()
    moved = {name for name in before if name.startswith("model.encoder.") and not torch.equal(before[name], after[name])}
    assert moved
    assert all(".attn." in name and name.endswith(".weight") for name in moved)


def test_mistakes_are_one_sentence(net: Path, data: Path, done: Path, tmp_path: Path, capsys) -> None:
    def stops(model: object, source: object, *options: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["finetune", str(model), str(source), "--out", str(tmp_path / "out"), *options])
        assert stop.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    bare = tmp_path / "bare"
    shutil.copytree(data / "rgb", bare / "rgb")
    assert "has none. Put 16-bit PNGs in depth/" in stops(net, bare)
    assert "at least 3 images" in stops(net, written(tmp_path / "one", 1))
    still = written(tmp_path / "still", 6)
    for file in (still / "rgb").glob("*.png"):
        shutil.copyfile(data / "rgb" / "000.png", file)
    assert "images that differ" in stops(net, still)
    large = written(tmp_path / "large", 4)
    (large / "intrinsics.json").write_text(json.dumps({"depth_scale": 1.0}))
    assert "millimetres" in stops(net, large)
    assert "there is none. Check the path" in stops(net, tmp_path / "nowhere")
    assert "above 0; got 0" in stops(net, data, "--steps", "0")
    assert "expected a transformer as encoder" in stops(net, data, "--adapters", "4")
    assert "above 0; got -1" in stops(net, data, "--adapters", "-1")
    assert "between 0 and 1; got 1" in stops(net, data, "--hold_out", "1")
    latent_diffusion_tiny().save_pretrained(tmp_path / "diffusion")
    assert "`depthkit recipes end_to_end`" in stops(tmp_path / "diffusion", data)
    with ShardWriter(tmp_path / "plain", split="train", dataset="plain") as writer:
        writer.write(Sample("a", np.zeros((*SIZE, 3), np.uint8)))
    assert "has none" in stops(net, tmp_path / "plain")
    assert "of other settings or data" in stops(net, data, "--out", str(done), "--steps", "7")
    assert "holds other files" in stops(net, data, "--out", str(data))
