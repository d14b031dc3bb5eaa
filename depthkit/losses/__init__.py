"""Losses per image: modules that hold options; the functions they call are in ``depthkit.losses.functional``.

Each module that reads a label says how: ``representation``, in which prediction and label are compared, and ``accepts``, what
a label may leave undetermined. Those that learn without labels read images or features.
"""

from depthkit.losses.consistency import DepthConsistencyLoss
from depthkit.losses.feature_alignment import FeatureAlignmentLoss
from depthkit.losses.gradient_matching import GradientMatchingLoss
from depthkit.losses.laplace import LaplaceNLLLoss
from depthkit.losses.normalised_gradient import NormalisedGradientLoss
from depthkit.losses.pairwise import PairwiseL1SILoss, PairwiseL1SSILoss, PairwiseL2SILoss
from depthkit.losses.photometric import FeatureL1Error, PhotometricError
from depthkit.losses.pointwise import PointwiseLoss
from depthkit.losses.ranking import OrdinalLoss, RankingLoss
from depthkit.losses.reprojection import MinReprojectionLoss
from depthkit.losses.silog import SILogLoss
from depthkit.losses.smoothness import EdgeAwareSmoothnessLoss
from depthkit.losses.ssi import SSILoss

__all__ = [
    "DepthConsistencyLoss",
    "EdgeAwareSmoothnessLoss",
    "FeatureAlignmentLoss",
    "FeatureL1Error",
    "GradientMatchingLoss",
    "LaplaceNLLLoss",
    "MinReprojectionLoss",
    "NormalisedGradientLoss",
    "OrdinalLoss",
    "PairwiseL1SILoss",
    "PairwiseL1SSILoss",
    "PairwiseL2SILoss",
    "PhotometricError",
    "PointwiseLoss",
    "RankingLoss",
    "SILogLoss",
    "SSILoss",
]
