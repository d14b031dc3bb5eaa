"""The tests of Romanov et al. 2020: operations and their order, what each forgives, what it refuses."""

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import LabelError
from depthkit.evaluation import BORDER_NYU, PROTOCOLS, ProtocolMetrics, evaluate
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

DEPTH, DISPARITY, LOG_DISPARITY = Representation.DEPTH, Representation.DISPARITY, Representation.LOG_DISPARITY
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, DEPTH)
SETS = ("nyu", "tum", "eth3d", "sintel", "sintel_released")
CAPS = {"nyu": 10, "tum": 10, "eth3d": 72, "sintel": 80, "sintel_released": 72}
UTS = [PROTOCOLS[f"gp2_uts_{name}"] for name in SETS] + [PROTOCOLS["synthetic_scale"], PROTOCOLS["small_scale"]]
UTSS = [PROTOCOLS[f"gp2_utss_{name}"] for name in SETS]
BY_NAME = {"ids": lambda p: p.name}


def scene(protocol, coarse=2, far=100.0):
    """Log-disparity at a fraction of the label's size, labelled depth beyond and within the cap, and a mask."""
    height, width = protocol.shown.size or (24, 32)
    top, bottom, left, right = protocol.shown.box(height, width)
    log_disparity = -(far ** torch.rand(2, 1, (bottom - top) // coarse, (right - left) // coarse)).log() + 5
    return log_disparity, far ** torch.rand(2, 1, height, width), torch.rand(2, 1, height, width) > 0.3


def resized(x, height, width):
    """Bilinear, corners not aligned, as OpenCV computes it."""
    return cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float64)


def by_hand(protocol, p, depth, valid):
    """Delta error, AbsRel and log10 of one image, in NumPy, by the paper's order of operations."""
    height, width = depth.shape
    if "nyu" in protocol.name:
        depth, valid = depth[8:-8, 8:-8], valid[8:-8, 8:-8]
        height, width = height - 16, width - 16
    cap = protocol.label_range[1]
    scored = valid & (depth > 0) & (depth < cap)
    label = depth[scored].astype(np.float64)
    if "utss" in protocol.name:
        disparity = resized(np.exp(p), height, width)[scored]
        columns = np.stack([disparity, np.ones_like(disparity)], 1)
        fitted = columns @ np.linalg.lstsq(columns, 1 / label, rcond=None)[0]
        pred = 1 / np.maximum(fitted, 1 / cap)
    else:
        log_depth = -resized(p, height, width)[scored]
        pred = np.exp(log_depth + np.median(np.log(label) - log_depth))
    ratio = np.maximum(pred / label, label / pred)
    return (ratio > 1.25).mean(), (abs(pred - label) / label).mean(), abs(np.log10(pred / label)).mean()


@pytest.mark.parametrize("protocol", UTS + UTSS, **BY_NAME)
def test_numbers_are_those_of_an_independent_implementation(protocol):
    p, depth, valid = scene(protocol)
    scores = protocol.score(p, LOG_DISPARITY, depth, valid, kind=METRIC_DEPTH)
    expected = [by_hand(protocol, *(x[i, 0].numpy() for x in (p, depth, valid))) for i in range(2)]
    delta = scores["delta1_error"] if "delta1_error" in scores else 1 - scores["delta1"]
    found = torch.stack([delta, scores["abs_rel"], scores["log10"]], 1)
    assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("protocol", UTS, **BY_NAME)
@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e4])
def test_a_factor_on_the_prediction_changes_nothing_under_uts(protocol, factor):
    p, depth, valid = scene(protocol)
    here, there = (
        protocol.score(x, LOG_DISPARITY, depth, valid, kind=METRIC_DEPTH) for x in (p, p + torch.tensor(factor).log())
    )
    assert_close(here["abs_rel"], there["abs_rel"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("protocol", UTSS, **BY_NAME)
@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.5), (0.2, -0.1), (40.0, 2.0)])
def test_scale_and_shift_of_the_disparity_change_nothing_under_utss(protocol, scale, shift):
    p, depth, valid = scene(protocol)
    disparity = (p - 5).exp()
    here, there = (
        protocol.score(x, DISPARITY, depth, valid, kind=METRIC_DEPTH) for x in (disparity, scale * disparity + shift)
    )
    assert_close(here["abs_rel"], there["abs_rel"], rtol=1e-3, atol=0)


def test_uts_does_not_forgive_a_shift_of_the_disparity_and_utss_does():
    depth = 1 + 8 * torch.rand(2, 1, 24, 32)
    bent = -(1 / depth + 0.3).reciprocal().log()
    uts, utss = (
        PROTOCOLS[f"gp2_{name}_tum"].score(bent, LOG_DISPARITY, depth, depth > 0, kind=METRIC_DEPTH) for name in ("uts", "utss")
    )
    assert (uts["abs_rel"] > 0.1).all()
    assert (utss["abs_rel"] < 1e-5).all()


def test_the_median_is_that_of_the_differences():
    depth = torch.tensor([1.0, 2.0, 9.0]).repeat(8).view(1, 1, 4, 6)
    pred = torch.tensor([3.0, 2.0, 4.0]).repeat(8).view(1, 1, 4, 6)  # ratios 1/3, 1, 9/4; ratio of the medians 2/3
    scores = PROTOCOLS["gp2_uts_tum"].score(pred, DEPTH, depth, depth > 0, kind=METRIC_DEPTH)
    assert scores["abs_rel"].item() == pytest.approx((2 + 0 + 5 / 9) / 3)


def test_only_labels_are_capped_under_uts():
    depth = torch.tensor([5.0, 5.0, 9.0, 50.0]).repeat(6).view(1, 1, 4, 6)
    pred = torch.tensor([5.0, 5.0, 90.0, 1.0]).repeat(6).view(1, 1, 4, 6)
    scores = PROTOCOLS["gp2_uts_tum"].score(pred, DEPTH, depth, depth > 0, kind=METRIC_DEPTH)
    assert scores["abs_rel"].item() == pytest.approx((0 + 0 + 9) / 3)


@pytest.mark.parametrize("protocol", UTS, **BY_NAME)
def test_uts_refuses_models_that_leave_a_shift_open(protocol):
    with pytest.raises(LabelError, match="aligns scale in depth; the model predicts disparity with ambiguity shift_scale"):
        protocol.check_prediction(DISPARITY, Ambiguity.SHIFT_SCALE)
    protocol.check_prediction(LOG_DISPARITY, Ambiguity.SCALE)


@pytest.mark.parametrize("protocol", UTSS, **BY_NAME)
def test_utss_takes_what_midas_predicts(protocol):
    protocol.check_prediction(DISPARITY, Ambiguity.SHIFT_SCALE)
    p, depth, valid = scene(protocol)
    protocol.score(p, DISPARITY, depth, valid, kind=METRIC_DEPTH)  # with negative disparities


def test_the_network_sees_sizes_of_the_released_code():
    size = PROTOCOLS["gp2_uts_tum"].input_size
    assert PROTOCOLS["gp2_uts_nyu"].input_size(480, 640) == (384, 512)  # what is shown is 464 x 624
    assert size(464, 624) == (384, 512)
    assert size(436, 1024) == (384, 896)
    assert size(375, 1242) == (384, 1280)
    assert size(1920, 1080) == (672, 384)


def test_images_are_resized_as_opencv_does_without_antialiasing():
    image = torch.rand(1, 3, 480, 640)
    shown = PROTOCOLS["gp2_uts_nyu"].resize_input(image, 32)
    expected = cv2.resize(image[0, :, 8:-8, 8:-8].permute(1, 2, 0).numpy(), (512, 384), interpolation=cv2.INTER_LINEAR)
    assert_close(shown[0].permute(1, 2, 0), torch.from_numpy(expected), rtol=0, atol=1e-4)


def test_the_frame_of_nyu_is_neither_shown_nor_scored():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 9, (480, 640)).astype(np.float32)
    image = np.repeat((255 / depth).round().astype(np.uint8)[..., None], 3, 2)
    inside = BORDER_NYU.mask(480, 640).numpy()
    sample = Sample("a", image, 255 / image[..., 0].astype(np.float32), np.ones_like(inside), Ambiguity.METRIC, DEPTH)
    framed = sample.replace(
        image=np.where(inside[..., None], image, 255).astype(np.uint8), label=np.where(inside, sample.label, 0.01)
    )
    seen = []

    def model(shown):
        seen.append(shown)
        return torch.nn.functional.interpolate(shown.mean(1, keepdim=True), (464, 624), mode="bilinear").clamp_min(1e-3)

    protocol = PROTOCOLS["gp2_uts_nyu"]
    reports = [
        evaluate(model, [s], protocol, representation=DISPARITY, size_multiple=32, progress=False) for s in (sample, framed)
    ]
    assert reports[0].summary == reports[1].summary
    assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert "border_nyu: rows 8 to 472, columns 8 to 632 px" in reports[0].table()


def test_an_image_with_ten_valid_pixels_is_left_out_and_with_eleven_is_not():
    depth = 1 + torch.rand(2, 1, 24, 32)
    valid = torch.arange(24 * 32).view(1, 1, 24, 32) < torch.tensor([10, 11]).view(2, 1, 1, 1)
    for name in ("gp2_uts_tum", "gp2_utss_tum"):
        scores = PROTOCOLS[name].score(depth, DEPTH, depth, valid, kind=METRIC_DEPTH)
        assert scores["left_out"].tolist() == [True, False]


def test_whdr_is_that_of_midas_but_for_ties():
    rng = np.random.default_rng(0)
    points = rng.integers(0, [24, 32, 24, 32], (60, 4))
    sample = Sample(
        "a",
        np.zeros((24, 32, 3), np.uint8),
        ambiguity=Ambiguity.ORDINAL,
        pairs=np.concatenate([points, rng.choice([-1, 1], (60, 1))], 1).astype(np.int32),
    )
    batch = to_float(collate([sample], [0]))
    p = torch.randn(1, 1, 24, 32)

    def score(name, pred, representation):
        metrics = ProtocolMetrics(PROTOCOLS[name])
        metrics.update(pred, representation, batch)
        return metrics.compute()["whdr"].item()

    found = score("gp2_diw", p, LOG_DISPARITY)
    assert 0 < found < 1
    assert found == score("midas_diw", p, LOG_DISPARITY)
    assert found == score("gp2_diw", 3 * p.exp() - 9, DISPARITY)  # no alignment can change an order
    constant, closer = torch.zeros_like(p), (sample.pairs[:, 4] == 1).mean()
    assert score("midas_diw", constant, LOG_DISPARITY) == 1
    assert score("gp2_diw", constant, LOG_DISPARITY) == pytest.approx(1 - closer)


def test_sky_is_not_scored():
    depth = 1 + 8 * torch.rand(1, 1, 24, 32)
    sky = torch.rand_like(depth) > 0.7
    for name in ("synthetic_scale", "small_scale"):
        scores = PROTOCOLS[name].score(2 * depth, DEPTH, depth.where(~sky, torch.inf), depth > 0, kind=METRIC_DEPTH)
        assert scores["abs_rel"].item() < 1e-5


def test_the_protocols_carry_the_papers_caps_and_figures():
    for name, cap in CAPS.items():
        uts, utss = PROTOCOLS[f"gp2_uts_{name}"], PROTOCOLS[f"gp2_utss_{name}"]
        assert uts.label_range == utss.label_range == (0, cap)
        assert (uts.max_depth, utss.max_depth) == (torch.inf, cap)
        assert all("2009.12419" in p.source for p in (uts, utss))
    figure = lambda name, model: PROTOCOLS[f"gp2_{name}"].published[model]  # noqa: E731
    assert figure("uts_nyu", "B5-LRN") == pytest.approx({"delta1_error": 0.1064})
    assert figure("uts_sintel", "MN-LRN, UTS data only") == {"abs_rel": 0.432}
    assert figure("utss_tum", "MiDaS v2") == pytest.approx({"delta1_error": 0.1429})
    assert figure("uts_nyu", "MN-LRN trained on NYU, L1 pairwise") == pytest.approx(
        {"delta1_error": 0.0927, "abs_rel": 0.0916, "log10": 0.0388}
    )
    assert figure("diw", "B5-LRN") == pytest.approx({"whdr": 0.1256})
