"""Whether a model's uncertainty tells where it is wrong, beside the numbers of a protocol."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.evaluation.protocol import Protocol
from depthkit.evaluation.scores import ProtocolMetrics
from depthkit.metrics import CalibrationCurve, SparsificationCurve
from depthkit.metrics.uncertainty.calibration import distance_from_nominal, nominal_levels
from depthkit.metrics.uncertainty.sparsification import PixelError, area_between
from depthkit.types import Ambiguity, Representation

_INVERSES = (Representation.DISPARITY, Representation.LOG_DISPARITY)


class TrustScores(nn.Module):
    """Sparsification and calibration over a stream of images.

    The uncertainty of a map up to scale and shift is in the map's units; its fraction of depth is found by the protocol's fit.

    Args:
        protocol: under which predictions are scored.
        representation: of the predictions.
        ambiguity: of the predictions.

    Raises:
        RecipeError: the protocol scores no maps of depth.

    Attributes:
        last: values per image of the latest ``update``, float64 ``(B,)`` by name.
    """

    last: dict[str, Tensor]

    def __init__(self, protocol: Protocol, representation: Representation, ambiguity: Ambiguity) -> None:
        super().__init__()
        if protocol.ordinal or protocol.space != Representation.DEPTH:
            raise RecipeError(
                f"expected a protocol that compares maps of depth to score an uncertainty; {protocol.name!r} compares "
                f"{'the order of points' if protocol.ordinal else protocol.space}. Choose another, or leave it out."
            )
        self.protocol, self.affine = protocol, ambiguity == Ambiguity.SHIFT_SCALE
        self.inverse = representation in _INVERSES
        self.curves = nn.ModuleDict({str(error): SparsificationCurve(error=error) for error in PixelError})
        self.calibration = CalibrationCurve()

    def _curves(self) -> Iterator[tuple[str, SparsificationCurve]]:
        return ((name, cast(SparsificationCurve, metric)) for name, metric in self.curves.items())

    def update(self, metrics: ProtocolMetrics, spread: Tensor) -> None:
        """Add the images of the latest ``update`` of ``metrics`` with their uncertainty, ``(B, 1, h, w)``."""
        pred, target, valid = metrics.last.pred, metrics.last.target, metrics.last.valid
        full, _ = self.protocol.place(spread.to(pred), target.shape[-2], target.shape[-1], None, None)
        if self.affine:
            factor = metrics.last.scale.abs().nan_to_num(0.0).to(full)[:, None, None, None]
            full = full * factor * (pred if self.inverse else 1 / pred.where(valid, 1))
        full = full.where(valid, 0)
        self.last = {}
        for name, metric in self._curves():
            metric.update(pred, target, valid, full)
            self.last[f"ause_{name}"] = area_between(metric.last)
        self.calibration.update(pred, target, valid, full)
        self.last["calibration_error"] = distance_from_nominal(self.calibration.last)

    def summary(self) -> dict[str, float]:
        """Compute the areas under the sparsification errors, and how far intervals are from what they promise."""
        areas = {f"ause_{name}": float(area_between(metric.compute())) for name, metric in self._curves()}
        return {**areas, "calibration_error": float(distance_from_nominal(self.calibration.compute()))}

    def facts(self) -> dict[str, Any]:
        """Return the curves as plain values, for a report's JSON."""
        found: dict[str, Any] = {}
        for name, metric in self._curves():
            by_uncertainty, best = metric.compute().tolist()
            left_out = torch.linspace(0, 1, len(best), dtype=torch.float64).tolist()
            found[f"sparsification_{name}"] = {"left_out": left_out, "by_uncertainty": by_uncertainty, "best": best}
        promised, coverage = nominal_levels(self.calibration.levels).tolist(), self.calibration.compute().tolist()
        return {**found, "calibration": {"promised": promised, "found": coverage}}
