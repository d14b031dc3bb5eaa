"""Every loss as a function: three ``(B, 1, H, W)`` tensors in, ``(B,)`` out."""

from depthkit.losses.align import align_pair
from depthkit.losses.gradient_matching import gradient_matching_loss
from depthkit.losses.pairwise import pairwise_l1_si_loss, pairwise_l1_ssi_loss, pairwise_l2_si_loss
from depthkit.losses.pointwise import pointwise_loss
from depthkit.losses.ranking import ranking_loss
from depthkit.losses.silog import silog_loss
from depthkit.losses.ssi import ssi_loss

__all__ = [
    "align_pair",
    "gradient_matching_loss",
    "pairwise_l1_si_loss",
    "pairwise_l1_ssi_loss",
    "pairwise_l2_si_loss",
    "pointwise_loss",
    "ranking_loss",
    "silog_loss",
    "ssi_loss",
]
