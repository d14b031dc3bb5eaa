"""Draw the README's picture, photo to depth to point cloud: `python docs/pictures.py runs/quickstart/.../last.ckpt`."""

import sys
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from depthkit.inference import DepthPredictor
from depthkit.synthetic import SyntheticScenes

SCENES = (("room", 4, 11), ("street", 5, 40))
"""Kind, number, and how far to show [m]; of a seed that no recipe trains on."""


def draw(model: str, out: Path) -> None:
    """Draw rendered scenes that the network has not seen, what it predicts, and the points that follow."""
    predictor = DepthPredictor.from_pretrained(model)
    figure = plt.figure(figsize=(9, 4.4))
    for row, (kind, number, far) in enumerate(SCENES):
        sample = SyntheticScenes(number + 1, size=(192, 256), kind=kind, seed=77)[number]
        disparity = predictor(sample.image).map
        near = np.isfinite(sample.label) & (sample.label < far)
        rows = np.stack([disparity[near], np.ones(near.sum())], 1)
        scale, shift = np.linalg.lstsq(rows, 1 / sample.label[near], rcond=None)[0]  # what the labels leave open
        depth = 1 / np.maximum(scale * disparity + shift, 1 / far)
        axes = [figure.add_subplot(2, 3, 3 * row + 1), figure.add_subplot(2, 3, 3 * row + 2)]
        axes[0].imshow(sample.image)
        shown = axes[1].imshow(depth, cmap="magma_r", vmax=np.percentile(depth, 97))
        figure.colorbar(shown, ax=axes[1], label="depth [m]", fraction=0.036)
        for ax in axes:
            ax.axis("off")
        cloud = figure.add_subplot(2, 3, 3 * row + 3, projection="3d")
        v, u = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
        camera = sample.intrinsics
        x, y = (u - camera[0, 2]) / camera[0, 0] * depth, (v - camera[1, 2]) / camera[1, 1] * depth
        kept = depth < 0.7 * far
        cloud.scatter(x[kept], depth[kept], -y[kept], c=sample.image[kept] / 255, s=1.2, linewidths=0)
        cloud.set_box_aspect((np.ptp(x[kept]), np.ptp(depth[kept]), np.ptp(y[kept])), zoom=1.6)
        cloud.view_init(22, -62)
        cloud.set_axis_off()
    for ax, title in zip(figure.axes[:1] + figure.axes[1:2] + figure.axes[3:4], ("image", "depth", "point cloud"), strict=True):
        ax.set_title(title, fontsize=10)
    figure.subplots_adjust(0, 0.01, 1, 0.94, 0.06, 0.02)
    figure.savefig(drawn := BytesIO(), dpi=110)
    Image.open(drawn).convert("RGB").save(out, quality=88)


if __name__ == "__main__":
    draw(sys.argv[1], Path(__file__).parent / "images" / "first.webp")
