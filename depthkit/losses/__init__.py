"""Losses per image: modules that hold options; the functions they call are in ``depthkit.losses.functional``.

Each module says what it reads: ``representation``, in which prediction and label are compared, and ``accepts``, what a
label may leave undetermined.
"""

from depthkit.losses.gradient_matching import GradientMatchingLoss
from depthkit.losses.pairwise import PairwiseL1SILoss, PairwiseL1SSILoss, PairwiseL2SILoss
from depthkit.losses.pointwise import PointwiseLoss
from depthkit.losses.ranking import RankingLoss
from depthkit.losses.silog import SILogLoss
from depthkit.losses.ssi import SSILoss

__all__ = [
    "GradientMatchingLoss",
    "PairwiseL1SILoss",
    "PairwiseL1SSILoss",
    "PairwiseL2SILoss",
    "PointwiseLoss",
    "RankingLoss",
    "SILogLoss",
    "SSILoss",
]
