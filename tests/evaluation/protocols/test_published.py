"""What holds of every protocol: it is cited, its figures are possible and of its own metrics, and no table is missing."""

import math

import numpy as np
import pytest
import torch

from depthkit.convert.catalogue import find
from depthkit.evaluation import (
    BORDER_NYU,
    CENTRE_MAKE3D,
    EIGEN_KITTI_IN_KB,
    EIGEN_NYU,
    EIGEN_NYU_ON_ANY,
    EIGEN_NYU_ON_HYPERSIM,
    GARG,
    GARG_IN_KB,
    KB_CROP,
    ODOMETRY_PROTOCOLS,
    PROTOCOLS,
)
from depthkit.evaluation.protocols.benchmark_data import TEST_DATA
from depthkit.evaluation.report import describe
from depthkit.metrics import TrajectoryError
from depthkit.types import Ambiguity, LabelKind, Representation

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, DEPTH)
OF_PAPERS = {name: p for name, p in PROTOCOLS.items() if not name.startswith(("synthetic_", "small_", "held_out_"))}
WITHOUT_FIGURES = ("_in_depth", "_disparity", "_metric", "depth_anything_v2_hypersim", "depth_anything_v2_vkitti2")
POSSIBLE = {
    "whdr": (0, 0.5),
    "abs_rel": (0.01, 2),
    "sq_rel": (0.1, 12),
    "sq_rel_percent": (1, 30),
    "rmse": (0.1, 12),
    "rmse_log": (0.05, 0.5),
    "rmse_log10": (0.05, 0.5),
    "log10": (0.01, 0.1),
    "silog": (5, 30),
    "i_rmse": (5, 30),
    "delta1_error": (0, 0.7),
    "delta1": (0, 1),
    "delta2": (0.85, 1),
    "delta3": (0.85, 1),
}
TABLES = {
    "MiDaS, tables 10 and 11": [f"midas_{name}" for name in ("diw", "eth3d", "sintel", "kitti", "nyu", "tum")],
    "GP2, table 3": [f"gp2_uts_{name}" for name in ("nyu", "tum", "eth3d", "sintel", "sintel_released")] + ["gp2_diw"],
    "GP2, table 5": [f"gp2_utss_{name}" for name in ("nyu", "tum", "eth3d", "sintel", "sintel_released")] + ["gp2_diw"],
    "Monodepth2, table 1": [f"monodepth2_eigen{name}" for name in ("", "_metric", "_1024", "_metric_1024")],
    "Monodepth2, table 3": ["monodepth2_make3d", "monodepth2_make3d_metric"],
    "Monodepth2, table 7": ["monodepth2_improved", "monodepth2_improved_metric"],
    "Monodepth2, table 8": ["monodepth2_improved_one_scale"],
    "Monodepth2, table 9": ["monodepth2_benchmark"],
    "Depth Anything, tables 2 and 6": [f"depth_anything_{n}" for n in ("kitti", "nyu", "sintel", "ddad", "eth3d", "diode")],
    "Depth Anything, tables 3 and 4": ["zoedepth_nyu", "zoedepth_kitti"],
    "Depth Anything, table 5": [f"zoedepth_{n}" for n in ("sun_rgbd", "ibims", "hypersim", "vkitti2", "diode_outdoor")],
    "Marigold's five sets": [f"marigold_{name}" for name in ("nyu", "kitti", "eth3d", "scannet", "diode")],
}


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_protocol_is_cited_and_every_figure_possible(name):
    protocol = OF_PAPERS[name]
    assert protocol.name == name
    assert " et al., " in protocol.source
    assert protocol.published or name.endswith(WITHOUT_FIGURES) or "without figures" in protocol.source
    for model, figures in protocol.published.items():
        assert figures, model
        assert figures.keys() <= protocol.metrics.keys(), model
        for metric, value in figures.items():
            low, high = POSSIBLE[metric]
            assert low <= value <= high, (model, metric, value)
        shares = [figures[f"delta{k}"] for k in (1, 2, 3) if f"delta{k}" in figures]
        assert shares == sorted(shares), model


def test_every_protocol_of_a_paper_says_which_shards_it_is_for():
    assert TEST_DATA.keys() == OF_PAPERS.keys() - {"zoedepth_diml_outdoor"}  # which has no converter
    for protocol, data in TEST_DATA.items():
        name, *options = data.split()
        dataset, given = find(name), dict(zip(options[::2], options[1::2], strict=True))
        assert given["--split"] in (dataset.published or ("train", "test")), protocol  # of films the held-out end
        told = {option.removeprefix("--") for option in given} - {"split"}
        needed = {option for option, parameter in dataset.options.items() if parameter.default is parameter.empty}
        assert needed <= told <= dataset.options.keys(), protocol
        kinds = PROTOCOLS[protocol].accepts
        assert dataset.kind in kinds or dataset.kind is None, protocol
    table = "\n".join(describe(PROTOCOLS["marigold_scannet"]).values())
    assert "depthkit shards write scannet ROOT OUT --split val --split_file LIST" in table


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_protocols_with_figures(table):
    assert all(PROTOCOLS[name].published for name in TABLES[table])


def test_odometry_has_its_two_sequences_with_figures():
    assert {p.sequence for p in ODOMETRY_PROTOCOLS.values()} == {"09", "10"}
    for protocol in ODOMETRY_PROTOCOLS.values():
        assert "table 4" in protocol.source
        assert all(0.01 <= mean <= 0.05 and 0 < deviation < 0.11 for mean, deviation in protocol.published.values())
        assert isinstance(protocol.metric(), TrajectoryError)
    assert ODOMETRY_PROTOCOLS["monodepth2_odometry_09"].published["Monodepth2 M without ImageNet"] == (0.018, 0.010)


def test_figures_are_those_printed():
    def figure(name, model):
        return PROTOCOLS[name].published[model]

    assert figure("midas_diw", "Casser et al. 2019 (Cityscapes)")["whdr"] == pytest.approx(0.3280)
    assert figure("midas_kitti", "Fu et al. 2018 (NYU)")["delta1_error"] == pytest.approx(0.6161)
    assert figure("midas_diw_train", "MIX 5, Pareto")["whdr"] == pytest.approx(0.1227)
    assert "MIX 5, Pareto" not in PROTOCOLS["midas_diw"].published
    assert figure("depth_anything_kitti", "L, MegaDepth alone") == {"abs_rel": 0.217, "delta1": 0.741}
    assert figure("zoedepth_sun_rgbd", "ZoeD-M12-N") == {"delta1": 0.864, "abs_rel": 0.119, "rmse": 0.346}
    assert figure("zoedepth_sun_rgbd", "Depth Anything L") == {"abs_rel": 0.500, "delta1": 0.660}
    assert figure("zoedepth_ddad", "NeWCRFs") == {"delta1": 0.874, "abs_rel": 0.119, "rmse": 6.183}
    assert figure("monodepth2_eigen_1024", "M + flip")["rmse"] == 4.607


@pytest.mark.parametrize(
    ("crop", "size", "pixels"),
    [
        (GARG, (375, 1242), 218 * 1153),
        (KB_CROP, (375, 1242), 352 * 1216),
        (GARG_IN_KB, (375, 1242), 206 * 1129),
        (EIGEN_KITTI_IN_KB, (375, 1242), 204 * 1129),
        (EIGEN_NYU, (480, 640), 426 * 560),
        (BORDER_NYU, (480, 640), 464 * 624),
        (EIGEN_NYU_ON_HYPERSIM, (768, 1024), 426 * 560),
        (EIGEN_NYU_ON_ANY, (530, 730), 426 * 560),
        (EIGEN_NYU_ON_ANY, (427, 561), 382 * 520),
        (CENTRE_MAKE3D, (2272, 1704), 852 * 1704),
        (CENTRE_MAKE3D, (55, 305), 21 * 305),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_crops_hold_as_many_pixels_as_published(crop, size, pixels):
    assert crop.mask(*size).sum() == pixels


@pytest.mark.parametrize(("name", "cap"), [("eth3d", 72), ("sintel", 72), ("kitti", 80), ("nyu", 10), ("tum", 10)])
def test_midas_scores_what_an_independent_implementation_scores(name, cap):
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.8, 0.95 * cap, (24, 36)).astype(np.float32)
    pred = (3 / (depth * rng.uniform(0.8, 1.3, depth.shape)) + 0.2).astype(np.float32)
    valid = rng.random(depth.shape) > 0.4
    p, g = pred[valid].astype(np.float64), depth[valid].astype(np.float64)
    columns = np.stack([p, np.ones_like(p)], 1)
    fitted = 1 / np.maximum(columns @ np.linalg.lstsq(columns, 1 / g, rcond=None)[0], 1 / cap)
    expected = {"abs_rel": (abs(fitted - g) / g).mean(), "delta1_error": (np.maximum(fitted / g, g / fitted) > 1.25).mean()}
    protocol = PROTOCOLS[f"midas_{name}"]
    maps = (torch.from_numpy(x)[None, None] for x in (pred, depth, valid))
    d, g, v = maps
    scores = protocol.score(d, DISPARITY, g, v, kind=METRIC_DEPTH)
    for metric in protocol.metrics:
        assert scores[metric].item() == pytest.approx(expected[metric], rel=1e-4)


def test_the_share_of_wrong_pairs_is_by_hand():
    """Two of three ordered pairs are predicted right; in DIW the sign > says that the first point is farther."""
    disparity = torch.tensor([[4.0, 3.0], [2.0, 1.0]])[None, None]
    pairs = torch.tensor([[[0, 0, 1, 1, 1], [1, 1, 0, 1, -1], [1, 0, 0, 0, 1]]])
    formula = PROTOCOLS["midas_diw"].metrics["whdr"]
    assert math.isclose(formula.value(*formula.sums(disparity, pairs)).item(), 1 / 3, rel_tol=1e-9)
