"""The tests of Yang et al. 2024: the space of fit and metrics, what each forgives, which pixels are scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.alignment import Alignment
from depthkit.errors import LabelError, RecipeError, ShapeError
from depthkit.evaluation import EIGEN_NYU_ON_HYPERSIM, GARG, GARG_IN_KB, KB_CROP, PROTOCOLS, evaluate, find_table
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, DEPTH)
SETS = ("kitti", "nyu", "sintel", "ddad", "eth3d", "diode")
CAPS = {"kitti": 80, "nyu": 10, "sintel": 72, "ddad": 120, "diode": 300}
IN_DISPARITY = [PROTOCOLS[f"depth_anything_{name}"] for name in SETS]
IN_DEPTH = [PROTOCOLS[f"depth_anything_{name}_in_depth"] for name in SETS]
IN_METRES = [p for name, p in PROTOCOLS.items() if name.startswith("zoedepth_")]
BY_NAME = {"ids": lambda p: p.name}


def score(protocol, pred, depth, representation=DISPARITY, valid=None):
    valid = torch.ones_like(depth, dtype=torch.bool) if valid is None else valid
    return protocol.score(pred, representation, depth, valid, kind=METRIC_DEPTH)


def labels(protocol):
    """Depth from 1 m, or what is scored and a little more, to 8 m further, at a size that the protocol's crops take."""
    near = max(1.0, 1.2 * protocol.label_range[0])
    return near + (8.9 - near) * torch.rand(2, 1, *(protocol.crop.window or protocol.crop.size or (24, 32)))


def pixels(values, columns=12):
    """The values side by side, each as often, so that there are enough pixels."""
    return torch.tensor(values).repeat(columns).view(1, 1, len(values), columns)


@pytest.mark.parametrize("protocol", IN_DISPARITY + IN_DEPTH, **BY_NAME)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 0.5), (0.2, -0.4), (40.0, -9.0)])
def test_scale_and_shift_of_the_disparity_are_forgiven_by_the_relative_tests(protocol, scale, shift):
    depth = labels(protocol)
    scores = score(protocol, scale / depth + shift, depth)
    assert (scores["abs_rel"] < 1e-4).all()
    assert (scores["delta1"] == 1).all()


@pytest.mark.parametrize("protocol", IN_METRES, **BY_NAME)
def test_nothing_is_forgiven_in_metres(protocol):
    depth = labels(protocol)
    right = score(protocol, depth, depth, DEPTH)
    assert (right["abs_rel"] < 1e-6).all()
    assert (right["delta1"] == 1).all()
    scaled = score(protocol, 0.9 * depth, depth, DEPTH)
    assert_close(scaled["abs_rel"], torch.full((2,), 0.1, dtype=torch.float64), rtol=1e-4, atol=0)
    assert (score(protocol, 1 / (1 / depth + 0.3), depth, DEPTH)["abs_rel"] > 0.2).all()


def test_the_fit_and_the_metrics_of_table_2_are_by_hand():
    """Disparity 1, 1/2, 1/4 [1/m] is predicted as 1, 1/4, 1/4."""
    depth, pred = pixels([1.0, 2.0, 4.0]), pixels([1.0, 0.25, 0.25])
    # p has mean 1/2 and deviations 1/2, -1/4, -1/4; the label has deviations 5/12, -1/12, -1/3: slope 5/6, offset 1/6.
    fitted = np.array([1, 3 / 8, 3 / 8])
    label = np.array([1, 1 / 2, 1 / 4])
    disparity, depths = (score(PROTOCOLS[f"depth_anything_nyu{name}"], pred, depth) for name in ("", "_in_depth"))
    assert disparity["abs_rel"].item() == pytest.approx((abs(fitted - label) / label).mean())  # (0 + 1/4 + 1/2) / 3
    assert disparity["abs_rel"].item() == pytest.approx(1 / 4)
    assert depths["abs_rel"].item() == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)  # of 1, 8/3, 8/3 m
    assert disparity["delta1"].item() == depths["delta1"].item() == pytest.approx(1 / 3)  # a ratio has no direction


@pytest.mark.parametrize("name", CAPS)
def test_a_disparity_below_zero_is_scored_as_it_is_and_capped_before_it_is_inverted(name):
    far, cap = CAPS[name] / 2, CAPS[name]
    depth, pred = pixels([1.0, far, far, 1.25 * far]), pixels([1.0, 0.0, 0.0, -1.0])
    columns = np.stack([[1.0, 0.0, 0.0, -1.0], np.ones(4)], 1)
    label = np.array([1, 1 / far, 1 / far, 0.8 / far])
    fitted = columns @ np.linalg.lstsq(columns, label, rcond=None)[0]
    assert fitted[3] < 0
    full = {"crop": PROTOCOLS["depth_anything_nyu"].crop}
    disparity, depths = (
        score(replace(PROTOCOLS[f"depth_anything_{name}{space}"], **full), pred, depth) for space in ("", "_in_depth")
    )
    assert disparity["abs_rel"].item() == pytest.approx((abs(fitted - label) / label).mean(), rel=1e-4)
    metres = 1 / np.maximum(fitted, 1 / cap)
    assert depths["abs_rel"].item() == pytest.approx((abs(metres - 1 / label) * label).mean(), rel=1e-4)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("space", ["", "_in_depth"])
def test_labels_beyond_the_cap_and_sky_are_neither_fitted_nor_scored(name, space):
    protocol = PROTOCOLS[f"depth_anything_{name}{space}"]
    depth = labels(protocol)
    beyond = torch.rand_like(depth) > 0.7
    for value in (CAPS.get(name, torch.inf), torch.inf):
        scores = score(protocol, 2 / depth + 1, depth.where(~beyond, value))
        assert (scores["abs_rel"] < 1e-4).all()


def test_an_offset_without_a_cap_is_refused_only_where_it_is_inverted():
    fit = Alignment("scale_shift", "least_squares", space=DISPARITY)
    assert PROTOCOLS["depth_anything_nyu"].max_depth == torch.inf
    with pytest.raises(RecipeError, match="expected a finite max_depth"):
        replace(PROTOCOLS["depth_anything_nyu"], space=DEPTH, alignment=fit)


@pytest.mark.parametrize("protocol", IN_METRES, **BY_NAME)
def test_tests_in_metres_refuse_models_without_a_unit_and_clamp_predictions(protocol):
    with pytest.raises(LabelError, match="aligns nothing; the model predicts disparity with ambiguity shift_scale"):
        protocol.check_prediction(DISPARITY, Ambiguity.SHIFT_SCALE)
    depth = torch.full_like(labels(protocol), 5)
    for pred, within in ((1e6, protocol.max_depth), (1e-9, max(protocol.min_depth, 1e-9))):
        scores = score(protocol, torch.full_like(depth, pred), depth, DEPTH)
        assert scores["rmse"].tolist() == pytest.approx(2 * [abs(within - 5)])


def test_metres_are_scored_by_hand():
    """Every pixel at 4 m is predicted at 5 m: metrics of one value."""
    for name, last in (("nyu", "log10"), ("kitti", "rmse_log")):
        protocol = PROTOCOLS[f"zoedepth_{name}"]
        depth = torch.full_like(labels(protocol), 4)
        scores = score(protocol, torch.full_like(depth, 5.2), depth, DEPTH)
        shares = [scores[f"delta{k}"][0].item() for k in (1, 2, 3)]
        assert shares == [0, 1, 1]
        assert scores["abs_rel"][0].item() == pytest.approx(0.3)
        assert scores["rmse"][0].item() == pytest.approx(1.2)
        assert scores[last][0].item() == pytest.approx(np.log10(1.3) if last == "log10" else np.log(1.3))
        assert list(protocol.metrics) == ["delta1", "delta2", "delta3", "abs_rel", "rmse", last]


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        (KB_CROP, (375, 1242), (23, 375, 13, 1229)),
        (KB_CROP, (376, 1241), (24, 376, 12, 1228)),
        (KB_CROP, (370, 1224), (18, 370, 4, 1220)),
        (KB_CROP, (352, 1216), (0, 352, 0, 1216)),
        (GARG_IN_KB, (352, 1216), (143, 349, 43, 1172)),
        (GARG_IN_KB, (375, 1242), (166, 372, 56, 1185)),
        (EIGEN_NYU_ON_HYPERSIM, (768, 1024), (45, 471, 41, 601)),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_crops_are_those_of_the_released_code_at_published_sizes(crop, size, box):
    assert crop.box(*size) == box
    assert crop.mask(*size).sum() == (box[1] - box[0]) * (box[3] - box[2])


@pytest.mark.parametrize("height", range(352, 379, 5))
@pytest.mark.parametrize("width", range(1216, 1249, 8))
def test_cropping_before_and_after_is_one_rectangle(height, width):
    top, bottom, left, right = KB_CROP.box(height, width)
    assert (bottom, bottom - top, right - left) == (height, 352, 1216)
    inside = GARG_IN_KB.mask(height, width)[top:bottom, left:right]
    assert torch.equal(inside, GARG.mask(352, 1216))


def test_a_window_refuses_a_smaller_image():
    for size in ((351, 1242), (375, 1215)):
        with pytest.raises(ShapeError, match=r"at least 352x1216 .* for the crop 'kb'; got"):
            KB_CROP.box(*size)


@pytest.mark.parametrize(
    ("name", "size", "rectangle"),
    [
        ("nyu", (480, 640), (45, 471, 41, 601)),
        ("ibims", (480, 640), (45, 471, 41, 601)),
        ("hypersim", (768, 1024), (45, 471, 41, 601)),
        ("kitti", (375, 1242), (166, 372, 56, 1185)),
        ("vkitti2", (375, 1242), (166, 372, 56, 1185)),
        ("diode_outdoor", (768, 1024), (313, 761, 36, 987)),
        ("ddad", (1216, 1936), (496, 1206, 69, 1866)),
        ("sun_rgbd", (441, 591), (45, 441, 41, 591)),
        ("sun_rgbd", (530, 730), (45, 471, 41, 601)),
    ],
)
def test_pixels_outside_the_crop_are_not_scored_and_all_inside_are(name, size, rectangle):
    protocol = PROTOCOLS[f"zoedepth_{name}"]
    top, bottom, left, right = rectangle
    depth = torch.full((1, 1, *size), 8.0)
    depth[..., top:bottom, left:right] = 4.0
    shown = protocol.shown.box(*size)
    pred = torch.full((1, 1, shown[1] - shown[0], shown[3] - shown[2]), 4.0)
    assert score(protocol, pred, depth, DEPTH)["abs_rel"].item() == 0
    for row, column in ((top, left), (bottom - 1, right - 1)):
        dented = depth.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(row), torch.tensor(column)), torch.tensor(2.0))
        count = (bottom - top) * (right - left)
        assert score(protocol, pred, dented, DEPTH)["abs_rel"].item() == pytest.approx(1 / count)


def test_the_networks_input_has_the_published_sizes():
    relative = PROTOCOLS["depth_anything_nyu"].input_size
    assert relative(480, 640) == relative(480, 640, 14) == (518, 686)
    assert relative(375, 1242) == (518, 1722)
    assert relative(1024, 768) == (686, 518)
    assert PROTOCOLS["zoedepth_nyu"].input_size(480, 640, 14) == (392, 518)
    assert PROTOCOLS["zoedepth_kitti"].input_size(375, 1242, 14) == (378, 770)
    assert PROTOCOLS["zoedepth_kitti"].input_size(375, 1242, 32) == (384, 768)


def test_the_network_is_shown_kittis_window_alone():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 70, (375, 1242)).astype(np.float32)
    inside = KB_CROP.mask(375, 1242).numpy()
    sample = Sample("a", np.full((375, 1242, 3), 128, np.uint8), depth, np.ones_like(inside), Ambiguity.METRIC, DEPTH)
    framed = sample.replace(
        image=np.where(inside[..., None], sample.image, 255).astype(np.uint8), label=np.where(inside, depth, 0.5)
    )
    seen = []

    def model(image):
        seen.append(image)
        return image.mean(1, keepdim=True) * 40

    reports = [
        evaluate(model, [s], PROTOCOLS["zoedepth_kitti"], representation=DEPTH, size_multiple=14, progress=False)
        for s in (sample, framed)
    ]
    assert reports[0].summary == reports[1].summary
    assert seen[0].shape[-2:] == (378, 770)
    assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert "kb: rows 0 to 1, columns 0 to 1 of 352x1216 px at the bottom and centre" in reports[0].table()


def test_a_report_names_the_space_of_fit_and_metrics():
    depth = (1 + 8 * np.random.default_rng(0).random((28, 42))).astype(np.float32)
    sample = Sample("a", np.zeros((28, 42, 3), np.uint8), depth, depth > 0, Ambiguity.METRIC, DEPTH)
    pred = torch.rand(1, 1, 28, 42)
    for name, space in (("", "disparity"), ("_in_depth", "depth")):
        small = replace(PROTOCOLS[f"depth_anything_diode{name}"], input=PROTOCOLS["synthetic_affine"].input)
        report = evaluate(lambda image: pred, [sample], small, representation=DISPARITY, progress=False)
        assert "scale and shift per image by least_squares, in disparity" in report.table()
        assert f"{space} where the label is between 0 and 300 m" in report.table()


def test_the_relative_tests_carry_the_papers_caps_and_crops():
    for name, cap in CAPS.items():
        for space in ("", "_in_depth"):
            assert PROTOCOLS[f"depth_anything_{name}{space}"].label_range == (0, cap)
        assert PROTOCOLS[f"depth_anything_{name}_in_depth"].max_depth == cap
    for space in ("", "_in_depth"):
        assert [PROTOCOLS[f"depth_anything_{name}{space}"].crop.name for name in SETS] == ["garg"] + 5 * ["none"]
    assert PROTOCOLS["depth_anything_eth3d_in_depth"].max_depth == 72
    v2 = [PROTOCOLS[f"depth_anything_v2_{name}"] for name in ("hypersim", "vkitti2")]
    assert [(p.max_depth, p.label_range) for p in v2] == [(20, (1e-3, 20)), (80, (1e-3, 80))]
    assert all((p.metrics["silog"].variance_focus, p.metrics["silog"].factor) == (0.5, 1) for p in v2)
    assert all(p.output.align_corners and p.input_size(480, 640) == (518, 686) for p in v2)


def test_zoedepths_tests_carry_their_ranges_inputs_and_corners():
    """Of the released code: 1e-3 m to the cap but for three, Garg's and Eigen's crops, corners aligned."""
    expected = {
        "nyu": (1e-3, 10, "eigen_nyu"),
        "kitti": (1e-3, 80, "garg_in_kb"),
        "sun_rgbd": (0, 8, "eigen_nyu_on_any"),
        "ibims": (0, 10, "eigen_nyu"),
        "diode_indoor": (1e-3, 10, "eigen_nyu_on_any"),
        "hypersim": (1e-3, 80, "eigen_nyu_on_hypersim"),
        "diml_indoor": (0, 10, "eigen_nyu_on_any"),
        "vkitti2": (1e-3, 80, "garg_in_kb"),
        "ddad": (1e-3, 80, "garg"),
        "diml_outdoor": (2, 80, "garg"),
        "diode_outdoor": (1e-3, 80, "garg"),
    }
    by_yang = {f"{name}_at_392x518": expected[name] for name in ("kitti", "vkitti2", "diode_outdoor")}
    expected |= by_yang  # whose own command knows one size
    found = {p.name.removeprefix("zoedepth_"): (*p.label_range, p.crop.name) for p in IN_METRES}
    assert found == expected
    assert all((p.min_depth, p.max_depth) == p.label_range and p.output.align_corners for p in IN_METRES)
    indoor = [p for p in IN_METRES if "log10" in p.metrics]
    wide = {p.name for p in IN_METRES if p.input.side == (384, 768)}
    assert {p.name for p in IN_METRES if p.input.side == (392, 518)} == {p.name for p in IN_METRES} - wide
    assert wide == {p.name for p in IN_METRES if p not in indoor} - {f"zoedepth_{name}" for name in by_yang}
    column = find_table("depth_anything_4").columns[0]
    assert column.protocol_for(DEPTH, Ambiguity.METRIC).name == "zoedepth_kitti_at_392x518"
    assert column.figures["Depth Anything L"] == 0.982


def test_the_protocols_carry_the_papers_figures():
    figure = lambda name, model: PROTOCOLS[name].published[model]  # noqa: E731
    assert figure("depth_anything_diode", "Depth Anything L") == {"abs_rel": 0.066, "delta1": 0.952}
    assert figure("depth_anything_kitti", "Depth Anything S") == {"abs_rel": 0.080, "delta1": 0.936}
    assert figure("depth_anything_sintel", "S, margin 0.70") == {"abs_rel": 0.482}
    assert not any(protocol.published for protocol in IN_DEPTH)
    assert list(figure("zoedepth_nyu", "Depth Anything L").values()) == [0.984, 0.998, 1.0, 0.056, 0.206, 0.024]
    kitti = figure("zoedepth_kitti", "Depth Anything L")
    assert kitti == {"delta1": 0.982, "delta2": 0.998, "delta3": 1.0, "abs_rel": 0.046, "rmse": 1.896, "rmse_log": 0.069}
    assert figure("zoedepth_ibims", "Depth Anything L") == {"abs_rel": 0.150, "delta1": 0.714}
