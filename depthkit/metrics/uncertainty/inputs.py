"""What every metric of uncertainty reads."""

from torch import Tensor

from depthkit.checks import check_map
from depthkit.errors import ShapeError
from depthkit.metrics.formula import map_pair
from depthkit.precision import in_float32, where_float64_exists


def scorable(target: Tensor, valid: Tensor) -> Tensor:
    """Tell which images ``(B,)`` have valid pixels, all of them with a depth: finite and above 0."""
    return valid.flatten(1).any(1) & (~valid | ((target > 0) & target.isfinite())).flatten(1).all(1)


@in_float32
def scored_maps(pred: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return all four where float64 exists, in float64 but for the mask; both depths are 1 where not valid.

    Raises:
        ShapeError: they are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
    """
    check_map("uncertainty", uncertainty)
    if uncertainty.shape != pred.shape:
        raise ShapeError(
            f"expected uncertainty of pred's shape, {tuple(pred.shape)}; got {tuple(uncertainty.shape)}. Resize it as the map."
        )
    pred, target, valid, uncertainty = where_float64_exists(pred, target, valid, uncertainty)
    pred, target = map_pair(pred, target, valid)
    return pred, target, valid, uncertainty.double()
