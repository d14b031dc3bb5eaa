"""A camera that is learned along with depth and motion, for videos whose camera nobody knows."""

import torch
from torch import Tensor, nn

from depthkit.devices import sent


class LearnedCamera(nn.Module):
    """One pinhole camera per dataset, in units of the image's size, so that it fits every resolution.

    Reprojection of a moving camera determines it (Gordon et al. 2019, "Depth from Videos in the Wild"); it needs views that
    turn, not only advance. The principal point starts in the middle.

    Args:
        datasets: how many cameras, one for each position in ``Batch.dataset``.
        focal_length: where fx starts, in widths of the image; fy is the same in pixels of square shape.
        aspect: height / width of the images before any resizing that squeezes them.
    """

    def __init__(self, datasets: int = 1, *, focal_length: float = 1.0, aspect: float = 1.0) -> None:
        super().__init__()
        start = torch.tensor([focal_length, focal_length / aspect]).log()
        self.log_focal = nn.Parameter(start.repeat(datasets, 1))
        self.offset = nn.Parameter(torch.zeros(datasets, 2))

    def forward(self, dataset: Tensor, size: tuple[int, int]) -> Tensor:
        """Give intrinsics, ``(B, 3, 3)`` [px], for images of ``size`` (height, width) of these datasets, int64 ``(B,)``."""
        height, width = size
        extent = sent(self.offset.new_tensor([width, height], device="cpu"), self.offset.device)
        focal = self.log_focal[dataset].exp() * extent
        centre = (extent - 1) / 2 + self.offset[dataset] * extent
        camera = torch.diag_embed(torch.cat([focal, torch.ones_like(focal[:, :1])], 1))
        return camera + torch.nn.functional.pad(centre[:, :, None], (2, 0, 0, 1))
