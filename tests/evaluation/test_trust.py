"""What the report says of an uncertainty is what the metrics say of the aligned prediction."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, Protocol, evaluate
from depthkit.metrics.functional import ause, calibration_curve
from depthkit.models import FlipUncertainty
from depthkit.types import Ambiguity, Representation, Sample


class Wrong(nn.Module):
    """The truth with an error that its uncertainty knows, in disparity up to scale and shift, or in metres."""

    gives_uncertainty, size_multiple = True, 1

    def __init__(self, depth: Tensor, error: Tensor, ambiguity: Ambiguity) -> None:
        super().__init__()
        self.affine = ambiguity == Ambiguity.SHIFT_SCALE
        self.ambiguity = ambiguity
        self.representation = Representation.DISPARITY if self.affine else Representation.DEPTH
        self.true, self.error = depth, error

    def with_uncertainty(self, image: Tensor, shown: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        if self.affine:  # half the disparity, and 3 added; an error by sign that no line fits
            return (1 / self.true + self.error) / 2 + 3, self.error.abs() / 2
        return self.true * (1 + self.error), self.error.abs()

    def forward(self, image: Tensor) -> Tensor:
        return self.with_uncertainty(image)[0]


def labelled(depth: Tensor) -> Sample:
    """A black image with this depth [m] everywhere."""
    height, width = depth.shape[-2:]
    valid, image = np.ones((height, width), bool), np.zeros((height, width, 3), np.uint8)
    return Sample("a", image, depth[0, 0].numpy(), valid, Ambiguity.METRIC, Representation.DEPTH)


def drawn_areas(page: str) -> dict[str, float]:
    """What the page shades between two curves of sparsification, in their unit."""
    found = {}
    for name, lines, high in re.findall(r'aria-label="(ause_\w+)">(.*?)<text x="12" y="14"[^>]*>([\d.]+)<', page, re.DOTALL):
        drawn = re.findall(r'<polyline points="([^"]+)"', lines)  # the best, then the given one
        best, given = (np.array([pair.split(",") for pair in points.split()], float) for points in drawn)
        found[name] = float(np.trapezoid(best[:, 1] - given[:, 1], given[:, 0]) / 240 / 80 * float(high))
    return found


METRES = replace(PROTOCOLS["synthetic_affine"], name="metres", alignment=None)


@pytest.mark.parametrize(
    ("ambiguity", "rules"), [(Ambiguity.METRIC, METRES), (Ambiguity.SHIFT_SCALE, PROTOCOLS["synthetic_affine"])]
)
def test_an_uncertainty_that_is_the_error_has_no_area(ambiguity: Ambiguity, rules: Protocol, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 4 * torch.rand(1, 1, 40, 48, generator=generator)
    error = 0.05 * torch.randn(depth.shape, generator=generator)
    error = error if ambiguity == Ambiguity.METRIC else error / 10
    sample = labelled(depth)
    model = Wrong(depth, error, ambiguity)
    report = evaluate(model, [sample, sample], rules, uncertainty=True, progress=False)
    area = report.summary["ause_abs_rel"]
    assert area < 0.02 * report.summary["abs_rel"]
    assert report.per_image[0]["ause_abs_rel"] == pytest.approx(area)
    blind = Wrong(depth, error, ambiguity)
    blind.with_uncertainty = lambda *_: (model(None), torch.ones_like(depth))  # type: ignore[method-assign]
    assert (
        evaluate(blind, [sample], rules, uncertainty=True, progress=False).summary["ause_abs_rel"]
        > 0.2 * report.summary["abs_rel"]
    )
    plain = evaluate(model, [sample, sample], rules, progress=False)
    assert {name: x for name, x in report.summary.items() if name in plain.summary} == plain.summary
    assert "ause_rmse" in report.table()
    assert "ause_rmse" not in plain.table()
    content = json.loads(report.to_json(tmp_path / "a.json").read_text())
    assert len(content["uncertainty"]["sparsification_rmse"]["best"]) == 51
    assert len(content["uncertainty"]["calibration"]["found"]) == 20
    assert drawn_areas(report.to_html(tmp_path / "a.html").read_text()) == pytest.approx(
        {name: report.summary[name] for name in ("ause_abs_rel", "ause_rmse")}, abs=2e-4 * report.summary["abs_rel"]
    )
    assert "<polygon" not in plain.to_html(tmp_path / "b.html").read_text()
    assert "uncertainty" not in json.loads(plain.to_json(tmp_path / "b.json").read_text())


def test_metres_are_scored_as_they_are() -> None:
    depth = 1 + torch.rand(1, 1, 40, 48)
    error = 0.05 * torch.randn(depth.shape)
    sample = Sample(
        "a",
        np.zeros((40, 48, 3), np.uint8),
        depth[0, 0].numpy(),
        np.ones((40, 48), bool),
        Ambiguity.METRIC,
        Representation.DEPTH,
    )
    model = Wrong(depth, error, Ambiguity.METRIC)
    report = evaluate(model, [sample], METRES, uncertainty=True, progress=False)
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    maps = model(depth), depth, everywhere, error.abs()
    assert report.summary["ause_rmse"] == pytest.approx(float(ause(*maps, error="rmse")), rel=1e-4, abs=1e-9)
    assert_close(
        torch.tensor(report.uncertainty["calibration"]["found"]).double(), calibration_curve(*maps)[0], atol=1e-3, rtol=0
    )


def test_what_has_none_is_refused() -> None:
    sample = Sample(
        "a",
        np.zeros((8, 8, 3), np.uint8),
        np.ones((8, 8), np.float32),
        np.ones((8, 8), bool),
        Ambiguity.METRIC,
        Representation.DEPTH,
    )
    with pytest.raises(RecipeError, match="expected a network that gives its uncertainty"):
        evaluate(nn.Identity(), [sample], PROTOCOLS["synthetic_affine"], representation=Representation.DEPTH, uncertainty=True)
    ordinal = next(protocol for protocol in PROTOCOLS.values() if protocol.ordinal)
    model = FlipUncertainty(Wrong(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), Ambiguity.SHIFT_SCALE))
    with pytest.raises(RecipeError, match="compares the order of points"):
        evaluate(model, [sample], ordinal, uncertainty=True)
