"""The multi-scale gradient-matching term of MiDaS."""

from enum import StrEnum

from torch import Tensor, nn

from depthkit.alignment import Align, aligned_residual, check_align
from depthkit.checks import check_choice, check_map_pair
from depthkit.errors import RecipeError
from depthkit.masked import masked_count, zeroed_mean
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


class Divisor(StrEnum):
    """Number of valid pixels that a level is divided by: its own, or that of full resolution."""

    LEVEL = "level"
    IMAGE = "image"


@in_float32
def gradient_matching_loss(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    scales: int = 4,
    align: Align | str | None = None,
    divisor: Divisor | str = Divisor.LEVEL,
) -> Tensor:
    r"""Multi-scale gradient matching of Ranftl et al. (2022), eq. 11, one value per image.

    .. math:: L = \sum_{k=1}^{K} \frac{1}{M_k} \sum_i |\nabla_x R^k_i| + |\nabla_y R^k_i|, \qquad R = \hat d - \hat d^*

    Level k keeps every 2^(k-1)-th row and column, without pooling; a difference counts if both of its pixels are valid, and is
    not divided by their distance.

    Args:
        pred: predicted disparity, ``(B, 1, H, W)``.
        target: labelled disparity, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        scales: K, number of levels.
        align: how the two maps are brought together first, see ``align_pair``; None if they already are.
        divisor: ``"level"`` divides each level by its own number of valid pixels, so that all levels weigh about the same, as
            the authors' code does; ``"image"`` divides by that of full resolution, as printed: level k weighs 4^-(k-1).

    Returns:
        Loss, in the unit of the aligned maps, ``(B,)``; 0 with gradient 0 for an image that has no valid pixel or, when aligned
        here, whose label is constant.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
        RecipeError: unknown ``align`` or ``divisor``, or ``scales`` below 1.

    Example:
        >>> import torch
        >>> d = torch.rand(2, 1, 16, 16)
        >>> bool((gradient_matching_loss(d + 7, d, d >= 0) < 1e-5).all())
        True
    """
    check_map_pair(pred, target, valid)
    divisor = check_choice("divisor", divisor, Divisor)
    if scales < 1:
        raise RecipeError(f"expected scales to be at least 1; got {scales}.")
    residual, valid = aligned_residual(pred, target, valid, align=align)
    total = residual.new_zeros(len(residual))
    count, weight = masked_count(valid), valid.to(residual.dtype)  # products, as the residual is 0 where not valid
    for level in range(scales):
        if level:
            residual, valid, weight = residual[..., ::2, ::2], valid[..., ::2, ::2], weight[..., ::2, ::2]
            count = masked_count(valid) if divisor == Divisor.LEVEL else count
        across = (residual[..., :, 1:] - residual[..., :, :-1]).abs() * (weight[..., :, 1:] * weight[..., :, :-1])
        down = (residual[..., 1:, :] - residual[..., :-1, :]).abs() * (weight[..., 1:, :] * weight[..., :-1, :])
        total = total + zeroed_mean(across, count) + zeroed_mean(down, count)
    return total


class GradientMatchingLoss(nn.Module):
    """``gradient_matching_loss`` with its options; ``pred, target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``.

    Without ``align`` it compares slopes as they are and accepts metric labels only, or labels up to scale if ``representation``
    is a logarithm, whose slopes a factor does not change (Li & Snavely 2018).
    """

    def __init__(
        self,
        *,
        scales: int = 4,
        align: Align | str | None = None,
        divisor: Divisor | str = Divisor.LEVEL,
        representation: Representation | str = Representation.DISPARITY,
    ) -> None:
        super().__init__()
        self.scales, self.align, self.divisor = scales, check_align(align), check_choice("divisor", divisor, Divisor)
        self.representation = check_choice("representation", representation, Representation)
        if self.representation != Representation.DISPARITY and self.align is not None:
            raise RecipeError(
                f"expected align=None in {self.representation}, whose slopes are compared as they are; got {str(self.align)!r}."
            )

    @property
    def accepts(self) -> frozenset[Ambiguity]:
        """What a label may leave undetermined."""
        logarithm = self.representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)
        if self.align is None:
            return frozenset({Ambiguity.METRIC, Ambiguity.SCALE} if logarithm else {Ambiguity.METRIC})
        dense = frozenset({Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE})
        return dense - {Ambiguity.SHIFT_SCALE} if self.align == Align.SCALE else dense

    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return gradient_matching_loss(pred, target, valid, scales=self.scales, align=self.align, divisor=self.divisor)
