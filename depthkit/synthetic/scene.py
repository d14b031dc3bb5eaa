"""Description of a scene for the renderer: solids, materials, light, air, camera."""

from dataclasses import dataclass

import numpy as np

from depthkit.synthetic.solids import Solids, turn


@dataclass(frozen=True)
class Light:
    """One light with hard shadows, and the ambient light.

    Attributes:
        place: position [m], or the unit vector towards a light at infinity, ``(3,)``.
        at_infinity: whether ``place`` is such a vector.
        colour: irradiance of a surface that faces the light, linear RGB; at ``reach`` half of it if the light has a position.
        reach: [m].
        above: irradiance of a surface that faces up, from the surroundings.
        below: irradiance of a surface that faces down, from the surroundings.
    """

    place: np.ndarray
    at_infinity: bool
    colour: np.ndarray
    reach: float
    above: np.ndarray
    below: np.ndarray


@dataclass(frozen=True)
class Sky:
    """A sky with clouds: linear RGB at the horizon and overhead, the share and the position of the clouds."""

    horizon: np.ndarray
    zenith: np.ndarray
    clouds: float
    phase: tuple[float, float]


@dataclass(frozen=True)
class Path:
    """The path of a camera over time [frames]: steady motion with a sway, smooth to any order.

    Attributes:
        position: at time 0 [m], ``(3,)``.
        velocity: [m per frame], ``(3,)``.
        sway: amplitude of the sinusoidal motion on top of it [m], ``(3,)``.
        angles: yaw, pitch and roll at time 0 [rad].
        nod: amplitude of the sinusoidal turning [rad], ``(3,)``.
        rate: angular frequency of sway and nod [rad per frame].
        phase: their phases at time 0 [rad], ``(2,)``.
    """

    position: np.ndarray
    velocity: np.ndarray
    sway: np.ndarray
    angles: np.ndarray
    nod: np.ndarray
    rate: float
    phase: np.ndarray

    def world_from_camera(self, time: float) -> np.ndarray:
        """Compute the pose at a time [frames], float64 ``(4, 4)`` [m]."""
        swing = np.sin(self.rate * time + self.phase) - np.sin(self.phase)
        pose = np.eye(4)
        pose[:3, :3] = turn(*(self.angles + swing[0] * self.nod))
        pose[:3, 3] = self.position + time * self.velocity + swing[1] * self.sway
        return pose


@dataclass(frozen=True)
class Scene:
    """A scene and the camera that films it.

    Attributes:
        kind: ``room`` or ``street``.
        solids: at time 0.
        materials: ``textures.table``.
        light: see ``Light``.
        sky: background of the scene; None indoors.
        haze: share of light lost in the air [1/m] and replaced by the sky's horizon colour.
        path: of the left or only camera.
        baseline: from the left to the right camera [m].
        focal_length: in widths of the image.
        principal_point: offset from the image's centre, in widths.
        exposure: factor on each colour channel, ``(3,)``.
        noise: standard deviation of the sensor's noise, 1 being white.
    """

    kind: str
    solids: Solids
    materials: np.ndarray
    light: Light
    sky: Sky | None
    haze: float
    path: Path
    baseline: float
    focal_length: float
    principal_point: tuple[float, float]
    exposure: np.ndarray
    noise: float

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """Compute the intrinsics of an image of (height, width), float64 ``(3, 3)`` [px]."""
        height, width = size
        f = self.focal_length * width
        x, y = self.principal_point
        return np.array([[f, 0, (width - 1) / 2 + x * width], [0, f, (height - 1) / 2 + y * width], [0, 0, 1]])
