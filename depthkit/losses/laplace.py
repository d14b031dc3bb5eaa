"""The likelihood of a depth whose uncertainty the network predicts beside it."""

from torch import Tensor, nn

from depthkit.checks import check_map_pair
from depthkit.masked import masked_mean
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


@in_float32
def laplace_nll_loss(log_pred: Tensor, log_target: Tensor, valid: Tensor, log_scale: Tensor) -> Tensor:
    r"""Negative log-likelihood of ln depth under a Laplace distribution, up to ln 2, one value per image.

    .. math:: L = \overline{|\ln d - \ln d^*|\, e^{-s} + s}, \qquad s = \ln b

    (Kendall & Gal 2017, with the Laplace distribution). Its least value in s is where b is the mean absolute error of ln depth,
    about the mean relative error of depth. It may be negative.

    Args:
        log_pred: predicted ln depth, ``(B, 1, H, W)``.
        log_target: labelled ln depth, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        log_scale: predicted s, ``(B, 1, H, W)``.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image with no valid pixel.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
    """
    check_map_pair(log_pred, log_target, valid)
    check_map_pair(log_pred, log_scale, valid)
    error = (log_pred.where(valid, 0) - log_target.where(valid, 0)).abs()
    s = log_scale.where(valid, 0)
    return masked_mean(error * (-s).exp() + s, valid)


class LaplaceNLLLoss(nn.Module):
    """``laplace_nll_loss`` as a module; ``log_pred, log_target, valid, log_scale``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.LOG_DEPTH
    accepts = frozenset({Ambiguity.METRIC})

    def forward(self, log_pred: Tensor, log_target: Tensor, valid: Tensor, log_scale: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return laplace_nll_loss(log_pred, log_target, valid, log_scale)
