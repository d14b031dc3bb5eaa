"""The five sets of Ke et al. 2024: two spaces to fit in, none, and an independent implementation of each."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import LabelError
from depthkit.evaluation import EIGEN_KITTI_IN_KB, PROTOCOLS
from depthkit.types import Ambiguity, LabelKind, Representation

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, DEPTH)
SETS = {"nyu": (1e-3, 10), "kitti": (1e-5, 80), "eth3d": (1e-5, np.inf), "scannet": (1e-3, 10), "diode": (0.6, 350)}


def scene(name, seed=0):
    """A label, partly missing and partly beyond the range, and an estimate of it, at a size that the crops take."""
    size = {"nyu": (480, 640), "kitti": (375, 1242)}.get(name, (24, 36))
    rng, far = np.random.default_rng(seed), min(SETS[name][1], 60)
    depth = rng.uniform(0.8, 1.3 * far, size)
    depth[rng.random(size) > 0.8] = 0
    return depth, np.where(depth > 0, depth, 1) * rng.uniform(0.8, 1.25, size), depth > 0


def by_hand(name, pred, depth, valid, space, *, positive=False):
    """All numbers of one image in NumPy; the prediction is one of the rectangle that the network is shown."""
    near, far = SETS[name]
    if name == "kitti":
        depth, valid = (x[23:375, 13:1229] for x in (depth, valid))
    scored = valid & (depth > near) & (depth < far)
    rows, columns = {"nyu": ((45, 471), (41, 601)), "kitti": ((117, 321), (43, 1172))}.get(name, ((0, None), (0, None)))
    inside = np.zeros_like(scored)
    inside[slice(*rows), slice(*columns)] = True
    g, p = depth[scored & inside], pred[scored & inside]
    target = g if space != DISPARITY else 1 / g
    if space is not None:
        columns, fitted = np.stack([p, np.ones_like(p)], 1), p > 0 if positive else np.ones(p.shape, bool)
        p = columns @ np.linalg.lstsq(columns[fitted], target[fitted], rcond=None)[0]
    if space == DISPARITY:
        p = 1 / np.maximum(p, 1e-3)
    p = np.clip(p, near, far)
    e, ratio = np.log(p) - np.log(g), np.maximum(p / g, g / p)
    return {
        "abs_rel": (abs(p - g) / g).mean(),
        "sq_rel": ((p - g) ** 2 / g).mean(),
        "rmse": np.sqrt(((p - g) ** 2).mean()),
        "rmse_log": np.sqrt((e**2).mean()),
        "log10": abs(np.log10(p) - np.log10(g)).mean(),
        **{f"delta{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)},
        "i_rmse": np.sqrt(((1 / p - 1 / g) ** 2).mean()),
        "silog": 100 * np.sqrt((e**2).mean() - e.mean() ** 2),
    }


def score(protocol, pred, depth, valid, representation):
    pred, depth, valid = (torch.from_numpy(x)[None, None] for x in (pred.astype(np.float32), depth.astype(np.float32), valid))
    return protocol.score(pred, representation, depth, valid, kind=METRIC_DEPTH)


def shown(name, x):
    return x[23:375, 13:1229] if name == "kitti" else x


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("suffix", "space"), [("", DEPTH), ("_disparity", DISPARITY), ("_metric", None)])
def test_numbers_are_those_of_an_independent_implementation(name, suffix, space):
    depth, estimate, valid = scene(name)
    estimate = shown(name, estimate)
    pred = {DEPTH: 0.3 * estimate - 0.1, DISPARITY: 4 / estimate + 0.3, None: estimate}[space]
    scores = score(PROTOCOLS[f"marigold_{name}{suffix}"], pred, depth, valid, space or DEPTH)
    expected = by_hand(name, pred, depth, valid, space)
    assert list(PROTOCOLS[f"marigold_{name}{suffix}"].metrics) == list(expected)
    assert_close([scores[metric].item() for metric in expected], list(expected.values()), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_pixels_that_a_relu_puts_to_0_are_scored_but_not_fitted(name):
    """Half of the pixels predicted as 0: in the authors' fit they have no part, in the other they bend the line."""
    depth, estimate, valid = scene(name)
    pred = np.maximum(4 / shown(name, estimate) - np.median(4 / shown(name, estimate)), 0)
    numbers = []
    for suffix, positive in (("_disparity", True), ("_disparity_all", False)):
        found = score(PROTOCOLS[f"marigold_{name}{suffix}"], pred, depth, valid, DISPARITY)
        expected = by_hand(name, pred, depth, valid, DISPARITY, positive=positive)
        assert_close([found[metric].item() for metric in expected], list(expected.values()), rtol=2e-4, atol=1e-6)
        numbers.append(expected["abs_rel"])
    assert abs(numbers[0] / numbers[1] - 1) > 0.01
    nothing = score(PROTOCOLS[f"marigold_{name}_disparity"], 0 * pred - 1, depth, valid, DISPARITY)
    assert nothing["degenerate"].all()
    assert nothing["abs_rel"].isfinite().all()


@pytest.mark.parametrize("name", SETS)
def test_scale_and_shift_are_forgiven_in_the_space_of_the_fit_alone(name):
    depth, _, valid = scene(name)
    right = shown(name, np.where(valid, depth, 1.0))
    in_depth, in_disparity, metres = (PROTOCOLS[f"marigold_{name}{suffix}"] for suffix in ("", "_disparity", "_metric"))
    assert score(in_depth, 0.1 * right + 0.7, depth, valid, DEPTH)["abs_rel"] < 1e-4
    assert score(in_disparity, 9 / right - 0.4, depth, valid, DISPARITY)["abs_rel"] < 1e-3
    assert score(metres, right, depth, valid, DEPTH)["abs_rel"] < 1e-6
    assert score(in_depth, 1 / (1 / right + 0.5), depth, valid, DEPTH)["abs_rel"] > 0.02
    assert score(metres, 0.9 * right, depth, valid, DEPTH)["abs_rel"].item() == pytest.approx(0.1, abs=0.01)


def test_models_meet_the_protocols_that_resolve_what_they_leave_open():
    PROTOCOLS["marigold_nyu"].check_prediction(DEPTH, Ambiguity.SHIFT_SCALE)
    PROTOCOLS["marigold_nyu_disparity"].check_prediction(DISPARITY, Ambiguity.SHIFT_SCALE)
    with pytest.raises(LabelError, match="aligns scale_shift in depth; the model predicts disparity"):
        PROTOCOLS["marigold_nyu"].check_prediction(DISPARITY, Ambiguity.SHIFT_SCALE)
    with pytest.raises(LabelError, match="aligns nothing"):
        PROTOCOLS["marigold_nyu_metric"].check_prediction(DEPTH, Ambiguity.SHIFT_SCALE)


def test_the_network_sees_what_the_released_scripts_feed():
    size = {name: PROTOCOLS[f"marigold_{name}"].input_size for name in SETS}
    assert size["nyu"](480, 640, 8) == (480, 640)
    assert size["kitti"](375, 1242, 8) == (352, 1216)
    assert size["eth3d"](4032, 6048, 8) == (504, 752)  # 756 of the script, to a multiple that a VAE takes
    assert size["diode"](768, 1024, 8) == (480, 640)


@pytest.mark.parametrize("suffix", ["", "_disparity", "_metric"])
def test_every_set_has_its_range_as_floor_cap_and_bounds_of_labels(suffix):
    protocols = {name: PROTOCOLS[f"marigold_{name}{suffix}"] for name in SETS}
    assert {name: p.label_range for name, p in protocols.items()} == SETS
    assert {name: p.min_depth for name, p in protocols.items()} == {name: near for name, (near, _) in SETS.items()}
    caps = {name: min(far, 1000) if suffix == "_disparity" else far for name, (_, far) in SETS.items()}
    assert {name: p.max_depth for name, p in protocols.items()} == caps
    assert [p.crop.name for p in protocols.values()] == ["eigen_nyu", "eigen_kitti_in_kb", "none", "none", "none"]
    assert all(p.min_valid == 1 for p in protocols.values())


def test_the_crop_of_kitti_is_eigens_within_the_benchmarks():
    assert EIGEN_KITTI_IN_KB.box(352, 1216) == (117, 321, 43, 1172)
    assert EIGEN_KITTI_IN_KB.mask(375, 1242).sum() == (321 - 117) * (1172 - 43)


def test_the_protocols_carry_the_papers_figures():
    figure = lambda name, model: PROTOCOLS[f"marigold_{name}"].published[model]  # noqa: E731
    assert figure("nyu", "Marigold, 50 steps, ensemble of 10") == pytest.approx({"abs_rel": 0.055, "delta1": 0.964})
    assert figure("diode", "Stable Diffusion + E2E fine-tuning") == pytest.approx({"abs_rel": 0.303, "delta1": 0.776})
    assert figure("kitti", "Marigold + E2E fine-tuning") == pytest.approx({"abs_rel": 0.096, "delta1": 0.919})
    assert figure("eth3d", "Marigold, 1 step, trailing")["abs_rel"] == pytest.approx(0.069)
    assert figure("scannet", "Marigold LCM, 1 step")["delta1"] == pytest.approx(0.938)
