"""The command from end to end: a tiny trained network labels a tiny pool."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from depthkit.cli.label import label
from depthkit.cli.main import main
from depthkit.data import DepthDataModule, ShardIndex, ShardSource, ShardWriter, verify
from depthkit.errors import CheckpointError, LabelError, RecipeError, ShardError
from depthkit.inference import DepthPredictor
from depthkit.inference.labelling import LabelFolder
from depthkit.models import midas_timm
from depthkit.shards import decode_sample
from depthkit.shards.reading import read_shard
from depthkit.types import AMBIGUITIES, Ambiguity, LabelKind, Representation, Sample

COUNTS = (2, 1, 3, 2)
OPTIONS = {"accelerator": "cpu", "devices": "1", "batch_size": 2}
DYING = """
import os, signal, sys
from depthkit.cli.label import label
from depthkit.shards.files import PartialTar
add, left = PartialTar.add, [4]
def dying(self, key, members):
    left[0] -= 1
    if not left[0]:
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, key, members)
PartialTar.add = dying
label(sys.argv[1], sys.argv[2], sys.argv[3], accelerator="cpu", devices="1", batch_size=2)
"""


def picture(i, size):
    return np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(3)
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                bias.add_(0.1)  # or the last ReLU of random weights may be dead
    facts = {"model": model.config, "ambiguity": "shift_scale", "size": [32, 64]}
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "depthkit": facts}, path)
    return path


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Shards of different lengths with images of two sizes."""
    root = tmp_path_factory.mktemp("data") / "pool"
    for number, count in enumerate(COUNTS):
        with ShardWriter(root, split=f"s{number}", dataset="pool") as writer:
            for i in range(count):
                writer.write(Sample(f"{number}-{i}", picture(10 * number + i, [(40, 80), (60, 60)][i % 2])))
    index = json.loads((root / "index.json").read_text())
    shards = []
    for number in range(len(COUNTS)):
        (shard,) = index["splits"][f"s{number}"]["shards"]
        (root / shard["name"]).rename(root / f"train-{number:06d}.tar")
        shards.append({**shard, "name": f"train-{number:06d}.tar"})
    index["splits"] = {"train": {**index["splits"]["s0"], "samples": sum(COUNTS), "shards": shards}}
    (root / "index.json").write_text(json.dumps(index))
    verify(root).check()
    return root


@pytest.fixture(scope="module")
def labelled(checkpoint, pool, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "out"
    label(str(checkpoint), str(pool), out, **OPTIONS)
    return out


def contents(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


def samples(root):
    index = ShardIndex.load(root)
    for shard in index.shards("train"):
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples):
            yield raw, decode_sample(raw.key, raw.members, where=shard.name)


def test_labels_are_the_predictors_maps_up_to_scale_and_shift_within_the_step(checkpoint, pool, labelled):
    verify(labelled).check()
    predictor = DepthPredictor.from_pretrained(checkpoint)
    pairs = list(zip(samples(pool), samples(labelled), strict=True))
    assert len(pairs) == sum(COUNTS)
    for (before, sample), (after, found) in pairs:
        assert (before.key, before.members["image.jpg"]) == (after.key, after.members["image.jpg"])
        expected = predictor(sample.image).map
        spread = expected.max() - expected.min()
        assert np.abs(found.label - (expected - expected.min()) / spread).max() <= 0.5 / 65533 + 1e-4
        assert found.valid.all()


def test_labels_are_shards_to_train_on(labelled):
    data = DepthDataModule(
        [ShardSource(str(labelled))], batch_size=2, size=(32, 32), test_sources=[ShardSource(str(labelled), "train")]
    )
    for batch in (next(iter(data.train_dataloader())), next(iter(data.test_dataloader()[0]))):
        assert [AMBIGUITIES[code] for code in batch.ambiguity] == [Ambiguity.SHIFT_SCALE] * len(batch)
        assert batch.valid.all()
        assert batch.target.min() >= 0
        assert batch.target.max() <= 1 + 1e-6


def test_the_manifest_says_who_labelled_what_how(checkpoint, labelled):
    manifest = json.loads((labelled / "train.manifest.json").read_text())
    assert manifest["teacher"]["name"] == "last.ckpt"
    assert len(manifest["teacher"]["weights_sha256"]) == 64
    assert manifest["label"] == {"ambiguity": "shift_scale", "representation": "disparity", "format": "png_log16"}
    assert "1/65533" in manifest["step"]
    assert (ShardIndex.load(labelled).samples("train"), ShardIndex.load(labelled).split("train").left_out) == (8, 0)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes_and_redoes_no_finished_shard(checkpoint, pool, labelled, tmp_path):
    out, arguments = tmp_path / "out", [str(checkpoint), str(pool)]
    died = subprocess.run([sys.executable, "-c", DYING, *arguments, str(out)], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(list(out.glob("*.partial"))) == 1
    finished = {file: file.stat().st_mtime_ns for file in out.glob("train-*.tar")}
    assert len(finished) == 2
    label(*arguments, out, **OPTIONS)
    assert contents(out) == contents(labelled)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    label(*arguments, out, **OPTIONS)  # nothing is left to do, and nothing is done
    assert contents(out) == contents(labelled)


def test_a_writer_that_fails_leaves_whole_shards_only(checkpoint, pool, labelled, tmp_path, monkeypatch):
    encode, left = LabelFolder.encode, [5]

    def full(self, *args):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        return encode(self, *args)

    monkeypatch.setattr(LabelFolder, "encode", full)
    with pytest.raises(OSError, match="No space left"):
        label(str(checkpoint), str(pool), tmp_path / "out", **OPTIONS)
    assert {path.suffix for path in (tmp_path / "out").iterdir() if path.is_file()} <= {".tar", ".json"}
    monkeypatch.undo()
    label(str(checkpoint), str(pool), tmp_path / "out", **OPTIONS)
    assert contents(tmp_path / "out") == contents(labelled)


def test_a_run_that_is_told_to_end_leaves_whole_shards_only(checkpoint, pool, labelled, tmp_path, monkeypatch):
    asked = iter([False] * 4 + [True] * 9)
    monkeypatch.setattr(Trainer, "received_sigterm", property(lambda trainer: next(asked)))
    with pytest.raises(SystemExit) as stopped:
        label(str(checkpoint), str(pool), tmp_path / "out", **OPTIONS)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not list((tmp_path / "out").glob("*.partial"))
    monkeypatch.undo()
    label(str(checkpoint), str(pool), tmp_path / "out", **OPTIONS)
    assert contents(tmp_path / "out") == contents(labelled)


def test_ctrl_c_is_a_sentence_and_the_same_command_goes_on(checkpoint, pool, labelled, tmp_path, monkeypatch, capsys):
    words = ["label", str(checkpoint), str(pool), str(tmp_path / "out"), "--accelerator=cpu", "--devices=1", "--batch_size=2"]
    begin, calls = LabelFolder.begin, []

    def interrupted(self, piece):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return begin(self, piece)

    monkeypatch.setattr(LabelFolder, "begin", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 128 + signal.SIGINT
    assert "the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    main(words)
    assert contents(tmp_path / "out") == contents(labelled)


@pytest.mark.slow
def test_two_ranks_with_unequal_shards_write_what_one_writes(checkpoint, pool, labelled, tmp_path):
    command = [sys.executable, "-m", "depthkit.cli.main", "label", str(checkpoint), str(pool), str(tmp_path / "out")]
    command += ["--accelerator=cpu", "--devices=2", "--batch_size=2"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "WORLD", "LOCAL_RANK"))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert "8 images labelled" in done.stdout
    assert contents(tmp_path / "out") == contents(labelled)


def test_jobs_that_know_nothing_of_each_other_label_a_part_each(checkpoint, pool, labelled, tmp_path):
    for k in (2, 1, 3):
        label(str(checkpoint), str(pool), tmp_path / "out", part=f"{k}/3", **OPTIONS)
        assert ShardIndex.load(tmp_path / "out").splits["train"].complete == (k == 3)
    assert contents(tmp_path / "out") == contents(labelled)


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "1/0", "a/b", "9/9"])
def test_a_part_that_is_none_is_refused(checkpoint, pool, tmp_path, part):
    with pytest.raises(RecipeError, match=r"expected .* part"):
        label(str(checkpoint), str(pool), tmp_path / "out", part=part, **OPTIONS)


def photos(root, broken):
    root.mkdir()
    for i in range(10):
        Image.fromarray(picture(i, [(40, 80), (60, 60)][i % 2])).save(root / f"{i}.jpg")
    for i in broken:
        (root / f"{i}.jpg").write_bytes((root / f"{i}.jpg").read_bytes()[:300])
    return root


def test_broken_images_are_left_out_and_counted_by_name(checkpoint, tmp_path):
    root = photos(tmp_path / "photos", [3, 8])
    options = {**OPTIONS, "images_per_shard": 5, "max_broken_fraction": 0.2}
    label(str(checkpoint), str(root), tmp_path / "out", **options)
    info = ShardIndex.load(tmp_path / "out").split("train")
    assert (info.samples, info.left_out) == (8, 2)
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "out/records").iterdir())]
    assert [name for record in records for name, _ in record["left_out"]] == ["3_jpg", "8_jpg"]
    assert [raw.key for raw, _ in samples(tmp_path / "out")] == [f"{i}_jpg" for i in (0, 1, 2, 4, 5, 6, 7, 9)]


def test_too_many_broken_images_stop_the_run_and_a_restart_remembers_those_of_finished_shards(checkpoint, tmp_path):
    root = photos(tmp_path / "photos", [1, 8])
    options = {**OPTIONS, "images_per_shard": 5}
    for _ in range(2):
        with pytest.raises(ShardError, match=r"2 of 10 images .* more than max_broken_fraction allows \(1\)"):
            label(str(checkpoint), str(root), tmp_path / "out", max_broken_fraction=0.1, **options)
        assert sorted(path.name for path in (tmp_path / "out").glob("train-*")) == ["train-000000.tar"]
    label(str(checkpoint), str(root), tmp_path / "out", max_broken_fraction=0.2, **options)
    assert ShardIndex.load(tmp_path / "out").samples("train") == 8


def test_a_metric_model_of_transformers_labels_metric_depth_and_sky(pool, tmp_path):
    transformers = pytest.importorskip("transformers")
    processor = {"size": {"height": 56, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        head_hidden_size=4, depth_estimation_type="metric", max_depth=20,
    )  # fmt: skip
    sky = transformers.SegformerConfig(
        num_encoder_blocks=1, depths=[1], sr_ratios=[1], hidden_sizes=[8], patch_sizes=[7], strides=[4],
        num_attention_heads=[1], mlp_ratios=[2], decoder_hidden_size=8, id2label={0: "ground", 1: "sky"},
    )  # fmt: skip
    for name, model in (
        ("metric", transformers.DepthAnythingForDepthEstimation(config)),
        ("sky", transformers.SegformerForSemanticSegmentation(sky)),
    ):
        model.save_pretrained(tmp_path / name)
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(processor))
    teacher = f"transformers:{tmp_path / 'metric'}"
    with pytest.raises(LabelError, match="expected --output depth"):
        label(teacher, str(pool), tmp_path / "out", output="disparity", **OPTIONS)
    assert not (tmp_path / "out").exists()
    label(teacher, str(pool), tmp_path / "out", output="depth", sky=str(tmp_path / "sky"), max_broken_fraction=1, **OPTIONS)
    assert ShardIndex.load(tmp_path / "out").kind("train") == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    for _, sample in samples(tmp_path / "out"):
        assert np.isinf(sample.label).any() == (sample.sky is not None)
        finite = sample.label[np.isfinite(sample.label) & sample.valid]
        assert (finite > 0).all()
        assert (finite <= 20.01).all()


def test_mistakes_are_one_sentence_each(checkpoint, pool, labelled, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.ckpt").write_text("no weights")
    other = tmp_path / "other.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] += 1
    torch.save(content, other)
    for error, message, arguments in (
        (ShardError, "found none", [checkpoint, tmp_path / "empty", tmp_path / "out"]),
        (CheckpointError, "cannot be read", [tmp_path / "notes.ckpt", pool, tmp_path / "out"]),
        (CheckpointError, "there is no file", [tmp_path / "gone.ckpt", pool, tmp_path / "out"]),
        (ShardError, "labels made in the same way; their teacher", [other, pool, labelled]),
        (ShardError, r"train\.manifest\.json to say how .* it is missing", [checkpoint, pool, pool]),
    ):
        with pytest.raises(error, match=message):
            label(*map(str, arguments), **OPTIONS)
    with pytest.raises(SystemExit) as stopped:
        main(["label", str(checkpoint), str(tmp_path / "empty"), str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
