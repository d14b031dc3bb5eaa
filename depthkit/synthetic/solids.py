"""Solids of a scene: boxes, ellipsoids and cylinders, each the affine image of a unit shape at the origin.

World axes are x right, y down, z forward, metres. A ray ``o + t d`` keeps its t under the affine map, so rays and solids
are intersected in the solid's own space, where every shape is convex and a line crosses it in one interval of t.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Self

import numpy as np

LEFT, RIGHT, TOP, BOTTOM, FRONT, BACK = range(6)
"""Faces of a box, towards -x, +x, -y, +y, -z, +z; a cylinder has TOP, BOTTOM and its side LEFT, a ball LEFT only."""

Triple = Sequence[float] | np.ndarray


class Shape(IntEnum):
    """The unit shapes."""

    BOX = 0
    """|x|, |y|, |z| <= 1."""
    BALL = 1
    """x^2 + y^2 + z^2 <= 1."""
    CYLINDER = 2
    """x^2 + z^2 <= 1, |y| <= 1."""
    ROOM = 3
    """A box seen from inside."""


BOX, BALL, CYLINDER, ROOM = (int(shape) for shape in Shape)  # an enum's members are slow to look up


@dataclass(frozen=True)
class Solids:
    """All solids of a scene, as arrays.

    Attributes:
        shape: ``Shape`` codes, ``(P,)``.
        centre: ``(P, 3)`` [m].
        size: half extents along the solid's own axes, ``(P, 3)`` [m].
        rotation: ``world_from_solid``, ``(P, 3, 3)``.
        velocity: ``(P, 3)`` [m per frame].
        material: material of each face, ``(P, 6)``.
        thing: object that the solid is a part of, from 1, ``(P,)``.
    """

    shape: np.ndarray
    centre: np.ndarray
    size: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    material: np.ndarray
    thing: np.ndarray

    def at(self, time: float) -> Self:
        """Move the solids to their places at a time [frames]."""
        return replace(self, centre=self.centre + time * self.velocity)

    @property
    def unit_from_world(self) -> np.ndarray:
        """Linear part of the map into each solid's own space, ``(P, 3, 3)``."""
        return self.rotation.transpose(0, 2, 1) / self.size[:, :, None]

    def corners(self) -> np.ndarray:
        """Compute the corners of a box around each solid, along its own axes, ``(P, 8, 3)`` [m]."""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
        return self.centre[:, None] + np.einsum("pij,kj,pj->pki", self.rotation, signs, self.size, optimize=True)

    def clearance(self, point: np.ndarray) -> float:
        """Compute the distance [m] from a point to the nearest solid, by their boxes; to a room's wall from inside."""
        local = np.abs(np.einsum("pji,pj->pi", self.rotation, point - self.centre)) - self.size
        outside = np.linalg.norm(np.maximum(local, 0), axis=1)
        return float(np.where(self.shape == ROOM, -local.max(1), outside).min())


def crossing(shape: int, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the interval (near, far) of t in which ``origin + t direction`` is inside a unit shape; near > far for a miss.

    Both are ``(3, ...)``, of one shape or a single vector ``(3, 1)`` against many.
    """
    if shape == BALL:
        return _around(origin, direction)
    if shape == CYLINDER:
        near_round, far_round = _around(origin[::2], direction[::2])
        near_flat, far_flat = _between(origin[1:2], direction[1:2])
        return np.maximum(near_round, near_flat), np.minimum(far_round, far_flat)
    return _between(origin, direction)


def _between(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = 1 / np.where(direction == 0, np.float32(1e-20), direction)
    middle, half = -origin * inverse, np.abs(inverse)
    return (middle - half).max(0), (middle + half).min(0)


def _around(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersect with the unit circle or sphere, from the point of closest approach, where float32 does not cancel."""
    steps = 1 / np.maximum((direction * direction).sum(0), np.float32(1e-20))
    middle = (origin * direction).sum(0) * -steps
    closest = origin + middle * direction
    inside = 1 - (closest * closest).sum(0)
    half = np.sqrt(np.maximum(inside, 0) * steps)
    return np.where(inside > 0, middle - half, np.float32(np.inf)), middle + half


@dataclass
class Assembly:
    """Builder of solids: ``start`` opens an object, the other methods add parts to it."""

    parts: list[dict] = field(default_factory=list)
    things: int = 0
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def start(self, velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        """Open a new object that moves at ``velocity`` [m per frame]."""
        self.things += 1
        self.velocity = velocity

    def add(
        self,
        shape: int,
        centre: Triple,
        size: Triple,
        material: int | tuple[int, ...],
        rotation: np.ndarray | None = None,
    ) -> None:
        """Add a solid: centre and full extents [m], one material, or one for each of the six faces."""
        self.parts.append(
            {
                "shape": shape,
                "centre": centre,
                "size": np.asarray(size) / 2,
                "rotation": np.eye(3) if rotation is None else rotation,
                "velocity": self.velocity,
                "material": (material,) * 6 if isinstance(material, int) else material,
                "thing": self.things,
            }
        )

    def solids(self) -> Solids:
        """Return the solids added so far."""
        return Solids(**{name: np.array([part[name] for part in self.parts]) for name in self.parts[0]})


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Rotate to the world from a frame turned right by ``yaw``, down by ``pitch``, clockwise by ``roll`` [rad]."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
