import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.cli.main import main
from depthkit.cli.options import Resizing
from depthkit.cli.scoring.evaluate import evaluate, evaluation_samples
from depthkit.data import ShardWriter
from depthkit.errors import CheckpointError, DepthKitError, PredictionError, RecipeError, ShapeError, ShardError
from depthkit.evaluation import FULL, PROTOCOLS
from depthkit.evaluation import evaluate as score
from depthkit.inference import Prediction, read_checkpoint
from depthkit.inference.stored import StoredPredictions
from depthkit.models import FlipAverage, Sampling, from_pretrained, latent_diffusion_tiny, midas_timm
from depthkit.types import Ambiguity, Representation, Sample


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data") / "boxes", np.random.default_rng(0)
    with ShardWriter(root, split="test", dataset="boxes", samples_per_shard=2) as writer:
        for i in range(5):
            depth = rng.uniform(1, 9, (32, 64)).astype(np.float32)
            image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
            writer.write(Sample(f"s{i}", image, depth, depth > 1.5, Ambiguity.METRIC, Representation.DEPTH))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    facts = {"model": model.config, "ambiguity": "shift_scale", "size": [32, 64]}
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "depthkit": facts}, path)
    return path


def test_every_sample_is_read_once_and_can_be_read_again(shards):
    samples = evaluation_samples(shards)
    for _ in range(2):
        assert [key for batch in samples for key in batch.keys] == [f"s{i}" for i in range(5)]


def test_a_checkpoint_is_scored_and_the_table_names_the_protocol(shards, checkpoint, tmp_path, capsys):
    evaluate(str(checkpoint), [str(shards)], "midas_nyu", out=tmp_path)
    printed = capsys.readouterr().out
    for words in ("protocol: midas_nyu", "5 scored, 0 left out", "last", "MiDaS v2 (MIX 5, Pareto) (published)"):
        assert words in printed
    content = json.loads((tmp_path / "boxes.test.midas_nyu.json").read_text())
    assert content["n_images"] == 5
    assert "data:image/webp" in (tmp_path / "boxes.test.midas_nyu.html").read_text()


def test_the_uncertainty_is_scored_beside_where_asked(shards, checkpoint, tmp_path, capsys):
    words = ["evaluate", str(checkpoint), str(shards), "--protocol", "small_affine", "--out", str(tmp_path)]
    main(words)
    plain = json.loads((tmp_path / "boxes.test.small_affine.json").read_text())["summary"]
    main([*words, "--confidence", "flip"])
    assert "ause_abs_rel" in capsys.readouterr().out
    content = json.loads((tmp_path / "boxes.test.small_affine.confidence-flip.json").read_text())
    shared = {name: content["summary"][name] for name in plain}
    assert shared == pytest.approx(plain, rel=1e-5)  # a batch of two rounds otherwise
    assert content["per_image"][0]["ause_rmse"] >= 0
    assert 0 <= content["per_image"][0]["calibration_error"] <= 0.5
    assert set(content["uncertainty"]) == {"sparsification_abs_rel", "sparsification_rmse", "calibration"}
    main([*words, "--confidence", "ensemble", "--members", f"[{checkpoint}]"])
    assert "last and 1 more" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="with --predictions, which are scored as they are"):
        evaluate("mine", [str(shards)], predictions=tmp_path, confidence="flip")


def test_reports_of_folders_of_one_name_do_not_overwrite_each_other(shards, checkpoint, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "boxes").symlink_to(shards)
    evaluate(str(checkpoint), [str(shards), str(tmp_path / "other" / "boxes")], out=tmp_path / "reports")
    assert len(list((tmp_path / "reports").glob("*.json"))) == 2


def test_mistakes_end_in_one_sentence(shards, checkpoint, tmp_path):
    with pytest.raises(RecipeError, match="unknown protocol 'kitty'; expected one of"):
        evaluate(str(checkpoint), [str(shards)], "kitty")
    with pytest.raises(CheckpointError, match=r"expected a MODEL at .*: .* there is no file"):
        evaluate(str(tmp_path / "no.ckpt"), [shards])
    with pytest.raises(RecipeError, match=r"expected a device that this machine has; got tpu7 \(.*Choose cpu"):
        evaluate(str(checkpoint), [str(shards)], device="tpu7")
    with pytest.raises(ShardError, match="expected a split of"):
        evaluate(str(checkpoint), [str(shards)], split="val")
    with pytest.raises(RecipeError, match="expected a protocol that compares maps of depth to score flicker"):
        evaluate(str(checkpoint), [str(shards)], "held_out_affine_384", flicker=True)


def test_flip_scores_the_average_with_the_mirrored_map(shards, checkpoint, tmp_path):
    for flip in (False, True):
        evaluate(str(checkpoint), [str(shards)], "midas_nyu", out=tmp_path, pictures=0, flip=flip)
    plain, flipped = (json.loads((tmp_path / f"boxes.test.midas_nyu{name}.json").read_text()) for name in ("", ".flip"))
    assert (plain["model"], flipped["model"]) == ("last", "last + flip")
    network = read_checkpoint(checkpoint)
    averaged = score(FlipAverage(network.model), evaluation_samples(shards), PROTOCOLS["midas_nyu"], pictures=0, progress=False)
    assert flipped["summary"] == pytest.approx(averaged.summary)
    assert flipped["per_image"] != plain["per_image"]


def test_a_latent_diffusion_model_samples_as_it_is_told(shards, checkpoint, tmp_path):
    pytest.importorskip("diffusers")
    model = latent_diffusion_tiny(vae_channels=(8, 8, 16))
    facts = {"model": model.config, "ambiguity": "metric", "size": [64, 96]}
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "depthkit": facts}, tmp_path / "last.ckpt")
    sampling = Sampling(steps=2, members=3)
    evaluate(str(tmp_path / "last.ckpt"), [str(shards)], "synthetic_metric", out=tmp_path, pictures=0, sampling=sampling)
    found = json.loads((tmp_path / "boxes.test.synthetic_metric.2x3.json").read_text())
    assert found["model"] == "last, 2 steps, 3 members"
    model.sampling = sampling
    again = score(model.eval(), evaluation_samples(shards), PROTOCOLS["synthetic_metric"], pictures=0, progress=False)
    assert found["summary"] == pytest.approx(again.summary, rel=1e-3)
    with pytest.raises(RecipeError, match=r"expected a latent diffusion model for --sampling; .* holds a DepthNet"):
        evaluate(str(checkpoint), [str(shards)], sampling=sampling)


def maps_of(network, shards):
    """The network's map of each sample at the sample's size, as another program would store it."""
    for batch in evaluation_samples(shards):
        with torch.inference_mode():
            yield batch.keys[0], network(PROTOCOLS["midas_nyu"].resize_input(batch.image, network.size_multiple))[0, 0].numpy()


def summary(folder):
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text())["summary"]


def test_stored_predictions_are_scored_as_their_network(shards, checkpoint, tmp_path):
    network = read_checkpoint(checkpoint).model
    evaluate(str(checkpoint), [str(shards)], "midas_nyu", out=tmp_path / "network", pictures=0)
    said = {"representation": "disparity", "ambiguity": "shift_scale"}
    for folder in ("plain", "told", "codes"):
        (tmp_path / folder).mkdir()
    for key, values in maps_of(network, shards):
        np.save(tmp_path / "plain" / f"{key}.npy", values)
        Prediction(values, Representation.DISPARITY, Ambiguity.SHIFT_SCALE).save(tmp_path / "told" / f"{key}.npy")
        codes = ((values - values.min()) / np.ptp(values) * 65535).round().astype(np.uint16)
        Image.fromarray(codes).save(tmp_path / "codes" / f"{key}.png")
    for folder, options in (("plain", said), ("told", {}), ("codes", {**said, "scale": 256.0})):
        out = tmp_path / "out" / folder
        evaluate("others", [str(shards)], "midas_nyu", out=out, predictions=tmp_path / folder, **options)
        tolerance = 1e-6 if folder != "codes" else 1e-3
        assert summary(out) == pytest.approx(summary(tmp_path / "network"), rel=tolerance)
    for wrong, words in (
        ({"predictions": tmp_path / "plain"}, "expected to be told what the maps in"),
        ({"predictions": tmp_path / "codes", **said}, "expected to be told what a code of"),
        ({"predictions": tmp_path / "network"}, "expected predictions, KEY.npy or KEY.png"),
        ({"predictions": tmp_path / "told", "flip": True}, "expected no --flip"),
    ):
        with pytest.raises(DepthKitError, match=words):
            evaluate("others", [str(shards)], "midas_nyu", **wrong)
    (tmp_path / "told" / "s3.npy").unlink()
    with pytest.raises(PredictionError, match="expected a prediction of 's3' at"):
        evaluate("others", [str(shards)], "midas_nyu", predictions=tmp_path / "told")


def test_a_stored_map_of_the_whole_image_is_cut_to_what_the_protocol_shows(tmp_path):
    values = np.arange(48 * 64, dtype=np.float32).reshape(48, 64)
    Prediction(values, Representation.DEPTH, Ambiguity.METRIC).save(tmp_path / "a.npy")
    Prediction(values[12:36], Representation.DEPTH, Ambiguity.METRIC).save(tmp_path / "b.npy")
    stored = StoredPredictions(tmp_path, shown=replace(FULL, rows=(0.25, 0.75)))
    image = np.zeros((48, 64, 3), np.uint8)
    found = [stored(None) for _ in stored.of([Sample("a", image), Sample("b", image)])]
    for each in found:
        np.testing.assert_array_equal(each[0, 0].numpy(), values[12:36])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_an_exported_program_is_scored_and_predicts(suffix, shards, checkpoint, tmp_path):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    main(["export", str(checkpoint), str(tmp_path / f"net.{suffix}"), "--size", "32", "64"])
    program, network = from_pretrained(tmp_path / f"net.{suffix}"), from_pretrained(checkpoint)
    assert (program.representation, program.ambiguity) == (network.representation, network.ambiguity)
    image = torch.rand(2, 3, 32, 64)
    with torch.inference_mode():
        torch.testing.assert_close(program(image), network(image), rtol=1e-3, atol=1e-4)
    with pytest.raises(ShapeError, match=r"expected images of 32x64, the size of the program net"):
        program(torch.rand(1, 3, 64, 64))
    out = [tmp_path / "program", tmp_path / "network"]
    evaluate(str(tmp_path / f"net.{suffix}"), [str(shards)], "midas_nyu", out=out[0], pictures=0)
    same = Resizing(side=(32, 64), rule="stretch")
    evaluate(str(checkpoint), [str(shards)], "midas_nyu", out=out[1], pictures=0, resize=same)
    assert summary(out[0]) == pytest.approx(summary(out[1]), rel=1e-2)
    (tmp_path / f"bad.{suffix}").write_bytes(b"no program")
    with pytest.raises(CheckpointError, match="expected a program of `depthkit export`"):
        from_pretrained(tmp_path / f"bad.{suffix}")


@pytest.fixture
def broken_shards(tmp_path):
    """Five samples, of which the image of one is broken and another has few labels."""
    root, rng = tmp_path / "broken", np.random.default_rng(0)
    with ShardWriter(root, split="test", dataset="boxes", samples_per_shard=5) as writer:
        for i in range(5):
            depth = rng.uniform(1, 9, (32, 64)).astype(np.float32)
            image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
            valid, few = depth > 1.5, np.arange(32 * 64).reshape(32, 64) < 5
            writer.write(Sample(f"s{i}", image, depth, valid if i != 1 else few, Ambiguity.METRIC, Representation.DEPTH))
    (shard,) = root.glob("test-*.tar")
    with tarfile.open(shard) as tar:
        (member,) = [m for m in tar.getmembers() if m.name.startswith("s3.image")]
    content = bytearray(shard.read_bytes())
    content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    shard.write_bytes(content)
    return root


def test_a_test_with_a_broken_sample_is_reported_and_fails(broken_shards, checkpoint, tmp_path, capsys):
    with pytest.warns(UserWarning, match="skipped a broken sample"), pytest.raises(ShardError) as found:
        evaluate(str(checkpoint), [str(broken_shards)], "midas_nyu", out=tmp_path)
    assert "1 of 5 could not be read, so the numbers are not those of the test" in str(found.value)
    assert "s3" in str(found.value)
    printed = capsys.readouterr().out
    assert "images: 4 read, 1 broken; 3 scored, 1 left out, 0 without a scale" in printed
    assert "left out: s1: 5 of 5 labelled pixels can be scored, 10 are needed" in printed
    content = json.loads((tmp_path / "broken.test.midas_nyu.json").read_text())
    assert (content["n_read"], content["n_images"], content["left_out"], len(content["broken"])) == (4, 3, 1, 1)
    assert [row["why"] is None for row in content["per_image"]] == [True, False, True, True]


def test_the_exit_code_of_a_test_in_part_is_not_zero(broken_shards, checkpoint, capsys):
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(SystemExit) as found:
        main(["evaluate", str(checkpoint), f'["{broken_shards}"]', "--protocol=midas_nyu"])
    assert found.value.code == 2
    streams = capsys.readouterr()
    assert "abs_rel" in streams.out or "delta1_error" in streams.out
    assert streams.err.startswith("ShardError: expected all samples of the test 'midas_nyu'")
