"""Paradigms: one LightningModule per published method of training."""

from depthkit.paradigms.affine_invariant import AffineInvariantModule
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.diffusion import DiffusionModule
from depthkit.paradigms.diffusion_end_to_end import EndToEndDiffusionModule
from depthkit.paradigms.geometry_preserving import GeometryPreservingModule
from depthkit.paradigms.metric import MetricModule
from depthkit.paradigms.optim.one_cycle import OneCycle
from depthkit.paradigms.optim.optimizers import LookaheadRAdam
from depthkit.paradigms.optim.schedules import CosineDecay, ExponentialDecay, LinearDecay, Schedule, StepDecay
from depthkit.paradigms.self_supervised_video import SelfSupervisedVideoModule
from depthkit.paradigms.semi_supervised import SemiSupervisedModule
from depthkit.paradigms.terms.combination import Combination, EqualWeights, MinNorm, SumOfTerms
from depthkit.paradigms.terms.cutmix import CutMix
from depthkit.paradigms.terms.multires_noise import MultiResolutionNoise
from depthkit.paradigms.terms.pareto import pareto_weights
from depthkit.paradigms.terms.term import Term
from depthkit.paradigms.vae_decoder import VAEDecoderModule

__all__ = [
    "AffineInvariantModule",
    "Combination",
    "CosineDecay",
    "CutMix",
    "DepthModule",
    "DiffusionModule",
    "EndToEndDiffusionModule",
    "EqualWeights",
    "ExponentialDecay",
    "GeometryPreservingModule",
    "LinearDecay",
    "LookaheadRAdam",
    "MetricModule",
    "MinNorm",
    "MultiResolutionNoise",
    "OneCycle",
    "Schedule",
    "SelfSupervisedVideoModule",
    "SemiSupervisedModule",
    "StepDecay",
    "SumOfTerms",
    "Term",
    "VAEDecoderModule",
    "pareto_weights",
]
