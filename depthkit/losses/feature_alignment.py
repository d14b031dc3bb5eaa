"""Keep an encoder's features near those of the frozen one it started from."""

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from depthkit.checks import check_choice
from depthkit.errors import ShapeError
from depthkit.masked import masked_count, masked_mean
from depthkit.precision import in_float32


class Divisor(StrEnum):
    """Number of places that the sum is divided by: those that are pulled, or all."""

    KEPT = "kept"
    ALL = "all"


@in_float32
def feature_alignment_loss(
    features: Tensor, frozen: Tensor, *, margin: float = 0.85, divisor: Divisor | str = Divisor.KEPT
) -> Tensor:
    r"""Feature alignment of Depth Anything (Yang et al. 2024), eq. 9, one value per image.

    .. math:: L = \frac{1}{|K|} \sum_{i \in K} 1 - \cos(f_i, f'_i), \qquad K = \{i : \cos(f_i, f'_i) \le \alpha\}

    Places whose features agree better than the margin are left alone, so that depth may tell apart what semantics does not.

    Args:
        features: the trained encoder's, ``(B, C, h, w)`` or ``(B, N, C)``.
        frozen: the frozen encoder's, of the same shape; gets no gradient.
        margin: alpha, a cosine.
        divisor: ``"kept"`` divides by the number of places within K; ``"all"`` by that of all places, as eq. 9 prints.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image all of whose places agree.

    Raises:
        ShapeError: the features are not of one such shape.
        RecipeError: unknown ``divisor``.

    Example:
        >>> f = torch.randn(2, 5, 8)
        >>> feature_alignment_loss(3 * f, f)
        tensor([0., 0.])
    """
    if features.shape != frozen.shape or features.ndim not in (3, 4):
        raise ShapeError(
            f"expected features of one shape, (B, C, h, w) or (B, N, C); got {tuple(features.shape)} and "
            f"{tuple(frozen.shape)}. Freeze an encoder of the same architecture."
        )
    divisor = check_choice("divisor", divisor, Divisor)
    cosine = cosine_similarity(features, frozen.detach(), dim=1 if features.ndim == 4 else 2)
    kept = ~(cosine > margin)  # a NaN stays in, to be seen
    return masked_mean(1 - cosine, kept, count=None if divisor == Divisor.KEPT else masked_count(torch.ones_like(kept)))


class FeatureAlignmentLoss(nn.Module):
    """``feature_alignment_loss`` with its options; ``features, frozen`` of one shape to ``(B,)``."""

    def __init__(self, *, margin: float = 0.85, divisor: Divisor | str = Divisor.KEPT) -> None:
        super().__init__()
        self.margin, self.divisor = margin, check_choice("divisor", divisor, Divisor)

    def forward(self, features: Tensor, frozen: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return feature_alignment_loss(features, frozen, margin=self.margin, divisor=self.divisor)
