"""Pictures of what a trained network makes of photos: photo | depth | its points seen from the left, the right and above.

    python benchmarks/clouds.py last.ckpt photo.jpg other.jpg --out clouds.png --field-of-view 60

Pixels across an edge of depth are left out of the points (``--max-edge``). A network that leaves a shift of disparity open has
no points.
"""

import argparse
from pathlib import Path

import numpy as np
from _command import parsed, temporary_folder

from depthkit.evaluation import picture_strip
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference import DepthPredictor, Prediction
from depthkit.models import lrn_mobilenetv2
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity
from depthkit.writing import png_bytes

VIEWS = {"left": (0.0, 30.0), "right": (0.0, -30.0), "above": (30.0, 0.0)}
"""Elevation and azimuth of the other cameras about the middle of the points [degrees]."""


def view(points: np.ndarray, colours: np.ndarray, camera: np.ndarray, size: tuple[int, int], way: str) -> np.ndarray:
    """The points ``(N, 3)`` as a camera turned about their middle sees them, uint8 ``(H, W, 3)`` on white; near hides far."""
    elevation, azimuth = np.deg2rad(VIEWS[way])
    up, across = np.eye(3), np.eye(3)
    up[1:, 1:] = [[np.cos(elevation), -np.sin(elevation)], [np.sin(elevation), np.cos(elevation)]]
    across[::2, ::2] = [[np.cos(azimuth), -np.sin(azimuth)], [np.sin(azimuth), np.cos(azimuth)]]
    middle = np.median(points, 0)
    turned = (points - middle) @ (up @ across).T + middle
    turned, colours = turned[turned[:, 2] > 0], colours[turned[:, 2] > 0]
    order = np.argsort(-turned[:, 2])
    column, row, _ = np.rint((turned @ camera.T / turned[:, 2:])[order].T).astype(int)
    picture = np.full((*size, 3), 255, np.uint8)
    for down in (0, 1):  # a point is two pixels wide and high, for points spread where the view is oblique
        for right in (0, 1):
            inside = (row + down >= 0) & (row + down < size[0]) & (column + right >= 0) & (column + right < size[1])
            picture[row[inside] + down, column[inside] + right] = colours[order][inside]
    return picture


def pictures(prediction: Prediction, field_of_view: float, max_edge: float) -> list[np.ndarray]:
    """Photo, depth and views of one prediction."""
    size = prediction.map.shape
    camera = intrinsics_from_field_of_view(size, field_of_view)
    points, colours = prediction.to_point_cloud(camera, max_edge=max_edge)
    return [prediction.image, prediction.colour(), *(view(points, colours, camera, size, way) for way in VIEWS)]


def main() -> None:
    """Predict and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="default: an untrained network")
    parser.add_argument("photos", type=Path, nargs="*", help="default: a rendered room")
    parser.add_argument("--out", type=Path, default=Path("clouds.png"))
    parser.add_argument("--field-of-view", type=float, default=60.0, help="from left to right [degrees] (default %(default)s)")
    parser.add_argument("--max-edge", type=float, default=1.1, help="ratio of neighbouring depths (default %(default)s)")
    parser.add_argument("--height", type=int, default=192, help="of each picture [px] (default %(default)s)")
    options = parsed(parser, out=temporary_folder() / "clouds.png", height=48)
    if options.checkpoint:
        predictor = DepthPredictor.from_pretrained(options.checkpoint)
    else:
        predictor = DepthPredictor(lrn_mobilenetv2(pretrained=False), ambiguity=Ambiguity.SCALE)
    photos = options.photos or [SyntheticScenes(1, size=(120, 160), kind="room")[0].image]
    rows = [pictures(prediction, options.field_of_view, options.max_edge) for prediction in predictor(photos)]
    options.out.write_bytes(png_bytes(picture_strip(rows, height=options.height)))


if __name__ == "__main__":
    main()
