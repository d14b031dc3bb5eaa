"""Synthetic scenes as a sequence of samples."""

from collections.abc import Iterator
from enum import StrEnum

import numpy as np

from depthkit.checks import check_choice
from depthkit.errors import RecipeError, ShapeError
from depthkit.synthetic.render import SyntheticView, render
from depthkit.synthetic.rooms import build_room
from depthkit.synthetic.scene import Scene
from depthkit.synthetic.streets import build_street
from depthkit.types import Ambiguity, Representation, Sample, Views


class SceneKind(StrEnum):
    """Scenes to render: rooms, streets, or both in turn."""

    ROOM = "room"
    STREET = "street"
    MIXED = "mixed"
    """Rooms at even positions, streets at odd ones."""


class SyntheticScenes:
    """Rendered rooms and streets with exact labels: a sequence of ``Sample``, each of another scene.

    Item i depends on ``seed``, i and the arguments below only, not on ``count``; it is drawn when it is asked for. Labels are
    metric depth with infinite depth in the sky.

    Args:
        count: number of scenes to render.
        size: (height, width) of the images [px]. The scenes do not depend on it.
        kind: room, street, or mixed: rooms at even positions, streets at odd ones.
        seed: of the scenes.
        views: further views with their poses: single (none), video (before and after), stereo, or video_stereo.
        spacing: frames between the image and those before and after it.
        moving: share of scenes in which some objects move on their own; in a street one car ahead is as fast as the camera.
        still: share of scenes in which the camera does not move.
        noise: greatest standard deviation of sensor noise, white being 1; each scene's is between 0 and this.

    Raises:
        RecipeError: an argument is out of its range.
        ShapeError: the size is not two positive numbers.

    Example:
        >>> sample = SyntheticScenes(2, size=(24, 32), kind="room")[0]
        >>> sample.key, str(sample.kind), bool(sample.valid.all())
        ('room-0-000000', 'metric depth', True)
    """

    def __init__(
        self,
        count: int,
        *,
        size: tuple[int, int] = (192, 256),
        kind: SceneKind | str = SceneKind.MIXED,
        seed: int = 0,
        views: Views | str = Views.SINGLE,
        spacing: int = 1,
        moving: float = 0.0,
        still: float = 0.0,
        noise: float = 0.02,
    ) -> None:
        if count < 0 or seed < 0:
            raise RecipeError(f"expected count and seed to be 0 or more; got {count} and {seed}.")
        if spacing < 1:
            raise RecipeError(f"expected a spacing of at least 1 frame; got {spacing}.")
        for name, share in (("moving", moving), ("still", still), ("noise", noise)):
            if not 0 <= share <= 1:
                raise RecipeError(f"expected {name} between 0 and 1; got {share}.")
        if len(size) != 2 or min(size) < 1:
            raise ShapeError(f"expected size as (height, width) in pixels, both at least 1; got {tuple(size)}.")
        self.count, self.kind, self.seed = count, check_choice("kind", kind, SceneKind), seed
        self.size = int(size[0]), int(size[1])
        self.views, self.spacing = check_choice("views", views, Views), spacing
        self.moving, self.still, self.noise = moving, still, noise

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(self.count))

    def key(self, index: int) -> str:
        """Return the key of item ``index``, without drawing it."""
        return f"{self._kind(index)}-{self.seed}-{index:06d}"

    def _kind(self, index: int) -> str:
        return (SceneKind.ROOM, SceneKind.STREET)[index % 2] if self.kind == SceneKind.MIXED else self.kind

    def scene(self, index: int) -> Scene:
        """Build the scene of item ``index``."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, index])
        moving, still = rng.random(2) < (self.moving, self.still)
        build = build_room if self._kind(index) == "room" else build_street
        return build(rng, moving=bool(moving), still=bool(still), noise=self.noise)

    def view(self, index: int, *, time: int = 0, right: bool = False) -> SyntheticView:
        """Render item ``index`` at a time [frames], from the left or the right camera."""
        return self._shoot(self.scene(index), index, time, right)

    def video(self, index: int, frames: int, *, start: int = 0) -> list[SyntheticView]:
        """Render successive pictures of item ``index`` by the left camera; time 0 is the sample's image."""
        scene = self.scene(index)
        return [self._shoot(scene, index, time, False) for time in range(start, start + frames)]

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        main = self._shoot(scene, index, 0, False)
        others: dict[str, SyntheticView] = {}
        if self.views in (Views.VIDEO, Views.VIDEO_STEREO):
            times = {"prev": -self.spacing, "next": self.spacing}
            others |= {name: self._shoot(scene, index, time, False) for name, time in times.items()}
        stereo = self.views in (Views.STEREO, Views.VIDEO_STEREO)
        if stereo:
            others["stereo"] = self._shoot(scene, index, 0, True)
        return Sample(
            key=self.key(index),
            image=main.image,
            label=main.depth,
            valid=np.ones(self.size, bool),
            ambiguity=Ambiguity.METRIC,
            representation=Representation.DEPTH,
            sky=main.sky,
            intrinsics=main.intrinsics,
            world_from_camera=main.world_from_camera,
            stereo_baseline=scene.baseline if stereo else None,
            frames={name: view.image for name, view in others.items()},
            frames_from_camera={
                name: np.linalg.inv(view.world_from_camera) @ main.world_from_camera for name, view in others.items()
            },
            source={"scene": f"{scene.kind}, seed {self.seed}, item {index}", "licence": "generated, free of rights"},
        )

    def _shoot(self, scene: Scene, index: int, time: int, right: bool) -> SyntheticView:
        noise = np.random.default_rng([self.seed, index, 2 * abs(time) + (time < 0), int(right)])
        return render(scene, self.size, time=time, right=right, noise=noise)
