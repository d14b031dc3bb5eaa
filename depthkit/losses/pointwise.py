"""Pixelwise losses in log-depth: the baselines of GP2."""

from enum import StrEnum

from torch import Tensor, nn

from depthkit.alignment import difference
from depthkit.checks import check_choice, check_map_pair
from depthkit.masked import centred, masked_mean, masked_median, masked_variance
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


class Norm(StrEnum):
    """What is averaged of log-ratios: their absolute values or their squares."""

    L1 = "l1"
    L2 = "l2"


@in_float32
def pointwise_loss(
    log_pred: Tensor, log_target: Tensor, valid: Tensor, *, norm: Norm | str = Norm.L1, scale_invariant: bool = False
) -> Tensor:
    r"""Pointwise losses of Romanov et al. (2020), appendix C, eqs 13-16, one value per image; R = ln d - ln d*.

    ========  =====================  ==================================================
    ``norm``  ``scale_invariant``    loss
    ========  =====================  ==================================================
    ``l1``    False                  mean abs(R)
    ``l2``    False                  mean R^2
    ``l1``    True                   mean abs(R - median R): least over all scales
    ``l2``    True                   mean (R - mean R)^2: least over all scales
    ========  =====================  ==================================================

    Args:
        log_pred: predicted log-depth or log-disparity, ``(B, 1, H, W)``.
        log_target: label in the same representation, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        norm: absolute or squared.
        scale_invariant: ignore one factor per image.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image with no valid pixel.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
        RecipeError: unknown ``norm``.

    Example:
        >>> import torch
        >>> x = torch.rand(1, 1, 8, 8)
        >>> pointwise_loss(x + 3, x, x >= 0, scale_invariant=True) < 1e-6
        tensor([True])
    """
    check_map_pair(log_pred, log_target, valid)
    norm = check_choice("norm", norm, Norm)
    ratio = difference(log_pred, log_target, valid)
    if norm == Norm.L2:
        return masked_variance(ratio, valid) if scale_invariant else masked_mean(ratio**2, valid)
    return masked_mean((centred(ratio, masked_median(ratio, valid)) if scale_invariant else ratio).abs(), valid)


class PointwiseLoss(nn.Module):
    """``pointwise_loss`` with its options; ``log_pred, log_target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.LOG_DISPARITY

    def __init__(self, *, norm: Norm | str = Norm.L1, scale_invariant: bool = False) -> None:
        super().__init__()
        self.norm, self.scale_invariant = check_choice("norm", norm, Norm), scale_invariant

    @property
    def accepts(self) -> frozenset[Ambiguity]:
        """What a label may leave undetermined."""
        return frozenset({Ambiguity.METRIC, Ambiguity.SCALE} if self.scale_invariant else {Ambiguity.METRIC})

    def forward(self, log_pred: Tensor, log_target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return pointwise_loss(log_pred, log_target, valid, norm=self.norm, scale_invariant=self.scale_invariant)
