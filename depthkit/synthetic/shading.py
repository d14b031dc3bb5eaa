"""Shading: the colour that a ray sees, from the surface it meets, its material, light, shadow and air."""

from dataclasses import dataclass

import numpy as np

from depthkit.synthetic.casting import first_hit, in_shadow
from depthkit.synthetic.scene import Light, Scene
from depthkit.synthetic.solids import BALL, BOTTOM, BOX, CYLINDER, LEFT, ROOM, TOP, Solids
from depthkit.synthetic.textures import Material, paint, table


@dataclass(frozen=True)
class Traced:
    """Surfaces that rays in tiles ``(T, S)`` meet.

    Attributes:
        depth: float32 [m], inf for the sky.
        which: index of the solid, -1 for the sky.
        face: index of its face.
        normal: unit, world axes, outward (into a room), float32 ``(3, T, S)``; 0 in the sky.
        dark: whether the point is in shadow.
        colour: linear RGB, float32 ``(3, T, S)``.
    """

    depth: np.ndarray
    which: np.ndarray
    face: np.ndarray
    normal: np.ndarray
    dark: np.ndarray
    colour: np.ndarray


def trace(scene: Scene, solids: Solids, pose: np.ndarray, rays: np.ndarray, pixel: float, *, cull: bool = True) -> Traced:
    """Follow eye rays to the first surface and shade it.

    Args:
        scene: the scene.
        solids: its solids at the time of the picture.
        pose: ``world_from_camera``, ``(4, 4)``.
        rays: camera axes with z = 1, float32 ``(3, T, S)``.
        pixel: extent of a pixel at depth 1 [m].
        cull: as in ``first_hit``.
    """
    depth, which = first_hit(solids, pose, rays, cull=cull)
    seen = which >= 0
    rays = (pose[:3, :3].astype(np.float32) @ rays.reshape(3, -1)).reshape(rays.shape)
    points = pose[:3, 3, None, None].astype(np.float32) + rays * np.where(seen, depth, 0)
    hit = _Surface(solids, which[seen], points[:, seen], rays[:, seen])
    light = scene.light
    direct = _direct(light, hit)
    in_question = np.full(which.shape, -1, np.int32)
    in_question[seen] = np.where(direct > 0, which[seen], -1)
    dark = in_shadow(solids, points, in_question, light.place, at_infinity=light.at_infinity, cull=cull)
    direct[dark[seen]] = 0
    albedo, glow = paint(scene.materials[:, hit.material], *hit.coordinates, *hit.footprint(depth[seen] * pixel))
    colour = np.empty(rays.shape, np.float32)
    lit = albedo * (light.colour.astype(np.float32)[:, None] * direct + _ambient(light, hit) + glow)
    if scene.sky is not None:
        colour[:, ~seen] = _sky(scene, rays[:, ~seen])
        clear = np.exp(-np.float32(scene.haze) * depth[seen] * np.sqrt((rays[:, seen] ** 2).sum(0)))
        lit = lit * clear + scene.sky.horizon.astype(np.float32)[:, None] * (1 - clear)
    colour[:, seen] = lit
    face = np.full(which.shape, -1, np.int32)
    face[seen] = hit.face
    normal = np.zeros(rays.shape, np.float32)
    normal[:, seen] = hit.normal
    return Traced(depth, which, face, normal, dark, colour)


class _Surface:
    """Points on solids, ``(N,)`` each, with their face, normal, material and surface coordinates."""

    def __init__(self, solids: Solids, which: np.ndarray, points: np.ndarray, rays: np.ndarray) -> None:
        size = solids.size.astype(np.float32).T[:, which]
        axes = solids.rotation.astype(np.float32).transpose(1, 2, 0)[:, :, which]  # world axis, solid axis, point
        relative = points - solids.centre.astype(np.float32).T[:, which]
        local = np.einsum("ijn,in->jn", axes, relative)
        unit = local / size
        shape = solids.shape[which]
        self.face, normal, along_u, self.coordinates = _chart(shape, unit, local, size)
        self.normal = np.einsum("ijn,jn->in", axes, normal)
        self.along_u = np.einsum("ijn,jn->in", axes, along_u)
        self.material = solids.material[which, self.face]
        self.points, self.rays, self.unit, self.inside = points, rays, unit, shape == ROOM
        self.size = size

    def footprint(self, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the extent along u and v of a pixel that faces the point and is ``width`` [m] wide there."""
        along_v = np.cross(self.normal, self.along_u, axis=0)
        length = np.sqrt((self.rays**2).sum(0))
        slant = np.einsum("in,in->n", self.rays, self.normal)
        slant = np.where(np.abs(slant) < 0.02 * length, 0.02 * length, slant)
        # A disc across the ray, slid along the ray onto the surface, is an ellipse with these half axes.
        u, v = np.einsum("in,in->n", self.rays, self.along_u), np.einsum("in,in->n", self.rays, along_v)
        return width * np.sqrt(1 + (u / slant) ** 2), width * np.sqrt(1 + (v / slant) ** 2)


def _chart(
    shape: np.ndarray, unit: np.ndarray, local: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Compute face, normal, direction of u (solid's axes) and surface coordinates (u, v) [m] of points on unit shapes."""
    n = unit.shape[1]
    index = np.arange(n)
    axis = np.abs(unit).argmax(0)
    cap = (shape == CYLINDER) & (np.abs(unit[1]) >= np.sqrt(unit[0] ** 2 + unit[2] ** 2))
    axis = np.where(cap, 1, axis)
    side = np.sign(unit[axis, index])
    curved = (shape == BALL) | ((shape == CYLINDER) & ~cap)
    face = np.where(curved, LEFT, 2 * axis + (side > 0))

    normal = np.zeros((3, n), np.float32)
    normal[axis, index] = np.where(shape == ROOM, -side, side)
    first = np.where(axis == 0, 2, 0)
    second = np.where(axis == 1, 2, 1)
    along_u = np.zeros((3, n), np.float32)
    along_u[first, index] = 1
    u, v = local[first, index], local[second, index]

    if curved.any():
        x, y, z = unit[:, curved]
        ball = shape[curved] == BALL
        bent = np.stack([x, np.where(ball, y, 0), z]) / size[:, curved]
        normal[:, curved] = bent / np.sqrt((bent**2).sum(0))
        around = np.stack([z * size[0, curved], np.zeros_like(x), -x * size[2, curved]])
        along_u[:, curved] = around / np.maximum(np.sqrt((around**2).sum(0)), 1e-9)
        u[curved] = np.arctan2(x, z) * size[0, curved]
        v[curved] = np.where(ball, np.arcsin(np.clip(y, -1, 1)), y) * size[1, curved]
    return face, normal, along_u, (u, v)


def _direct(light: Light, hit: _Surface) -> np.ndarray:
    """Compute the direct light on unshaded surfaces, as a share of the light's colour, ``(N,)``."""
    place = light.place.astype(np.float32)[:, None]
    if light.at_infinity:
        return np.maximum((hit.normal * place).sum(0), 0)
    towards = place - hit.points
    squared = (towards**2).sum(0)
    return np.maximum((hit.normal * towards).sum(0), 0) / (np.sqrt(squared) * (1 + squared / np.float32(light.reach**2)))


def _ambient(light: Light, hit: _Surface) -> np.ndarray:
    """Compute the ambient light, linear RGB ``(3, N)``; corners of a room receive less of it."""
    above, below = (x.astype(np.float32)[:, None] for x in (light.above, light.below))
    ambient = below + (above - below) * (0.5 - 0.5 * hit.normal[1])
    if hit.inside.any():
        gap = (1 - np.abs(hit.unit)) * hit.size
        corner = np.prod(1 - 0.35 * np.exp(-4 * gap), axis=0) / (1 - 0.35)
        ambient = ambient * np.where(hit.inside, corner, 1)
    return ambient


def _sky(scene: Scene, rays: np.ndarray) -> np.ndarray:
    sky = scene.sky
    assert sky is not None
    height = np.clip(-rays[1] / np.sqrt((rays**2).sum(0)), 0.0, 1.0)
    rise = np.sqrt(height)
    cover = Material((0, 0, 0), (1, 1, 1), blend=1.0, grain_size=(9.0, 9.0), phase=sky.phase)
    flat = 1 / (height + 0.15)
    columns = np.broadcast_to(table([cover]), (21, rays.shape[1]))
    clouds, _ = paint(columns, rays[0] * flat, rays[2] * flat, flat * 0.02, flat * 0.02)
    cloud = np.clip((clouds[0] - 1 + sky.clouds) * 2.5, 0, 1) * np.clip(height * 6, 0, 1)
    blue = sky.horizon[:, None] + (sky.zenith - sky.horizon)[:, None] * rise
    return blue + cloud * (np.maximum(sky.horizon.max(), 0.9) - blue)


def planar(shape: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Tell whether a face of a solid is flat."""
    return (shape == BOX) | (shape == ROOM) | ((shape == CYLINDER) & ((face == TOP) | (face == BOTTOM)))
