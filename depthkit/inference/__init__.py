"""Prediction of depth on any image, and predictions as files and point clouds."""

from depthkit.images import find_images, read_image
from depthkit.inference.clouds import write_point_cloud
from depthkit.inference.diffusion import DiffusionDepth, diffuse
from depthkit.inference.export import export_program
from depthkit.inference.film.stabilise import Stabiliser
from depthkit.inference.prediction import Prediction, load_prediction
from depthkit.inference.predictor import DepthPredictor
from depthkit.models import read_checkpoint

__all__ = [
    "DepthPredictor",
    "DiffusionDepth",
    "Prediction",
    "Stabiliser",
    "diffuse",
    "export_program",
    "find_images",
    "load_prediction",
    "read_checkpoint",
    "read_image",
    "write_point_cloud",
]
