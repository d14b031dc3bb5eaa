"""Laws of the protocols for what training sets hold out: the error of an affine disparity in units of its label's range."""

import numpy as np
import pytest
import torch

from depthkit.alignment import Alignment
from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, Protocol
from depthkit.types import Ambiguity, LabelKind, Representation

DISPARITY = Representation.DISPARITY
FILM = LabelKind(Ambiguity.SHIFT_SCALE, DISPARITY)
AFFINE = ["midas_redweb", "midas_megadepth", "midas_movies", "held_out_affine_384", "held_out_affine_518"]


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    label = torch.rand(2, 1, 12, 16, dtype=torch.float64)
    return label + 0.2 * torch.rand_like(label), label, torch.rand(label.shape) < 0.7


@pytest.mark.parametrize("name", AFFINE)
def test_the_error_is_the_rmse_after_the_best_fit_over_the_range_of_the_label(name: str, maps) -> None:
    pred, label, valid = maps
    found = PROTOCOLS[name].score(pred, DISPARITY, label, valid, kind=FILM)["rmse"]
    for value, p, t, there in zip(found.tolist(), pred.numpy(), label.numpy(), valid.numpy(), strict=True):
        x, y = p[there], t[there]
        a = np.stack([x, np.ones_like(x)], 1)
        residual = a @ np.linalg.lstsq(a, y, rcond=None)[0] - y
        assert value == pytest.approx(np.sqrt((residual**2).mean()) / (y.max() - y.min()))


def test_the_unit_of_label_and_prediction_does_not_matter(maps) -> None:
    pred, label, valid = maps
    rules = PROTOCOLS["midas_movies"]
    once = rules.score(pred, DISPARITY, label, valid, kind=FILM)["rmse"]
    again = rules.score(5 * pred - 2, DISPARITY, 300 * label - 40, valid, kind=FILM)["rmse"]
    torch.testing.assert_close(again, once)


def test_metric_depth_is_scored_as_disparity_and_a_constant_label_costs_nothing(maps) -> None:
    pred, label, valid = maps
    depth = 1 / (0.1 + label)
    kind = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    rules = PROTOCOLS["held_out_affine_384"]
    as_disparity = rules.score(pred, DISPARITY, 0.1 + label, valid, kind=FILM)["rmse"]
    torch.testing.assert_close(rules.score(pred, DISPARITY, depth, valid, kind=kind)["rmse"], as_disparity)
    flat = rules.score(pred, DISPARITY, torch.full_like(label, 0.4), valid, kind=FILM)
    assert (flat["rmse"].abs() < 1e-9).all()


def test_labels_in_a_unit_range_need_a_fit_of_scale_and_shift() -> None:
    for alignment in (None, Alignment("scale", "median_ratio", space=DISPARITY), Alignment("scale_shift", "least_squares")):
        with pytest.raises(RecipeError, match="expected an alignment of scale and shift in disparity for unit_labels"):
            Protocol(
                "x", "y", frozenset({FILM}), PROTOCOLS["midas_redweb"].metrics, alignment, space=DISPARITY, unit_labels=True
            )
