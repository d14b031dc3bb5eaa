"""The scale-and-shift-invariant loss of MiDaS."""

from enum import StrEnum

from torch import Tensor, nn

from depthkit.alignment import Align, aligned_residual, check_align
from depthkit.checks import check_choice, check_map_pair
from depthkit.errors import RecipeError
from depthkit.masked import masked_trimmed_mean
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


class Penalty(StrEnum):
    """What is averaged of residuals: their absolute values or their squares."""

    L1 = "l1"
    L2 = "l2"


@in_float32
def ssi_loss(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    align: Align | str | None = Align.LEAST_SQUARES,
    penalty: Penalty | str = Penalty.L1,
    trim: float = 0.0,
    halved: bool = True,
    require_positive_scale: bool = False,
) -> Tensor:
    r"""Scale-and-shift-invariant loss of Ranftl et al. (2022), eqs 2-7, one value per image.

    .. math:: L = \frac{1}{2M} \sum_{i \in \text{kept}} \rho(\hat d_i - \hat d^*_i), \qquad \rho(x) = |x| \text{ or } x^2

    ========================  =================  ===========  ========
    published as              ``align``          ``penalty``  ``trim``
    ========================  =================  ===========  ========
    MiDaS ssimse              ``least_squares``  ``l2``       0
    MiDaS simse (figure 3)    ``scale``          ``l2``       0
    MiDaS ssimae              ``median``         ``l1``       0
    MiDaS ssitrim             ``median``         ``l1``       0.2
    Depth Anything, eqs 1-3   ``median``         ``l1``       0, ``halved=False``
    ========================  =================  ===========  ========

    MiDaS' later released code takes its median over all pixels, with 0 where not valid; here, as in the paper, over valid ones.

    Args:
        pred: predicted disparity up to scale and shift, ``(B, 1, H, W)``.
        target: labelled disparity up to scale and shift, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        align: how the two maps are brought together, see ``align_pair``; None if they already are.
        penalty: rho, absolute or squared.
        trim: fraction of each image's largest residuals that is left out: floor((1 - trim) M) of its M valid pixels stay. The
            divisor remains 2M.
        halved: divide by 2M, as MiDaS does; else by M.
        require_positive_scale: let the least-squares fit never reward an inverted map, see ``align_pair``.

    Returns:
        Loss, ``(B,)``: [1] with medians, a power of the target's unit with least squares. 0 with gradient 0 for an image that
        has no valid pixel or whose label is constant.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
        RecipeError: unknown ``align`` or ``penalty``, or ``trim`` outside [0, 1).

    Example:
        >>> import torch
        >>> d = torch.rand(2, 1, 8, 8)
        >>> bool((ssi_loss(3 * d - 5, d, d >= 0, align="median") < 1e-6).all())
        True
    """
    check_map_pair(pred, target, valid)
    penalty = check_choice("penalty", penalty, Penalty)
    if not 0 <= trim < 1:
        raise RecipeError(f"expected trim, the fraction of residuals left out, in [0, 1); got {trim}.")
    residual, valid = aligned_residual(pred, target, valid, align=align, require_positive_scale=require_positive_scale)
    mean = masked_trimmed_mean(residual.abs() if penalty == Penalty.L1 else residual**2, valid, trim)
    return mean / 2 if halved else mean


class SSILoss(nn.Module):
    """``ssi_loss`` with its options; ``pred, target, valid`` in disparity, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.DISPARITY

    def __init__(
        self,
        *,
        align: Align | str | None = Align.LEAST_SQUARES,
        penalty: Penalty | str = Penalty.L1,
        trim: float = 0.0,
        halved: bool = True,
        require_positive_scale: bool = False,
    ) -> None:
        super().__init__()
        self.align = check_align(align, require_positive_scale=require_positive_scale)
        self.penalty, self.trim, self.halved = check_choice("penalty", penalty, Penalty), trim, halved
        self.require_positive_scale = require_positive_scale

    @property
    def accepts(self) -> frozenset[Ambiguity]:
        """What a label may leave undetermined."""
        dense = frozenset({Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE})
        return dense - {Ambiguity.SHIFT_SCALE} if self.align == Align.SCALE else dense

    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return ssi_loss(
            pred,
            target,
            valid,
            align=self.align,
            penalty=self.penalty,
            trim=self.trim,
            halved=self.halved,
            require_positive_scale=self.require_positive_scale,
        )
