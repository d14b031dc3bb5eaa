"""Rendering: pictures of scenes, with the exact truth about each pixel."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from depthkit.synthetic.scene import Scene
from depthkit.synthetic.shading import Traced, planar, trace

TILE = 16
"""Side of a square of pixels that is culled as one."""
INSIDE_PIXEL = np.array([[-0.375, -0.125], [0.125, -0.375], [0.375, 0.125], [-0.125, 0.375]], np.float32)
"""Where an edge pixel is sampled, (x, y) from its centre [px]: a rotated grid."""


@dataclass(frozen=True)
class SyntheticView:
    """One picture of a scene and the truth about each of its pixels.

    Attributes:
        image: uint8 RGB, ``(H, W, 3)``.
        depth: exact z at the pixel's centre [m], float32 ``(H, W)``; inf in the sky.
        normals: unit, camera axes, facing the camera, float32 ``(H, W, 3)``; 0 in the sky.
        sky: bool ``(H, W)``.
        objects: which object, from 1; 0 is the sky. int32 ``(H, W)``. The same in every view of the scene.
        planes: which flat face, from 1; 0 where the surface is curved or sky. int32 ``(H, W)``. The same in every view.
        intrinsics: float64 ``(3, 3)`` [px].
        world_from_camera: float64 ``(4, 4)`` [m]; y points down, the ground is at 0.
    """

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    sky: np.ndarray
    objects: np.ndarray
    planes: np.ndarray
    intrinsics: np.ndarray
    world_from_camera: np.ndarray


def render(
    scene: Scene,
    size: tuple[int, int],
    *,
    time: float = 0.0,
    right: bool = False,
    noise: np.random.Generator | None = None,
    cull: bool = True,
) -> SyntheticView:
    """Render a scene.

    Args:
        scene: the scene.
        size: (height, width) of the image [px].
        time: of the picture [frames].
        right: render from the right camera of the rig instead of the left.
        noise: generator of sensor noise; None for none.
        cull: as in ``first_hit``.
    """
    solids = scene.solids.at(time)
    pose = scene.path.world_from_camera(time)
    if right:
        pose[:3, 3] += scene.baseline * pose[:3, 0]
    intrinsics = scene.intrinsics(size)
    focal = intrinsics[0, 0]
    row, column = _tiles(*size)
    centre = _rays(column, row, intrinsics)
    traced = trace(scene, solids, pose, centre, 1 / focal, cull=cull)
    image = lambda x: _untiled(x, size)  # noqa: E731
    which, face = image(traced.which), image(traced.face)
    colour = image(traced.colour)
    edge = _edges(which * 6 + face, image(traced.dark))
    _smooth(colour, edge, lambda rays: trace(scene, solids, pose, rays, 1 / focal, cull=cull), intrinsics)
    seen = which >= 0
    normals = np.einsum("ji,jhw->hwi", pose[:3, :3].astype(np.float32), image(traced.normal))
    flat = seen & planar(solids.shape[which], face)
    return SyntheticView(
        image=_develop(scene, colour, noise),
        depth=image(traced.depth),
        normals=normals,
        sky=~seen,
        objects=np.where(seen, solids.thing[which], 0).astype(np.int32),
        planes=np.where(flat, which * 6 + face + 1, 0).astype(np.int32),
        intrinsics=intrinsics,
        world_from_camera=pose,
    )


def _tiles(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrange rows and columns of all pixels, ``(T, S)``, in square tiles that overhang the image to the right and below."""
    down, across = -(-height // TILE), -(-width // TILE)
    row, column = np.indices((down * TILE, across * TILE), np.float32)
    return _tiled(row, down, across), _tiled(column, down, across)


def _tiled(x: np.ndarray, down: int, across: int) -> np.ndarray:
    return x.reshape(down, TILE, across, TILE).swapaxes(1, 2).reshape(down * across, TILE * TILE)


def _untiled(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    down, across = -(-size[0] // TILE), -(-size[1] // TILE)
    lead = x.shape[:-2]
    image = x.reshape(*lead, down, across, TILE, TILE).swapaxes(-3, -2).reshape(*lead, down * TILE, across * TILE)
    return np.ascontiguousarray(image[..., : size[0], : size[1]])


def _rays(column: np.ndarray, row: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    focal, x, y = np.float32(intrinsics[0, 0]), np.float32(intrinsics[0, 2]), np.float32(intrinsics[1, 2])
    return np.stack([(column - x) / focal, (row - y) / focal, np.ones_like(row)])


def _edges(surface: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Find the pixels at the border of a surface or of a shadow."""
    edge = np.zeros(surface.shape, bool)
    for axis in (0, 1):
        ahead, behind = (
            tuple(part if a == axis else slice(None) for a in (0, 1)) for part in (slice(1, None), slice(None, -1))
        )
        change = (surface[ahead] != surface[behind]) | (dark[ahead] != dark[behind])
        edge[ahead] |= change
        edge[behind] |= change
    return edge


def _smooth(colour: np.ndarray, edge: np.ndarray, follow: Callable[[np.ndarray], Traced], intrinsics: np.ndarray) -> None:
    """Replace edge pixels of ``colour`` by the mean of four samples within them."""
    height, width = edge.shape
    blocks = (np.arange(height)[:, None] // TILE) * -(-width // TILE) + np.arange(width) // TILE
    row, column = np.nonzero(edge)
    order = np.argsort(blocks[row, column], kind="stable")
    row, column = row[order], column[order]
    if not len(row):
        return
    per_tile = TILE * TILE // len(INSIDE_PIXEL)
    padded = np.resize(np.arange(len(row)), -(-len(row) // per_tile) * per_tile)
    padded[len(row) :] = len(row) - 1
    offset = INSIDE_PIXEL[:, :, None, None]
    tiles = padded.reshape(-1, per_tile)
    x, y = column[tiles] + offset[:, 0], row[tiles] + offset[:, 1]  # sample, tile, pixel
    join = lambda a: a.transpose(1, 2, 0).reshape(len(tiles), -1).astype(np.float32)  # noqa: E731
    traced = follow(_rays(join(x), join(y), intrinsics))
    mean = traced.colour.reshape(3, -1, len(INSIDE_PIXEL)).mean(2)
    colour[:, row, column] = mean[:, : len(row)]


def _develop(scene: Scene, colour: np.ndarray, noise: np.random.Generator | None) -> np.ndarray:
    """Convert linear light to an 8-bit picture: exposure, a soft limit on highlights, gamma, noise."""
    light = colour * scene.exposure.astype(np.float32)[:, None, None]
    picture = (light * (1 + light / 6) / (1 + light)) ** np.float32(1 / 2.2)
    if noise is not None and scene.noise > 0:
        picture += np.float32(scene.noise) * noise.standard_normal(picture.shape, np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy()
