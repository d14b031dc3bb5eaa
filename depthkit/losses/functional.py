"""Every loss as a function, ``(B,)`` out, and what losses are made of. Losses on labels take three ``(B, 1, H, W)`` tensors."""

from depthkit.losses.consistency import depth_consistency_loss
from depthkit.losses.feature_alignment import feature_alignment_loss
from depthkit.losses.gradient_matching import gradient_matching_loss
from depthkit.losses.laplace import laplace_nll_loss
from depthkit.losses.normalised_gradient import normalised_gradient_loss
from depthkit.losses.pairwise import pairwise_l1_si_loss, pairwise_l1_ssi_loss, pairwise_l2_si_loss
from depthkit.losses.photometric import feature_l1_error, photometric_error
from depthkit.losses.pointwise import pointwise_loss
from depthkit.losses.ranking import drawn_pairs, ordinal_loss, ranking_loss
from depthkit.losses.reprojection import Reprojection, min_reprojection, min_reprojection_loss, source_errors
from depthkit.losses.silog import silog_loss
from depthkit.losses.smoothness import edge_aware_smoothness_loss
from depthkit.losses.ssi import ssi_loss

__all__ = [
    "Reprojection",
    "depth_consistency_loss",
    "drawn_pairs",
    "edge_aware_smoothness_loss",
    "feature_alignment_loss",
    "feature_l1_error",
    "gradient_matching_loss",
    "laplace_nll_loss",
    "min_reprojection",
    "min_reprojection_loss",
    "normalised_gradient_loss",
    "ordinal_loss",
    "pairwise_l1_si_loss",
    "pairwise_l1_ssi_loss",
    "pairwise_l2_si_loss",
    "photometric_error",
    "pointwise_loss",
    "ranking_loss",
    "silog_loss",
    "source_errors",
    "ssi_loss",
]
