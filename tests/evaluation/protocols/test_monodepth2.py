"""The tests of Godard et al. 2019: operations and their order, one scale for the set, what is refused."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.alignment import Alignment
from depthkit.errors import LabelError, RecipeError, ShapeError
from depthkit.evaluation import CENTRE_MAKE3D, PROTOCOLS, ProtocolMetrics, evaluate, kinds
from depthkit.types import Ambiguity, LabelKind, Representation, Sample
from tests.contracts.ranks import on_ranks

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, DEPTH)
ONE_SCALE, PER_IMAGE = PROTOCOLS["monodepth2_improved_one_scale"], PROTOCOLS["monodepth2_improved"]
KITTI = [p for name, p in PROTOCOLS.items() if name.startswith(("monodepth2_eigen", "monodepth2_improved"))]
BY_NAME = {"ids": lambda p: p.name}
SIZE = (376, 1241)  # of some KITTI drives; 375 x 1242 of others


def scene(seed=0):
    """Disparity of a network at 96 x 320 and labelled depth, sparse and partly beyond 80 m, of one KITTI image."""
    rng = np.random.default_rng(seed)
    disparity = rng.uniform(0.01, 0.5, (96, 320)).astype(np.float32)
    depth = np.exp(rng.uniform(np.log(0.5), np.log(120), SIZE)).astype(np.float32)
    return disparity, depth, rng.random(SIZE) > 0.9


def by_hand(protocol, disparity, depth, valid, scale=None):
    """The seven numbers in NumPy and OpenCV, and the ratio of medians."""
    height, width = depth.shape
    pred = 1 / cv2.resize(disparity, (width, height)).astype(np.float64)
    scored = valid.copy()
    if "eigen" in protocol.name:
        box = np.array([0.40810811 * height, 0.99189189 * height, 0.03594771 * width, 0.96405229 * width]).astype(int)
        scored &= (depth > 1e-3) & (depth < 80)
        scored[: box[0]] = scored[box[1] :] = scored[:, : box[2]] = scored[:, box[3] :] = False
    p, g = pred[scored], depth[scored].astype(np.float64)
    ratio = np.median(g) / np.median(p)
    if protocol.alignment is not None:
        p = p * (ratio if scale is None else scale)
    p = np.clip(p, 1e-3, 80)
    errors = [abs(p - g) / g, (p - g) ** 2 / g, (p - g) ** 2, np.log(p / g) ** 2]
    numbers = [e.mean() for e in errors[:2]] + [np.sqrt(e.mean()) for e in errors[2:]]
    return [*numbers, *((np.maximum(p / g, g / p) < 1.25**k).mean() for k in (1, 2, 3))], ratio


def maps(*arrays):
    return [torch.from_numpy(x)[None, None] for x in arrays]


@pytest.mark.parametrize("protocol", KITTI, **BY_NAME)
def test_numbers_are_those_of_an_independent_implementation(protocol):
    disparity, depth, valid = scene()
    scale = 3.0 if protocol.scale_of == "set" else None
    d, g, v = maps(disparity, depth, valid)
    scores = protocol.score(d, DISPARITY, g, v, kind=METRIC_DEPTH, scale=scale)
    expected, ratio = by_hand(protocol, disparity, depth, valid, scale)
    assert_close([scores[name].item() for name in protocol.metrics], expected, rtol=2e-5, atol=1e-6)
    if protocol.alignment is not None:
        assert scores["scale"].item() == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("name", ["monodepth2_eigen", "monodepth2_improved", "synthetic_median", "small_median"])
def test_a_factor_on_the_prediction_changes_nothing_but_the_scale(name):
    protocol = PROTOCOLS[name]
    d, g, v = maps(*scene())
    here, there = (protocol.score(x, DISPARITY, g, v, kind=METRIC_DEPTH) for x in (d, 5.4 * d))
    for metric in protocol.metrics:
        assert_close(here[metric], there[metric], rtol=1e-3, atol=1e-5)
    assert_close(there["scale"], 5.4 * here["scale"], rtol=1e-5, atol=0)


def test_stereo_is_scored_in_metres_and_video_needs_the_median():
    metric, median = PROTOCOLS["monodepth2_eigen_metric"], PROTOCOLS["monodepth2_eigen"]
    metric.check_prediction(DISPARITY, Ambiguity.METRIC)
    median.check_prediction(DISPARITY, Ambiguity.SCALE)
    with pytest.raises(LabelError, match="aligns nothing; the model predicts disparity with ambiguity scale"):
        metric.check_prediction(DISPARITY, Ambiguity.SCALE)
    _, g, v = maps(*scene())
    depth = g.clamp(max=60.0)
    scores = metric.score(1.1 * depth, DEPTH, depth, v, kind=METRIC_DEPTH)
    assert scores["abs_rel"].item() == pytest.approx(0.1, abs=1e-6)


def test_disparity_is_resized_and_then_inverted():
    coarse = torch.tensor([1.0, 9.0]).view(1, 1, 1, 2)  # disparity falls linearly from 1 to 1/9 over the middle half
    fine = 1 / torch.nn.functional.interpolate(1 / coarse, (2, 8), mode="bilinear")
    protocol = replace(PER_IMAGE, alignment=None)
    scores = protocol.score(coarse, DEPTH, fine, fine > 0, kind=METRIC_DEPTH)
    assert scores["abs_rel"].item() == pytest.approx(0, abs=1e-6)


def test_images_are_stretched_to_the_networks_size():
    sizes = {p.name: p.input_size(375, 1242, 32) for p in KITTI}
    assert {size for name, size in sizes.items() if "1024" not in name and "416" not in name} == {(192, 640)}
    assert {size for name, size in sizes.items() if "416" in name} == {(128, 416)}
    assert {size for name, size in sizes.items() if "1024" in name} == {(320, 1024)}
    assert PROTOCOLS["small_median"].input_size(480, 640, 32) == PROTOCOLS["small_affine"].input_size(480, 640, 32)
    assert PROTOCOLS["synthetic_median"].input_size(96, 160, 32) == (96, 160)


def test_sky_and_what_lies_beyond_80_m_are_not_scored():
    depth = 1 + 8 * torch.rand(1, 1, 24, 32)
    far = torch.rand_like(depth) > 0.7
    for name in ("synthetic_median", "small_median"):
        for value in (torch.inf, 81.0):
            scores = PROTOCOLS[name].score(2 * depth, DEPTH, depth.where(~far, value), depth > 0, kind=METRIC_DEPTH)
            assert scores["abs_rel"].item() < 1e-5


# Make3D


def make3d_by_hand(disparity, depth):
    """Crop, nearest resize of what was seen, range, median, cap; the four numbers of one image."""
    g = depth[17:38]
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(g.shape, disparity.shape, strict=True))
    p = 1 / disparity.astype(np.float64)[rows.astype(int)[:, None], columns.astype(int)]
    scored = (g > 0) & (g < 70)
    p, g = p[scored], g[scored].astype(np.float64)
    p = np.minimum(p * np.median(g) / np.median(p), 70)
    log10 = np.sqrt((np.log10(p / g) ** 2).mean())
    return [(abs(p - g) / g).mean(), ((p - g) ** 2 / g).mean(), np.sqrt(((p - g) ** 2).mean()), log10]


def test_make3d_is_scored_on_its_coarse_grid():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (568, 426, 3), dtype=np.uint8)  # a quarter of 2272 x 1704
    depth = np.exp(rng.uniform(0, np.log(90), (55, 305))).astype(np.float32)
    sample = Sample("a", image, depth, np.ones_like(depth, dtype=bool), Ambiguity.METRIC, DEPTH)
    disparity, seen = rng.uniform(0.05, 0.5, (193, 641)).astype(np.float32), []  # odd: no centre lies between two pixels

    def model(shown):
        seen.append(shown)
        return disparity

    protocol = PROTOCOLS["monodepth2_make3d"]
    report = evaluate(model, [sample], protocol, representation=DISPARITY, size_multiple=32, progress=False)
    assert seen[0].shape == (1, 3, 192, 640)
    assert_close(list(report.summary.values()), make3d_by_hand(disparity, depth), rtol=1e-5, atol=1e-6)
    assert list(report.summary) == ["abs_rel", "sq_rel", "rmse", "rmse_log10"]
    assert report.strip().size  # pictures of two sizes stand side by side
    with pytest.raises(ShapeError, match="expected image and label of one size"):
        evaluate(model, [sample], PER_IMAGE, representation=DISPARITY, progress=False)


def test_make3ds_crop_is_the_same_in_image_and_label():
    assert CENTRE_MAKE3D.box(2272, 1704) == (710, 1562, 0, 1704)
    assert CENTRE_MAKE3D.box(55, 305) == (17, 38, 0, 305)
    image = torch.zeros(1, 3, 2272, 1704)
    image[..., 710:1562, :] = 1
    assert PROTOCOLS["monodepth2_make3d"].resize_input(image, 32).min() > 1 - 1e-6


# One scale for the whole set


class Drifting(torch.nn.Module):
    """Right up to a factor that differs from image to image: the images show the disparity."""

    representation, ambiguity = DISPARITY, Ambiguity.SCALE

    def forward(self, image):
        return image[:, :1].clamp_min(1e-3) * (0.2 + image[:, 1:2].mean((1, 2, 3), keepdim=True))


def samples(count=7, size=(40, 64)):
    rng, made = np.random.default_rng(3), []
    for i in range(count):
        depth = rng.uniform(2, 60, size).astype(np.float32)
        image = np.zeros((*size, 3), np.uint8)
        image[..., 0] = (255 / depth).round()
        image[..., 1] = rng.integers(20, 230)
        made.append(Sample(f"s{i}", image, depth, rng.random(size) > 0.5, Ambiguity.METRIC, DEPTH))
    made[2] = made[2].replace(valid=np.zeros(size, bool))
    return made


SMALL = {"input": PROTOCOLS["synthetic_median"].input}


def test_one_scale_is_the_median_of_those_of_the_images_and_used_for_all():
    per_image = evaluate(Drifting(), samples(), replace(PER_IMAGE, **SMALL), progress=False)
    for order in (samples(), samples()[::-1]):
        one = evaluate(Drifting(), order, replace(ONE_SCALE, **SMALL), progress=False)
        assert one.scale == pytest.approx(per_image.scale)
        ratios = np.array([row["scale"] for row in one.per_image if not row["left_out"]])
        assert len(ratios) == 6
        assert one.scale == pytest.approx((np.median(ratios), np.std(ratios / np.median(ratios))))
        metric = evaluate(
            lambda image, unit=one.scale[0]: Drifting()(image) / unit,
            order,
            replace(PROTOCOLS["monodepth2_improved_metric"], **SMALL),
            representation=DISPARITY,
            progress=False,
        )
        assert one.summary == pytest.approx(metric.summary, rel=1e-5)
        assert one.summary["abs_rel"] > per_image.summary["abs_rel"] + 0.05
    assert f"median {one.scale[0]:.4g} over images, standard deviation {one.scale[1]:.4f} of it" in one.table()
    assert "scale of the set, the median of those per image" in one.table()


def test_a_model_of_constant_unit_has_no_deviation_of_scale():
    made = [s for i, s in enumerate(samples()) if i != 2]
    labels = iter([s.label for s in made])
    report = evaluate(
        lambda image: 4 / next(labels), made, replace(PER_IMAGE, **SMALL), representation=DISPARITY, progress=False
    )
    assert report.scale == pytest.approx((4, 0), abs=1e-5)
    metric = evaluate(Drifting(), made, replace(PROTOCOLS["synthetic_metric"]), ambiguity=Ambiguity.METRIC, progress=False)
    assert metric.scale is None
    assert "scale:" not in metric.table()


def test_json_holds_the_scale(tmp_path):
    report = evaluate(Drifting(), samples(), replace(PER_IMAGE, **SMALL), progress=False)
    content = json.loads(report.to_json(tmp_path / "r.json").read_text())
    assert (content["scale"]["median"], content["scale"]["deviation"]) == report.scale
    assert content["per_image"][2]["scale"] is None


def test_one_scale_is_refused_where_it_cannot_be_known():
    with pytest.raises(RecipeError, match="one scale for the whole set, which is not known before every image was seen"):
        ProtocolMetrics(ONE_SCALE)
    with pytest.raises(RecipeError, match=r"fits each image; got scale=2\.0"):
        ProtocolMetrics(PER_IMAGE, scale=2.0)
    with pytest.raises(RecipeError, match="reads it twice; got an iterator"):
        evaluate(Drifting(), iter(samples()), ONE_SCALE, progress=False)
    with pytest.raises(RecipeError, match="at least one image that determines a scale; got none of 0"):
        evaluate(Drifting(), samples()[2:3], replace(ONE_SCALE, **SMALL), progress=False)
    for changes in (
        {"alignment": None},
        {"alignment": Alignment("scale_shift", "least_squares", space=DISPARITY)},
        {"accepts": kinds(Ambiguity.METRIC, Ambiguity.SCALE)},
    ):
        with pytest.raises(RecipeError, match="expected an alignment of scale, and metric labels alone, for scale_of='set'"):
            replace(ONE_SCALE, **changes)


def summary_of_share(rank: int, world: int) -> dict[str, float]:
    return evaluate(Drifting(), samples()[rank::world], replace(ONE_SCALE, **SMALL), progress=False).summary


def test_one_scale_is_that_of_all_ranks():
    first, second = on_ranks(2, summary_of_share, 2)
    assert first == second == pytest.approx(summary_of_share(0, 1), rel=1e-9)


def test_the_protocols_carry_the_papers_figures():
    figure = lambda name, model: PROTOCOLS[f"monodepth2_{name}"].published[model]  # noqa: E731
    assert figure("eigen", "M")["abs_rel"] == 0.115
    assert list(figure("eigen", "M + flip").values()) == [0.112, 0.851, 4.754, 0.190, 0.881, 0.960, 0.981]
    assert figure("eigen", "LEGO") == {"abs_rel": 0.162, "sq_rel": 1.352, "rmse": 6.276, "rmse_log": 0.252}
    assert figure("eigen_metric_1024", "MS")["delta1"] == 0.876
    assert figure("improved_one_scale", "M")["rmse_log"] == 0.154
    assert figure("improved_metric", "S")["delta3"] == 0.993
    assert figure("make3d", "M") == {"abs_rel": 0.322, "sq_rel": 3.589, "rmse": 7.417, "rmse_log10": 0.163}
    server = {"silog": 15.57, "sq_rel_percent": 4.52, "abs_rel": 0.1298, "i_rmse": 16.70}
    assert figure("benchmark", "M") == pytest.approx(server)
    assert "5.4 is the unit of its stereo baseline" in PROTOCOLS["monodepth2_eigen_metric"].source
