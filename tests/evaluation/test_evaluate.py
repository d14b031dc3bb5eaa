import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import LabelError, PredictionError, RecipeError, ShapeError, ShardError
from depthkit.evaluation import PROTOCOLS, ProtocolMetrics, Report, RowBaseline, best_row_baseline, evaluate
from depthkit.types import Ambiguity, Batch, Representation, Sample
from tests.contracts.ranks import on_ranks

AFFINE, METRIC, DIW = (PROTOCOLS[name] for name in ("synthetic_affine", "synthetic_metric", "midas_diw"))
DISPARITY, DEPTH = Representation.DISPARITY, Representation.DEPTH


def sample(key, rng, size=(32, 64), **changes):
    depth = rng.uniform(1, 9, size).astype(np.float32)
    image = np.repeat((255 / depth)[..., None], 3, 2).astype(np.uint8)
    valid = rng.random(size) > 0.2
    return Sample(key, image, depth, valid, Ambiguity.METRIC, DEPTH).replace(**changes)


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    made = [sample(f"s{i}", rng) for i in range(7)]
    made[2] = made[2].replace(valid=np.zeros_like(made[2].valid))
    made[4] = made[4].replace(label=1 / made[4].label, representation=DISPARITY, valid=made[4].valid & (np.arange(64) < 20))
    return made


def stacked(samples, datasets, **options):
    return to_float(collate(samples, datasets, **options))


class Brightness(nn.Module):
    """The images above show the disparity."""

    representation = DISPARITY
    ambiguity = Ambiguity.SHIFT_SCALE
    size_multiple = 16

    def forward(self, image):
        assert not self.training
        assert image.shape[-1] % 16 == 0
        return 3 * image.mean(1, keepdim=True) + 0.1 * image[:, :1].flip(-1)


def test_evaluate_equals_protocol_metrics_on_batches(samples):
    report = evaluate(Brightness(), samples, AFFINE, progress=False)
    metrics = ProtocolMetrics(AFFINE, prefix="val/")
    for rows in ((0, 1, 2), (3, 4), (5, 6)):
        batch = stacked([samples[i] for i in rows], [0] * len(rows))
        metrics.update(Brightness().eval()(batch.image), DISPARITY, batch)
    computed = metrics.compute()
    assert {f"val/{name}": value for name, value in report.summary.items()} == pytest.approx(
        {name: value.item() for name, value in computed.items() if name.split("/")[1] in AFFINE.metrics}
    )
    assert (computed["val/images"], computed["val/left_out"], computed["val/degenerate"]) == (6, 1, 0)
    assert (report.n_images, report.left_out, report.degenerate) == (6, 1, 0)


def test_the_summary_is_the_mean_of_the_images(samples):
    report = evaluate(Brightness(), samples, AFFINE, progress=False)
    rows = [row for row in report.per_image if not row["left_out"]]
    assert [row["key"] for row in report.per_image] == [f"s{i}" for i in range(7)]
    assert report.summary["abs_rel"] == pytest.approx(np.mean([row["abs_rel"] for row in rows]))
    assert math.isnan(report.per_image[2]["abs_rel"])


@pytest.mark.parametrize("reduction", ["image", "pixel"])
def test_numbers_depend_neither_on_batching_nor_on_the_number_of_ranks(reduction, samples):
    protocol = replace(AFFINE, reduction=reduction)
    batch = stacked(samples, [0] * len(samples))
    pred = Brightness().eval()(batch.image)
    whole = ProtocolMetrics(protocol)
    whole.update(pred, DISPARITY, batch)
    ranks = [ProtocolMetrics(protocol) for _ in range(3)]
    for i in range(len(samples)):
        row = torch.arange(len(samples)) == i
        ranks[i % 3].update(pred[row], DISPARITY, batch.rows(row))
    merged = ranks[0]
    for other in ranks[1:]:
        merged.merge_state(other)
    for name, value in whole.compute().items():
        torch.testing.assert_close(merged.compute()[name], value, rtol=1e-12, atol=0)


def test_pooling_pixels_weighs_images_by_their_labels(samples):
    batch = stacked(samples, [0] * len(samples))
    image, pixel = ProtocolMetrics(AFFINE), ProtocolMetrics(replace(AFFINE, reduction="pixel"))
    for metrics in (image, pixel):
        metrics.update(Brightness().eval()(batch.image), DISPARITY, batch)
    count = batch.valid.flatten(1).sum(1).double()
    values = image.last_values["abs_rel"]
    expected = (values.nan_to_num(0) * count).sum() / count.sum()
    torch.testing.assert_close(pixel.compute()["abs_rel"], expected)
    assert not torch.isclose(image.compute()["abs_rel"], expected)


def test_rows_that_only_pad_count_for_nothing(samples):
    batch = stacked(samples[:2] * 2, [0] * 4, real=[True, True, False, False])
    pred = Brightness().eval()(batch.image)
    padded, plain = ProtocolMetrics(AFFINE), ProtocolMetrics(AFFINE)
    padded.update(pred.where(batch.real.view(-1, 1, 1, 1), torch.nan), DISPARITY, batch)
    plain.update(pred[:2], DISPARITY, batch.rows(batch.real))
    assert padded.compute() == plain.compute()


def test_a_cast_of_the_module_leaves_the_sums_in_double_precision(samples):
    metrics = nn.ModuleList([ProtocolMetrics(AFFINE)]).to(torch.bfloat16)[0]
    batch = stacked(samples[:1], [0])
    metrics.update(Brightness().eval()(batch.image), DISPARITY, batch)
    assert metrics.compute()["abs_rel"].dtype == torch.float64


def test_anything_callable_can_be_evaluated(samples):
    label = 1 / samples[0].label
    for shape in ((32, 64), (1, 32, 64), (1, 1, 32, 64)):
        report = evaluate(
            lambda image, s=shape: label.reshape(s), samples[:1], AFFINE, representation="disparity", progress=False
        )
        assert report.summary["abs_rel"] < 1e-5


def test_predictions_at_network_resolution_are_resized_to_the_label(samples):
    sizes = []

    def predict(image):
        sizes.append(tuple(image.shape[-2:]))
        return image.mean(1, keepdim=True)[..., ::2, ::2]

    report = evaluate(
        predict, [sample("odd", np.random.default_rng(1), (45, 77))], AFFINE, representation=DISPARITY, progress=False
    )
    assert sizes == [(32, 64)]
    assert report.inputs == ["32x64"]


def test_a_network_keeps_its_mode(samples):
    model = Brightness().train()
    evaluate(model, samples[:1], AFFINE, progress=False)
    assert model.training


@pytest.mark.parametrize(
    ("predict", "error", "message"),
    [
        (lambda image: image.mean(1) * float("nan"), PredictionError, "expected a finite prediction"),
        (lambda image: image.mean(1) / 0, PredictionError, "expected a finite prediction"),
        (lambda image: image, ShapeError, r"s0: expected a prediction of shape \(1, 1, h, w\).* got \(1, 3, 32, 64\)"),
        (lambda image: image.mean(), ShapeError, "expected a prediction of shape"),
    ],
)
def test_bad_predictions_are_refused(predict, error, message, samples):
    with pytest.raises(error, match=message):
        evaluate(predict, samples, AFFINE, representation=DISPARITY, progress=False)


def test_the_representation_must_be_known(samples):
    with pytest.raises(LabelError, match="representation of the model's output, one of depth, disparity"):
        evaluate(lambda image: image.mean(1), samples, AFFINE, progress=False)
    with pytest.raises(LabelError, match="got 'inverse'"):
        evaluate(lambda image: image.mean(1), samples, AFFINE, representation="inverse", progress=False)
    with pytest.raises(LabelError, match="protocol 'synthetic_metric' aligns nothing; the model predicts disparity"):
        evaluate(Brightness(), samples, METRIC, progress=False)


def test_bad_samples_are_refused(samples):
    with pytest.raises(ShapeError, match="expected at least one sample"):
        evaluate(Brightness(), [], AFFINE, progress=False)
    with pytest.raises(LabelError, match="s0: expected a label that protocol 'synthetic_affine' can score"):
        evaluate(Brightness(), [samples[0].replace(ambiguity=Ambiguity.UNLABELLED)], AFFINE, progress=False)
    with pytest.raises(ShapeError, match="s0: expected image and label of one size"):
        evaluate(Brightness(), [samples[0].replace(label=np.ones((3, 3), np.float32))], AFFINE, progress=False)
    with pytest.raises(ShapeError, match="one prediction per row of the batch, 1; got 2"):
        ProtocolMetrics(AFFINE).update(torch.ones(2, 1, 4, 4), DISPARITY, stacked(samples[:1], [0]))


def test_ordinal_labels_are_scored_by_the_order_of_their_points():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))  # brighter to the right
    pairs = np.array([[5, 60, 5, 2, 1], [9, 3, 40, 50, -1], [9, 3, 40, 50, 1], [0, 0, 0, 0, 0]], np.int32)
    ordinal = Sample("diw", ramp, ambiguity=Ambiguity.ORDINAL, pairs=pairs)
    unannotated = Sample("none", ramp, ambiguity=Ambiguity.ORDINAL)
    near_is_bright = evaluate(Brightness(), [ordinal, unannotated], DIW, progress=False)
    assert near_is_bright.summary["whdr"] == pytest.approx(1 / 3)
    assert (near_is_bright.n_images, near_is_bright.left_out) == (1, 1)


def test_a_report_names_the_protocol_with_every_number(samples, tmp_path):
    report = evaluate(Brightness(), samples, AFFINE, name="<b>", pictures=3, progress=False)
    table = report.table()
    for words in ("synthetic_affine", "6 scored, 1 left out, 0 without a scale", "in disparity", "32x64", "abs_rel"):
        assert words in table
    content = json.loads(report.to_json(tmp_path / "deep" / "r.json").read_text())
    assert content["facts"]["protocol"] == "synthetic_affine"
    assert content["summary"]["abs_rel"] == report.summary["abs_rel"]
    assert content["per_image"][2]["abs_rel"] is None
    page = report.to_html(tmp_path / "r.html").read_text()
    assert page.count("data:image/webp;base64,") == 4 * len(report.pictures) == 12
    assert "<title>&lt;b&gt; under" in page
    assert report.strip(height=32).shape == (3 * 36 - 4, 3 * 64 + 8, 3)


def test_published_figures_stand_beside(samples):
    report = evaluate(Brightness(), samples, PROTOCOLS["midas_nyu"], progress=False)
    assert "MiDaS v2 (MIX 5, Pareto) (published)" in report.table()
    assert "0.0955" in report.table()


def test_reports_of_two_protocols_are_not_comparable(samples):
    affine = evaluate(Brightness(), samples, AFFINE, progress=False)
    other = evaluate(Brightness(), samples, PROTOCOLS["midas_nyu"], progress=False)
    assert isinstance(affine.compared_with(affine), Report)
    with pytest.raises(RecipeError, match="Numbers of two protocols are not comparable"):
        affine.compared_with(other)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 40])
def test_the_best_median_and_worst_images_are_kept(length):
    rng = np.random.default_rng(0)
    report = evaluate(Brightness(), [sample(f"{i}", rng, (16, 16)) for i in range(length)], AFFINE, pictures=8, progress=False)
    ranked = [row["key"] for row in sorted(report.per_image, key=lambda row: row["abs_rel"])]
    kept = list(report.pictures)
    assert len(kept) == min(length, 8)
    assert {ranked[0], ranked[-1], ranked[length // 2]} <= set(kept)
    assert sorted(kept, key=ranked.index) == kept


def row_scene(key, profile, rng):
    disparity = (rng.uniform(0.5, 2) * profile + rng.uniform(0.1, 0.3))[:, None].repeat(24, 1)
    return Sample(key, np.zeros((*disparity.shape, 3), np.uint8), (1 / disparity).astype(np.float32), disparity > 0,
                  Ambiguity.METRIC, DEPTH)  # fmt: skip


@pytest.mark.parametrize("statistic", ["median", "least_squares"])
def test_the_row_baseline_recovers_scenes_that_are_made_of_rows(statistic):
    rng = np.random.default_rng(0)
    scenes = [row_scene(f"r{i}", np.linspace(0.1, 1, 32) ** 2, rng) for i in range(6)]
    baseline = RowBaseline.fit(scenes[:4], statistic=statistic, rows=32)
    assert evaluate(baseline, scenes[4:], AFFINE, progress=False).summary["abs_rel"] < 1e-4


def test_the_least_squares_profile_fits_no_worse_than_the_median_one_or_a_ramp():
    rng = np.random.default_rng(3)
    scenes = [row_scene(f"r{i}", np.linspace(0.1, 1, 32) + rng.normal(0, 0.2, 32).clip(-0.05, 0.5), rng) for i in range(9)]

    def residual(profile):
        errors = []
        for scene in scenes:
            d = 1 / scene.label[:, 0].astype(float)
            d = (d - d.mean()) / d.std()
            x = profile - profile.mean()
            errors.append(((d - x * (x * d).sum() / (x * x).sum()) ** 2).sum())
        return np.sum(errors)

    least, median = (
        RowBaseline.fit(scenes, statistic=s, rows=32).profile.double().numpy() for s in ("least_squares", "median")
    )
    assert residual(least) <= min(residual(median), residual(np.linspace(0, 1, 32)))
    nudged = [residual(least + 0.05 * rng.normal(size=32)) for _ in range(20)]
    assert residual(least) <= min(nudged)


def test_the_best_row_baseline_is_the_best_of_its_candidates():
    rng = np.random.default_rng(0)
    train = [row_scene(f"a{i}", np.linspace(0.1, 1, 32), rng) for i in range(3)]
    test = [row_scene(f"b{i}", np.linspace(1, 0.1, 32) ** 2, rng) for i in range(3)]
    best = best_row_baseline(train, test, AFFINE)
    assert "test labels" in best.model
    assert best.summary["abs_rel"] <= min(other["abs_rel"] for other in best.beside.values())
    assert len(best.beside) == 3


def test_the_row_baseline_reads_batches_as_it_reads_samples(samples):
    metric = [s for i, s in enumerate(samples) if i != 2]
    one = RowBaseline.fit(metric, rows=8)
    other = RowBaseline.fit([stacked(metric[:3], [0] * 3), stacked(metric[3:], [0] * 3)], rows=8)
    torch.testing.assert_close(one.profile, other.profile)


def test_batches_of_an_evaluation_loader_are_samples(samples):
    loader = [stacked(samples[:4], [0] * 4), stacked(samples[4:], [0] * 3)]
    assert all(isinstance(batch, Batch) for batch in loader)
    assert evaluate(Brightness(), loader, AFFINE, progress=False).summary == pytest.approx(
        evaluate(Brightness(), samples, AFFINE, progress=False).summary
    )


def scores_of_share(rank: int, world: int, batch: Batch) -> dict[str, float]:
    metrics = ProtocolMetrics(AFFINE)
    for i in range(rank, len(batch), world):
        row = torch.arange(len(batch)) == i
        metrics.update(batch.image[row].mean(1, keepdim=True), DISPARITY, batch.rows(row))
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_unequal_shares_agree_with_one_process(world, samples):
    batch = stacked(samples, [0] * 7)
    found = on_ranks(world, scores_of_share, world, batch)
    metrics = ProtocolMetrics(AFFINE)
    metrics.update(batch.image.mean(1, keepdim=True), DISPARITY, batch)
    alone = {name: value.item() for name, value in metrics.compute().items()}
    assert all(numbers == pytest.approx(alone, rel=1e-12) for numbers in found)
    assert found[0] == found[-1]


def test_labels_in_millimetres_leave_every_image_out_with_the_reason_and_a_hint(samples):
    millimetres = [s.replace(label=1000 * s.label) for s in samples[:2]]
    report = evaluate(Brightness(), millimetres, AFFINE, progress=False)
    assert (report.n_images, report.left_out) == (0, 2)
    why = report.per_image[0]["why"]
    assert "0 of" in why
    assert "labelled pixels can be scored, 10 are needed (the label is 100" in why
    assert "the test takes 0 to 80 m in the crop 'none'" in why
    assert "hint: no image was scored. Labels in millimetres" in report.table()
    with pytest.raises(LabelError, match=r"expected at least one image to score under 'synthetic_affine'; .*depth_scale"):
        report.check_complete()


def test_a_complete_report_is_not_refused_for_images_that_the_protocol_leaves_out(samples):
    report = evaluate(Brightness(), samples, AFFINE, progress=False)
    report.check_complete()
    assert [row["why"] for row in report.per_image if row["left_out"]] == ["no labelled pixel"]
    assert "broken" not in report.facts
    assert "hint" not in report.facts


def test_samples_that_a_loader_could_not_read_are_named_once(samples):
    batch = stacked(samples[:1], [0])
    batches = [replace(batch, broken=("b: cut short.",)), replace(batch, keys=("again",), broken=("b: cut short.", "c: too."))]
    report = evaluate(Brightness(), batches, PROTOCOLS["synthetic_median"], representation=DEPTH, ambiguity=Ambiguity.SCALE,
                      progress=False)  # fmt: skip
    assert report.broken == ("b: cut short.", "c: too.")
    assert "broken: b: cut short.; c: too." in report.table()
    with pytest.raises(ShardError, match="2 of 4 could not be read"):
        report.check_complete()
    with pytest.raises(ShardError, match="all 2 are broken"):
        evaluate(Brightness(), [replace(b, real=torch.zeros_like(b.real)) for b in batches], AFFINE, progress=False)
