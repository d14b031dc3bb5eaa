"""Planes: do the flat faces of the scene stay flat, and stand as they do, when the predicted depth is lifted to points."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.checks import check_map, check_map_pair, check_valid
from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import unproject
from depthkit.metrics.formula import Formula
from depthkit.metrics.metric import AlignedMetric, Caps, FormulaMetric, Reduction
from depthkit.precision import in_float32

_FEWEST = 4  # three points lie in a plane whatever the depth


class _Fit(NamedTuple):
    """Total-least-squares planes of G groups of points."""

    normal: Tensor
    """Unit, either way, ``(G, 3)``."""
    flatness: Tensor
    """RMS distance from the plane over RMS distance from the mean, ``(G,)``."""


class _Faces(NamedTuple):
    """The labelled planes of a batch: its pixels that show one, and which."""

    on: Tensor
    """bool ``(B, 1, H, W)``, N of them True."""
    group: Tensor
    """The plane that each of these pixels shows, ``(N,)``."""
    size: Tensor
    """Pixels of each plane, ``(G,)``."""
    image: Tensor
    """The image that each plane is in, ``(G,)``."""

    @classmethod
    def find(cls, planes: Tensor, valid: Tensor) -> Self:
        on = valid & (planes > 0)
        stride = planes.max().long() + 1 if planes.numel() else 1
        keys = planes.long() + stride * torch.arange(len(planes), device=planes.device).view(-1, 1, 1, 1)
        found, group, size = keys[on].unique(return_inverse=True, return_counts=True)
        return cls(on, group, size, found // stride)

    def fit(self, depth: Tensor, intrinsics: Tensor) -> _Fit:
        """NaN for a plane on which a depth is not finite and positive."""
        z = depth.where(self.on, 1).double()
        points = unproject(z.where(z.isfinite() & (z > 0), torch.nan), intrinsics.double()).movedim(1, -1)[self.on[:, 0]]
        centred = points - (self._total(points) / self.size[:, None])[self.group]
        scatter = self._total(centred[:, :, None] * centred[:, None, :])
        known = scatter.isfinite().all(2).all(1)
        values, vectors = torch.linalg.eigh(scatter.where(known[:, None, None], torch.eye(3).to(scatter)))
        flatness = (values[:, 0].clamp_min(0) / values.sum(1)).sqrt()
        return _Fit(vectors[:, :, 0].where(known[:, None], torch.nan), flatness.where(known, torch.nan))

    def sums(self, value: Tensor, min_share: float) -> tuple[Tensor, Tensor]:
        """Sum over the planes of each image that are large enough, ``(B, 1)``, and their number, ``(B,)``."""
        batch, _, height, width = self.on.shape
        large = self.size >= max(_FEWEST, min_share * height * width)
        total = value.new_zeros(batch).index_add(0, self.image[large], value[large])
        return total[:, None], self.image[large].bincount(minlength=batch)

    def _total(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(self.size), *x.shape[1:]).index_add(0, self.group, x)


@dataclass(frozen=True)
class _PlaneFormula(Formula):
    """The mean over the planes of an image."""

    min_share: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1:
            raise RecipeError(f"expected min_share in [0, 1], the share of the image a plane must cover; got {self.min_share}.")

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Compute the mean."""
        return sums[..., 0] / count


@dataclass(frozen=True)
class PlanarityErrorFormula(_PlaneFormula):
    """Mean over planes of their points' RMS distance from the plane that fits them, over their RMS spread."""

    @in_float32
    def sums(self, pred: Tensor, planes: Tensor, valid: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the planes of each image, and their number."""
        check_map("pred", pred)
        check_valid(valid, pred)
        _check_planes(planes, pred)
        faces = _Faces.find(planes, valid)
        return faces.sums(faces.fit(pred, intrinsics).flatness, self.min_share)


@dataclass(frozen=True)
class PlaneOrientationErrorFormula(_PlaneFormula):
    """Mean over planes of the angle between the plane fitted to the prediction and that fitted to the label."""

    @in_float32
    def sums(self, pred: Tensor, target: Tensor, valid: Tensor, planes: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the planes of each image, and their number."""
        check_map_pair(pred, target, valid)
        _check_planes(planes, pred)
        faces = _Faces.find(planes, valid)
        a, b = (faces.fit(depth, intrinsics).normal for depth in (pred, target))
        angle = torch.atan2(torch.linalg.cross(a, b).norm(dim=1), (a * b).sum(1).abs())
        return faces.sums(angle.rad2deg(), self.min_share)


def _check_planes(planes: Tensor, pred: Tensor) -> None:
    if planes.shape != pred.shape or planes.is_floating_point() or planes.dtype == torch.bool:
        raise ShapeError(
            f"expected planes as integers of shape {tuple(pred.shape)}, 0 for none; "
            f"got {planes.dtype} of shape {tuple(planes.shape)}."
        )


def planarity_error(pred: Tensor, planes: Tensor, valid: Tensor, intrinsics: Tensor, *, min_share: float = 0.01) -> Tensor:
    r"""How far labelled planes are from flat in the predicted point cloud, per image [1], lower is better.

    The points of every plane are lifted from the predicted depth, a plane is fitted to them by total least squares, and the
    RMS distance from it is divided by the RMS distance from the points' mean:

    .. math:: e = \sqrt{\lambda_1 / (\lambda_1 + \lambda_2 + \lambda_3)} \in [0, 1/\sqrt 3]

    with :math:`\lambda_1` the smallest eigenvalue of their scatter. It is the planarity error of iBims-1 (Koch et al. 2018)
    made free of scale, so a prediction up to scale needs neither an alignment nor labelled depth.

    A wrong offset of disparity does **not** show here: disparity is linear in the pixel on every plane, with or without an
    offset, so planes stay planes and only turn; ``plane_orientation_error`` sees that. A constant depth is flat, too.

    Args:
        pred: predicted depth [m, or up to a factor], ``(B, 1, H, W)``; where it is not finite and positive on a plane
            that is scored, the image's result is NaN.
        planes: which plane a pixel shows, integer ``(B, 1, H, W)``; 0 or less: none. Numbers are per image.
        valid: pixels that may be read, bool ``(B, 1, H, W)``. Leave out the rims of planes to judge flatness alone: there
            blurred depth leaves the plane.
        intrinsics: ``(B, 3, 3)`` [px].
        min_share: planes on a smaller share of the image's pixels are not scored, nor are those on fewer than four pixels.

    Returns:
        Mean over the planes of an image, float64 ``(B,)``; NaN for an image without one.

    Raises:
        ShapeError: shapes do not fit together, or planes are no integers.
        GeometryError: unknown intrinsics.
        RecipeError: ``min_share`` outside [0, 1].

    Example:
        >>> row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        >>> disparity = (0.02 * row - 0.01 * column + 0.5)[None, None]
        >>> planes, camera = torch.ones(1, 1, 8, 8, dtype=torch.int64), torch.diag(torch.tensor([8.0, 8, 1]))[None]
        >>> [bool(planarity_error(1 / d, planes, planes > 0, camera) < 1e-6) for d in (disparity, disparity + 0.3)]
        [True, True]
        >>> bool(planarity_error(1 / disparity**2, planes, planes > 0, camera) > 0.01)
        True
    """
    return PlanarityErrorFormula(min_share)(pred, planes, valid, intrinsics)


def plane_orientation_error(
    pred: Tensor, target: Tensor, valid: Tensor, planes: Tensor, intrinsics: Tensor, *, min_share: float = 0.01
) -> Tensor:
    r"""By how much labelled planes are turned in the predicted point cloud, per image [degrees], lower is better.

    The angle between the total-least-squares planes of the predicted and of the labelled points: iBims-1's orientation error
    (Koch et al. 2018). A factor on either depth changes nothing. A wrong offset c of disparity turns the plane
    :math:`n \cdot X = D` to the normal :math:`n / D + c\,(0, 0, 1)`: walls no longer meet at right angles.

    Args:
        pred: as in ``planarity_error``.
        target: labelled depth [m, or up to a factor], ``(B, 1, H, W)``; any value where not valid.
        valid: as in ``planarity_error``.
        planes: as in ``planarity_error``.
        intrinsics: as in ``planarity_error``.
        min_share: as in ``planarity_error``.

    Returns:
        Mean over the planes of an image, in [0, 90], float64 ``(B,)``; NaN for an image without one.

    Raises:
        ShapeError: shapes do not fit together, or planes are no integers.
        GeometryError: unknown intrinsics.
        RecipeError: ``min_share`` outside [0, 1].

    Example:
        >>> import math
        >>> disparity = (torch.arange(8.0) * 0.1 + 0.5).expand(1, 1, 8, 8)  # of the plane with normal (0.1, 0, 0.5)
        >>> planes, camera = torch.ones(1, 1, 8, 8, dtype=torch.int64), torch.eye(3)[None]
        >>> turned = plane_orientation_error(1 / (disparity + 0.5), 1 / disparity, planes > 0, planes, camera)
        >>> math.isclose(turned.item(), math.degrees(math.atan(0.1 / 0.5) - math.atan(0.1 / 1.0)), abs_tol=1e-3)
        True
    """
    return PlaneOrientationErrorFormula(min_share)(pred, target, valid, planes, intrinsics)


class PlanarityError(FormulaMetric):
    """Distance of labelled planes from flat, relative to their size [1]; see ``planarity_error``.

    ``reduction="pixel"`` pools the planes of all images, which ``n_pixels`` counts. No labelled depth is read, so there is
    no ``alignment``.
    """

    def __init__(self, *, min_share: float = 0.01, reduction: Reduction | str = Reduction.IMAGE) -> None:
        super().__init__(PlanarityErrorFormula(min_share), reduction=reduction)

    def update(self, preds: Tensor, planes: Tensor, valid: Tensor, intrinsics: Tensor) -> None:
        """Add a batch; arguments as in ``planarity_error``."""
        self.score(preds, planes, valid, intrinsics)


class PlaneOrientationError(AlignedMetric):
    """Angle by which labelled planes are turned [degrees]; see ``plane_orientation_error``.

    ``reduction="pixel"`` pools the planes of all images, which ``n_pixels`` counts.
    """

    def __init__(
        self,
        *,
        min_share: float = 0.01,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(PlaneOrientationErrorFormula(min_share), reduction=reduction, alignment=alignment, caps=caps)

    def update(self, preds: Tensor, target: Tensor, valid: Tensor, planes: Tensor, intrinsics: Tensor) -> None:
        """Add a batch; arguments as in ``plane_orientation_error``."""
        self.score(self.finished(preds, target, valid), target, valid, planes, intrinsics)
