"""Depth networks: encoder, decoder and head, and the named architectures of the papers.

>>> model = midas_timm("mobilenetv2_035", pretrained=False, features=8)
>>> model.representation.value, model.size_multiple
('disparity', 32)
"""

from depthkit.models.build import architecture, build
from depthkit.models.diffusion.build import latent_diffusion, latent_diffusion_of, latent_diffusion_tiny
from depthkit.models.diffusion.depth_codecs import AffineDepth, DepthCodec, LinearDepth, LogDepth, codec_of, valid_latents
from depthkit.models.diffusion.latent_diffusion import LatentDiffusionDepth
from depthkit.models.diffusion.noise_schedule import NoiseSchedule
from depthkit.models.diffusion.sampling import Sampling
from depthkit.models.encoders.timm_encoder import TimmEncoder
from depthkit.models.encoders.tokens import TokenEncoder
from depthkit.models.encoders.vgg import vgg16_relu1_1
from depthkit.models.encoders.vit import ViTEncoder
from depthkit.models.net import DepthNet
from depthkit.models.networks.calibrated import CalibratedHead, calibrated
from depthkit.models.networks.dpt import (
    DPTDecoder,
    DPTHead,
    SigmoidDepthHead,
    dpt_dinov2_base,
    dpt_dinov2_large,
    dpt_dinov2_small,
    dpt_timm,
)
from depthkit.models.networks.flip import FlipAverage, flip_averaged
from depthkit.models.networks.heads import LogDisparityHead, LogScale, MidasHead
from depthkit.models.networks.midas import MidasDecoder, midas_resnext101, midas_small, midas_timm
from depthkit.models.networks.monodepth2 import (
    Monodepth2Decoder,
    Monodepth2Head,
    Monodepth2Net,
    PredictiveMask,
    monodepth2_resnet18,
    monodepth2_resnet50,
    monodepth2_timm,
)
from depthkit.models.networks.redweb import RedWebDecoder, RedWebHead, redweb_resnet50
from depthkit.models.networks.refinenet_light import (
    LightRefineNetDecoder,
    lrn_efficientnet_b0,
    lrn_efficientnet_b1,
    lrn_efficientnet_b2,
    lrn_efficientnet_b3,
    lrn_efficientnet_b4,
    lrn_efficientnet_b5,
    lrn_efficientnet_lite0,
    lrn_mobilenetv2,
    lrn_timm,
)
from depthkit.models.networks.zoedepth import BinsHead, ZoeDepthNet, zoedepth
from depthkit.models.pose.camera import LearnedCamera
from depthkit.models.pose.interface import EgoMotion, PosePredictor
from depthkit.models.pose.networks import (
    PoseCNN,
    PoseNet,
    SharedPoseNet,
    pose_cnn,
    pose_resnet18,
    pose_shared,
    pose_timm,
)
from depthkit.models.uncertainty.heteroscedastic import heteroscedastic
from depthkit.models.uncertainty.uncertain import (
    DepthEnsemble,
    FlipUncertainty,
    UncertainDepth,
    Uncertainty,
    uncertain,
)
from depthkit.models.weights.checkpoint import read_checkpoint, read_pose_net, save_network
from depthkit.models.weights.convert import load_published
from depthkit.models.weights.encoder_export import encoder_state_dict, export_encoder
from depthkit.models.weights.files import read_weights
from depthkit.models.weights.published import PUBLISHED, PublishedNetwork
from depthkit.models.weights.registry import from_pretrained, pose_from_pretrained, published

__all__ = [
    "PUBLISHED",
    "AffineDepth",
    "BinsHead",
    "CalibratedHead",
    "DPTDecoder",
    "DPTHead",
    "DepthCodec",
    "DepthEnsemble",
    "DepthNet",
    "EgoMotion",
    "FlipAverage",
    "FlipUncertainty",
    "LatentDiffusionDepth",
    "LearnedCamera",
    "LightRefineNetDecoder",
    "LinearDepth",
    "LogDepth",
    "LogDisparityHead",
    "LogScale",
    "MidasDecoder",
    "MidasHead",
    "Monodepth2Decoder",
    "Monodepth2Head",
    "Monodepth2Net",
    "NoiseSchedule",
    "PoseCNN",
    "PoseNet",
    "PosePredictor",
    "PredictiveMask",
    "PublishedNetwork",
    "RedWebDecoder",
    "RedWebHead",
    "Sampling",
    "SharedPoseNet",
    "SigmoidDepthHead",
    "TimmEncoder",
    "TokenEncoder",
    "UncertainDepth",
    "Uncertainty",
    "ViTEncoder",
    "ZoeDepthNet",
    "architecture",
    "build",
    "calibrated",
    "codec_of",
    "dpt_dinov2_base",
    "dpt_dinov2_large",
    "dpt_dinov2_small",
    "dpt_timm",
    "encoder_state_dict",
    "export_encoder",
    "flip_averaged",
    "from_pretrained",
    "heteroscedastic",
    "latent_diffusion",
    "latent_diffusion_of",
    "latent_diffusion_tiny",
    "load_published",
    "lrn_efficientnet_b0",
    "lrn_efficientnet_b1",
    "lrn_efficientnet_b2",
    "lrn_efficientnet_b3",
    "lrn_efficientnet_b4",
    "lrn_efficientnet_b5",
    "lrn_efficientnet_lite0",
    "lrn_mobilenetv2",
    "lrn_timm",
    "midas_resnext101",
    "midas_small",
    "midas_timm",
    "monodepth2_resnet18",
    "monodepth2_resnet50",
    "monodepth2_timm",
    "pose_cnn",
    "pose_from_pretrained",
    "pose_resnet18",
    "pose_shared",
    "pose_timm",
    "published",
    "read_checkpoint",
    "read_pose_net",
    "read_weights",
    "redweb_resnet50",
    "save_network",
    "uncertain",
    "valid_latents",
    "vgg16_relu1_1",
    "zoedepth",
]
