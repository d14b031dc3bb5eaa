"""Surface normals of a depth map."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from depthkit.checks import check_intrinsics, check_map, check_valid
from depthkit.precision import in_float32


@in_float32
def depth_to_normals(depth: Tensor, intrinsics: Tensor, valid: Tensor | None = None) -> Tensor:
    r"""Compute unit normals that face the camera, exact on planes.

    On a plane :math:`n \cdot X = d` the disparity is linear in the pixel p, :math:`1/z = (K^{-T} n / d) \cdot p`. So the
    first-order expansion of disparity around a pixel is the plane that touches the surface there, with no point differences.

    Args:
        depth: depth [m], ``(B, 1, H, W)``; any value where not valid.
        intrinsics: ``(B, 3, 3)`` [px].
        valid: bool, ``(B, 1, H, W)``; finite positive depth by default.

    Returns:
        ``(B, 3, H, W)``, camera axes. A derivative is the mean of the differences to the valid ones of the two neighbours.
        The vector is 0, with gradient 0, at an invalid pixel and where both neighbours in its row or column are invalid.

    Example:
        >>> depth_to_normals(torch.full((1, 1, 3, 3), 2.0), torch.eye(3)[None])[0, 2]
        tensor([[-1., -1., -1.],
                [-1., -1., -1.],
                [-1., -1., -1.]])
    """
    check_map("depth", depth)
    check_intrinsics(intrinsics, len(depth))
    intrinsics = intrinsics.to(depth.dtype)
    usable = depth.isfinite() & (depth > 0)
    if valid is not None:
        check_valid(valid, depth)
        usable = usable & valid
    disparity = 1 / depth.where(usable, 1)
    along_row, has_row = _derivative(disparity, usable, dim=3)
    along_column, has_column = _derivative(disparity, usable, dim=2)
    row = torch.arange(depth.shape[2], dtype=depth.dtype, device=depth.device)[:, None]
    column = torch.arange(depth.shape[3], dtype=depth.dtype, device=depth.device)
    plane = torch.cat([along_row, along_column, disparity - column * along_row - row * along_column], 1)
    defined = usable & has_row & has_column
    towards_camera = -torch.einsum("bji,bjhw->bihw", intrinsics, plane.where(defined, 0))
    return normalize(towards_camera, dim=1, eps=torch.finfo(depth.dtype).tiny)


def _derivative(x: Tensor, usable: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Average the forward and the backward difference where both pixels are usable; return the mean and where it exists."""
    step = x.diff(dim=dim)
    both = usable.narrow(dim, 1, step.shape[dim]) & usable.narrow(dim, 0, step.shape[dim])
    step = step.where(both, 0)
    edge, no_edge = torch.zeros_like(x.narrow(dim, 0, 1)), torch.zeros_like(usable.narrow(dim, 0, 1))
    total = torch.cat([step, edge], dim) + torch.cat([edge, step], dim)
    count = torch.cat([both, no_edge], dim).int() + torch.cat([no_edge, both], dim).int()
    return total / count.clamp_min(1), count > 0
