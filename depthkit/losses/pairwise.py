"""Losses over all pairs of pixels, of GP2 ("geometry-preserving" depth, Romanov et al. 2020)."""

from torch import Tensor, nn

from depthkit.alignment.centring import Pixels, about_mean
from depthkit.checks import check_map_pair
from depthkit.masked import masked_mean_difference, masked_variance, per_image
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


@in_float32
def pairwise_l1_si_loss(log_pred: Tensor, log_target: Tensor, valid: Tensor) -> Tensor:
    r"""Scale-invariant pairwise L1 loss of Romanov et al. (2020), eqs 1-2, one value per image, in O(N log N).

    .. math:: L = \frac{1}{N^2} \sum_{i,j} |R_i - R_j|, \qquad R = \ln d - \ln d^*

    Args:
        log_pred: predicted log-depth or log-disparity, ``(B, 1, H, W)``.
        log_target: label in the same representation, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image with no valid pixel. A pixel's gradient is at most 2/N.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 1, 8, 8)
        >>> bool((pairwise_l1_si_loss(x + 3, x, x >= 0) < 1e-6).all())
        True
    """
    check_map_pair(log_pred, log_target, valid)
    return masked_mean_difference(log_pred - log_target, valid)


@in_float32
def pairwise_l1_ssi_loss(disparity: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    r"""Scale-and-shift-invariant pairwise L1 loss of Romanov et al. (2020), one value per image, in O(N log N).

    .. math:: L = \frac{1}{N^2} \sum_{i,j} |Q_i - Q_j|, \qquad Q = D / \sigma(D) - D^* / \sigma(D^*)

    The standard deviation runs over the image's valid pixels with divisor N - 1 (the paper prints it without its root,
    which would not be scale invariant). A network that predicts log-disparity p should pass ``exp(p - max(p))``: the value
    is the same and cannot overflow.

    Args:
        disparity: predicted disparity up to scale and shift, ``(B, 1, H, W)``.
        target: labelled disparity up to scale and shift, may be negative, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image that has no valid pixel or whose label is constant. An inverted map
        is penalised.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.

    Example:
        >>> import torch
        >>> d = torch.rand(2, 1, 8, 8)
        >>> bool((pairwise_l1_ssi_loss(3 * d - 5, d, d >= 0) < 1e-5).all())
        True
    """
    check_map_pair(disparity, target, valid)
    pixels = Pixels.of(valid, disparity)
    x, y = (about_mean(each.where(valid, 0), pixels, correction=1) for each in (disparity, target))
    return masked_mean_difference(x.over_spread() - y.over_spread(), valid & per_image(y.varies, valid))


@in_float32
def pairwise_l2_si_loss(log_pred: Tensor, log_target: Tensor, valid: Tensor) -> Tensor:
    r"""Scale-invariant L2 loss of Eigen et al. (2014), Romanov et al. (2020) eq. 18, one value per image.

    .. math:: L = \overline{R^2} - \bar R^2 = \frac{1}{2 N^2} \sum_{i,j} (R_i - R_j)^2, \qquad R = \ln d - \ln d^*

    Half the mean square over all pairs is the variance, so this is ``pointwise_loss(norm="l2", scale_invariant=True)`` by
    its other name.

    Args:
        log_pred: predicted log-depth or log-disparity, ``(B, 1, H, W)``.
        log_target: label in the same representation, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image with no valid pixel.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
    """
    check_map_pair(log_pred, log_target, valid)
    return masked_variance(log_pred - log_target, valid)


class PairwiseL1SILoss(nn.Module):
    """``pairwise_l1_si_loss``; ``log_pred, log_target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.LOG_DISPARITY
    accepts = frozenset({Ambiguity.METRIC, Ambiguity.SCALE})

    def forward(self, log_pred: Tensor, log_target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return pairwise_l1_si_loss(log_pred, log_target, valid)


class PairwiseL1SSILoss(nn.Module):
    """``pairwise_l1_ssi_loss``; ``disparity, target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.DISPARITY
    accepts = frozenset({Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE})

    def forward(self, disparity: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return pairwise_l1_ssi_loss(disparity, target, valid)


class PairwiseL2SILoss(nn.Module):
    """``pairwise_l2_si_loss``; ``log_pred, log_target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.LOG_DISPARITY
    accepts = frozenset({Ambiguity.METRIC, Ambiguity.SCALE})

    def forward(self, log_pred: Tensor, log_target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return pairwise_l2_si_loss(log_pred, log_target, valid)
