"""Which solid each ray meets first, and which points a light does not reach.

Rays come in tiles of neighbours, ``(3, T, S)``. A solid is tried only against tiles whose bounding cone (eye rays) or whose
capsule towards the light (shadow rays) touches its bounding sphere: one table of P x T tests in place of P x T x S crossings.
"""

import numpy as np

from depthkit.data.synthetic.solids import Shape, Solids, crossing

NEAR = np.float32(1e-3)
"""Crossings closer to a ray's start than this many steps of its direction are not seen."""


def first_hit(solids: Solids, origin: np.ndarray, rays: np.ndarray, *, cull: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The nearest solid along each ray from one origin.

    Args:
        solids: the scene.
        origin: ``(3,)`` [m].
        rays: float32 ``(3, T, S)``, any length.
        cull: try only the tiles that a solid can touch; the result is the same without.

    Returns:
        How far along the ray, in lengths of it, float32 ``(T, S)``, inf for a miss; and which solid, ``(T, S)``, -1 for a miss.
    """
    distance = np.full(rays.shape[1:], np.inf, np.float32)
    which = np.full(rays.shape[1:], -1, np.int32)
    maps = solids.unit_from_world
    origins = np.einsum("pij,pj->pi", maps, origin - solids.centre).astype(np.float32)
    offset = solids.centre - origin
    reach = np.linalg.norm(offset, axis=1)
    nearest = np.maximum(reach - solids.radius, 0)
    touched = _in_cone(offset, reach, solids.radius, rays) if cull else np.ones((len(reach), rays.shape[1]), bool)
    nearest = nearest / np.sqrt(np.einsum("i...,i...->...", rays, rays).max())
    deepest = np.full(rays.shape[1], np.inf, np.float32)
    for p in np.argsort(nearest, kind="stable"):
        tiles = np.flatnonzero(touched[p] & (nearest[p] < deepest)) if cull else np.arange(rays.shape[1])
        if not len(tiles):
            continue
        near, far = crossing(solids.shape[p], origins[p][:, None, None], _turned(maps[p], rays[:, tiles]))
        along = far if solids.shape[p] == Shape.ROOM else near
        hit = (near <= far) & (along > NEAR) & (along < distance[tiles])
        if hit.any():
            distance[tiles] = closer = np.where(hit, along, distance[tiles])
            which[tiles] = np.where(hit, np.int32(p), which[tiles])
            deepest[tiles] = closer.max(1)
    return distance, which


def in_shadow(
    solids: Solids, points: np.ndarray, which: np.ndarray, light: np.ndarray, *, at_infinity: bool, cull: bool = True
) -> np.ndarray:
    """Which points a light does not reach because another solid is in the way.

    Args:
        solids: the scene; a room casts no shadow into itself.
        points: float32 ``(3, T, S)`` [m].
        which: the solid that each point lies on, -1 for none, ``(T, S)``. A convex solid's shadow on itself is where its
            surface faces away, which is the shading's business.
        light: position ``(3,)`` [m], or the unit vector towards a light at infinity.
        at_infinity: which of the two.
        cull: as in ``first_hit``.

    Returns:
        bool ``(T, S)``.
    """
    dark = np.zeros(which.shape, bool)
    seen = which >= 0
    low = np.where(seen, points, np.inf).min(2).T
    high = np.where(seen, points, -np.inf).max(2).T
    some = seen.any(1)
    middle = np.where(some[:, None], (low + high) / 2, 0)
    radius = np.where(some, np.linalg.norm(np.where(some[:, None], high - low, 0), axis=1) / 2, 0)
    towards = light * 1e4 if at_infinity else light - middle
    touched = (_near_segment(solids.centre, solids.radius, middle, towards, radius) & some) if cull else seen.any(1) & (
        np.ones((len(solids.shape), 1), bool)
    )
    maps = solids.unit_from_world
    for p in np.flatnonzero(touched.any(1) & (solids.shape != Shape.ROOM)):
        tiles = np.flatnonzero(touched[p])
        relative = points[:, tiles] - solids.centre[p].astype(np.float32)[:, None, None]
        local = _turned(maps[p], relative)
        if at_infinity:
            near, far = crossing(solids.shape[p], local, (maps[p] @ light).astype(np.float32)[:, None, None])
            blocked = (near <= far) & (near > NEAR)
        else:
            start = (maps[p] @ (light - solids.centre[p])).astype(np.float32)[:, None, None]
            near, far = crossing(solids.shape[p], start, local - start)
            blocked = (near <= far) & (near > 0) & (near < 1 - NEAR)
        dark[tiles] |= blocked & (which[tiles] != p)
    return dark & seen


def _turned(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrix.astype(np.float32) @ vectors.reshape(3, -1)).reshape(vectors.shape)


def _in_cone(offset: np.ndarray, reach: np.ndarray, radius: np.ndarray, rays: np.ndarray) -> np.ndarray:
    unit = rays / np.sqrt(np.einsum("i...,i...->...", rays, rays))
    axis = unit.mean(2)
    axis /= np.linalg.norm(axis, axis=0)
    opening = np.arccos(np.clip(np.einsum("it,its->ts", axis, unit).min(1), -1, 1)) + 1e-3
    angle = np.arccos(np.clip(offset @ axis / np.maximum(reach, 1e-9)[:, None], -1, 1))
    return (angle <= opening + np.arcsin(np.minimum(radius / np.maximum(reach, 1e-9), 1))[:, None]) | (reach <= radius)[:, None]


def _near_segment(
    centre: np.ndarray, radius: np.ndarray, start: np.ndarray, towards: np.ndarray, margin: np.ndarray
) -> np.ndarray:
    """Whether a sphere ``(P,)`` comes within ``margin`` of the segments ``start + [0, 1] towards``, ``(T, 3)``: ``(P, T)``."""
    towards = np.broadcast_to(towards, start.shape)
    length = np.einsum("ti,ti->t", towards, towards)
    along = (centre @ towards.T - np.einsum("ti,ti->t", start, towards)) / length
    along = np.clip(along, 0, 1)
    squared = sum((centre[:, i, None] - start[:, i] - along * towards[:, i]) ** 2 for i in range(3))
    return squared <= (radius[:, None] + margin + 1e-3) ** 2
