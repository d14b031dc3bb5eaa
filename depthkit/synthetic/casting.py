"""Ray casting: the solid that each ray meets first, and the points in shadow.

Rays come in tiles of neighbours, ``(3, T, S)``. A solid is tried only against tiles that it can touch: by rectangles on the
image for eye rays, by boxes in the sun's frame or capsules towards a lamp for shadow rays. So one table of P x T comparisons
takes the place of most of the P x T x S crossings.
"""

import numpy as np

from depthkit.synthetic.solids import ROOM, Solids, crossing

NEAR = np.float32(1e-3)
"""Crossings closer to a ray's start than this many steps of its direction are not seen."""


def first_hit(solids: Solids, pose: np.ndarray, rays: np.ndarray, *, cull: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest solid that each ray of a camera meets.

    Args:
        solids: the scene.
        pose: ``world_from_camera``, ``(4, 4)`` [m].
        rays: camera axes, z = 1, float32 ``(3, T, S)``.
        cull: skip the tiles that a solid cannot touch; without, the same result takes longer.

    Returns:
        Depth of the crossing [m], float32 ``(T, S)``, inf for a miss; and which solid, ``(T, S)``, -1 for a miss.
    """
    depth = np.full(rays.shape[1:], np.inf, np.float32)
    which = np.full(rays.shape[1:], -1, np.int32)
    touched, nearest = _on_image(solids, pose, rays)
    touched |= not cull
    maps = solids.unit_from_world
    origins = np.einsum("pij,pj->pi", maps, pose[:3, 3] - solids.centre).astype(np.float32)
    maps = (maps @ pose[:3, :3]).astype(np.float32)
    deepest = np.full(rays.shape[1], np.inf, np.float32)
    candidates = np.flatnonzero(touched.any(1))
    for p in candidates[np.argsort(nearest[candidates], kind="stable")]:
        tiles = np.flatnonzero(touched[p] & ((nearest[p] < deepest) | (not cull)))
        if not len(tiles):
            continue
        near, far = crossing(solids.shape[p], origins[p][:, None, None], _mapped(maps[p], rays[:, tiles]))
        along = far if solids.shape[p] == ROOM else near
        hit = (near <= far) & (along > NEAR) & (along < depth[tiles])
        if hit.any():
            depth[tiles] = closer = np.where(hit, along, depth[tiles])
            which[tiles] = np.where(hit, np.int32(p), which[tiles])
            deepest[tiles] = closer.max(1)
    return depth, which


def in_shadow(
    solids: Solids, points: np.ndarray, which: np.ndarray, light: np.ndarray, *, at_infinity: bool, cull: bool = True
) -> np.ndarray:
    """Tell which points are in the shadow of another solid.

    Args:
        solids: the scene; a room casts no shadow into itself.
        points: float32 ``(3, T, S)`` [m].
        which: the solid that each point lies on, -1 for points not asked about, ``(T, S)``. A convex solid's shadow on itself
            is where its surface faces away, which the shading computes.
        light: position ``(3,)`` [m], or the unit vector towards a light at infinity.
        at_infinity: whether ``light`` is such a vector.
        cull: as in ``first_hit``.

    Returns:
        bool ``(T, S)``.
    """
    dark = np.zeros(which.shape, bool)
    asked = which >= 0
    tiles_asked = np.flatnonzero(asked.any(1))
    if not len(tiles_asked):
        return dark
    within = (_towards_sun if at_infinity else _towards_lamp)(solids, points[:, tiles_asked], asked[tiles_asked], light)
    within = (within | (not cull)) & (solids.shape != ROOM)[:, None]
    maps, centre = solids.unit_from_world, solids.centre.astype(np.float32)
    for p in np.flatnonzero(within.any(1)):
        tiles = tiles_asked[within[p]]
        local = _mapped(maps[p].astype(np.float32), points[:, tiles] - centre[p][:, None, None])
        if at_infinity:
            near, far = crossing(solids.shape[p], local, (maps[p] @ light).astype(np.float32)[:, None, None])
            blocked = (near <= far) & (near > NEAR)
        else:
            start = (maps[p] @ (light - solids.centre[p])).astype(np.float32)[:, None, None]
            near, far = crossing(solids.shape[p], start, local - start)
            blocked = (near <= far) & (near > 0) & (near < 1 - NEAR)
        dark[tiles] |= blocked & (which[tiles] != p)
    return dark & asked


def _mapped(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrix @ vectors.reshape(3, -1)).reshape(vectors.shape)


def _on_image(solids: Solids, pose: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the tiles that each solid's corners surround on the image, ``(P, T)``, and its least depth, ``(P,)``."""
    corners = (solids.corners() - pose[:3, 3]) @ pose[:3, :3]
    z = corners[..., 2]
    slopes = corners[..., :2] / np.maximum(z, 1e-3)[..., None]
    low, high = slopes.min(1) - 1e-4, slopes.max(1) + 1e-4
    around_us = (z.min(1) <= 1e-2) & (z.max(1) > 0)
    low[around_us], high[around_us] = -np.inf, np.inf
    low[z.max(1) <= 0] = np.inf
    return _overlap(low, high, rays[:2].min(2).T, rays[:2].max(2).T), np.maximum(z.min(1), 0)


def _towards_sun(solids: Solids, points: np.ndarray, asked: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Tell which solids lie before which tiles of points, seen from the sun, ``(P, T)``."""
    side = np.cross(sun, [0.0, 0.0, 1.0] if abs(sun[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    frame = np.stack([side, np.cross(sun, side), sun])
    corners = solids.corners() @ frame.T
    turned = _mapped(frame.astype(np.float32), points)
    low = np.where(asked, turned, np.float32(np.inf)).min(2).T - 1e-3
    high = np.where(asked, turned, np.float32(-np.inf)).max(2).T + 1e-3
    high[:, 2] = np.inf
    return _overlap(corners.min(1), corners.max(1), low, high)


def _towards_lamp(solids: Solids, points: np.ndarray, asked: np.ndarray, lamp: np.ndarray) -> np.ndarray:
    """Tell which solids' bounding spheres touch the capsules from tiles of points to a lamp, ``(P, T)``."""
    low = np.where(asked, points, np.float32(np.inf)).min(2).T
    high = np.where(asked, points, np.float32(-np.inf)).max(2).T
    start, margin = (low + high) / 2, np.linalg.norm(high - low, axis=1) / 2 + 1e-3
    towards = lamp - start
    along = (solids.centre @ towards.T - np.einsum("ti,ti->t", start, towards)) / np.einsum("ti,ti->t", towards, towards)
    along = np.clip(along, 0, 1)
    squared = sum((solids.centre[:, i, None] - start[:, i] - along * towards[:, i]) ** 2 for i in range(3))
    return squared <= (np.linalg.norm(solids.size, axis=1)[:, None] + margin) ** 2


def _overlap(low: np.ndarray, high: np.ndarray, tile_low: np.ndarray, tile_high: np.ndarray) -> np.ndarray:
    """Tell which boxes ``(P, D)`` overlap which others ``(T, D)``, ``(P, T)``."""
    axes = range(low.shape[1])
    return np.logical_and.reduce([(low[:, i, None] <= tile_high[:, i]) & (high[:, i, None] >= tile_low[:, i]) for i in axes])
