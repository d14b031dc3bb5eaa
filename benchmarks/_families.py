"""Eight families of rendered scenes: five that train, with labels of five kinds and qualities, and three that nobody trains on.

Every family has its scenes, its camera and air, and its label, as datasets of depth do:

    pairs           rooms and streets            disparity up to shift and scale, waves, wrong patches, no value at edges
    sensor          rooms, camera turned         metric depth within 6 m, noise that grows with its square
    rig             streets in haze              disparity up to scale in few steps, sky at zero
    reconstruction  streets, long lens           depth up to scale, a third of the pixels, no sky, outliers
    coarse          rooms and streets at dusk    an order in eight steps: disparity to an unknown power, noise

The others have exact metric depth: streets at night, rooms seen by a rolled camera, streets from above.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from depthkit.synthetic import Scene, SyntheticScenes
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (64, 96)
Random = np.random.Generator


@dataclass(frozen=True)
class Family:
    """Which scenes, how they are filmed, what their labels say."""

    kind: str
    look: Callable[[Scene, Random], Scene]
    label: Callable[[Sample, Random], Sample]


class FamilyScenes(SyntheticScenes):
    """Samples of a family."""

    def __init__(self, family: Family, count: int, seed: int) -> None:
        super().__init__(count, size=SIZE, kind=family.kind, seed=seed)
        self.family = family

    def scene(self, index: int) -> Scene:
        """The scene as the family films it."""
        return self.family.look(super().scene(index), np.random.default_rng([self.seed, index, 1]))

    def __getitem__(self, index: int) -> Sample:
        return self.family.label(super().__getitem__(index), np.random.default_rng([self.seed, index, 2]))


def _turned(scene: Scene, pitch: float, roll: float, **changes: object) -> Scene:
    path = replace(scene.path, angles=scene.path.angles + np.array([0.0, pitch, roll]))
    return replace(scene, path=path, **changes)  # type: ignore[arg-type]


def _as_it_is(scene: Scene, rng: Random) -> Scene:
    return scene


def _by_hand(scene: Scene, rng: Random) -> Scene:
    return _turned(scene, rng.normal(0, 0.1), rng.normal(0, 0.12))


def _in_haze(scene: Scene, rng: Random) -> Scene:
    return replace(scene, haze=1 / rng.uniform(25, 80))


def _long_lens(scene: Scene, rng: Random) -> Scene:
    return _turned(scene, rng.normal(0, 0.05), rng.normal(0, 0.08), focal_length=scene.focal_length * rng.uniform(1.2, 1.9))


def _at_dusk(scene: Scene, rng: Random) -> Scene:
    return replace(scene, exposure=scene.exposure * rng.uniform(0.15, 0.5), noise=rng.uniform(0.02, 0.07))


def _at_night(scene: Scene, rng: Random) -> Scene:
    tint = np.array([1.0, 0.8, 0.6]) ** rng.uniform(-0.5, 1)
    return replace(scene, exposure=scene.exposure * tint * rng.uniform(0.06, 0.2), noise=rng.uniform(0.03, 0.08))


def _rolled(scene: Scene, rng: Random) -> Scene:
    return _turned(scene, rng.normal(0.1, 0.15), rng.choice([-1, 1]) * rng.uniform(0.15, 0.5))


def _from_above(scene: Scene, rng: Random) -> Scene:
    position = np.array([rng.uniform(-2, 2), -rng.uniform(7, 14), 0.0])
    angles = np.array([rng.normal(0, 0.3), rng.uniform(0.35, 0.8), rng.normal(0, 0.05)])
    return replace(scene, path=replace(scene.path, position=position, angles=angles))


def _disparity(sample: Sample) -> np.ndarray:
    assert sample.label is not None
    return 1 / sample.label.astype(np.float64)  # 0 in the sky


def _factor(rng: Random) -> float:
    return float(np.exp(rng.uniform(np.log(0.1), np.log(10))))


def _smooth(rng: Random, cells: tuple[int, int] = (4, 6)) -> np.ndarray:
    """A field of slow waves, about 1 in size."""
    return cv2.resize(rng.standard_normal(cells), SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def _stored(sample: Sample, label: np.ndarray, valid: np.ndarray, kind: tuple[Ambiguity, Representation]) -> Sample:
    return sample.replace(
        label=np.where(valid, label, 0).astype(np.float32), valid=valid, sky=None, ambiguity=kind[0], representation=kind[1]
    )


def _of_pairs(sample: Sample, rng: Random) -> Sample:
    disparity = _disparity(sample)
    spread = disparity.std()
    seen = disparity + 0.1 * spread * _smooth(rng)
    for _ in range(4):
        row, column = rng.integers(0, SIZE[0] - 8), rng.integers(0, SIZE[1] - 12)
        seen[row : row + 8, column : column + 12] += spread * rng.normal(0, 2)
    down, across = np.gradient(disparity)
    steep = np.hypot(down, across)
    valid = steep <= np.quantile(steep, 0.92)
    shifted = _factor(rng) * (seen + spread * rng.uniform(-2, 2))
    return _stored(sample, shifted, valid, (Ambiguity.SHIFT_SCALE, Representation.DISPARITY))


def _of_a_sensor(sample: Sample, rng: Random) -> Sample:
    depth = sample.label
    assert depth is not None
    noisy = depth + 0.01 * depth**2 * rng.standard_normal(SIZE)
    valid = (depth < 6) & (noisy > 0.2)
    valid[0, 0] |= not valid.any()
    return _stored(sample, np.maximum(noisy, 0.2), valid, (Ambiguity.METRIC, Representation.DEPTH))


def _of_a_rig(sample: Sample, rng: Random) -> Sample:
    disparity = _disparity(sample)
    steps = np.round(disparity / np.quantile(disparity, 0.98) * 24 + 0.3 * rng.standard_normal(SIZE) * (disparity > 0))
    label = _factor(rng) * np.maximum(steps, 0)
    return _stored(sample, label, np.ones(SIZE, bool), (Ambiguity.SCALE, Representation.DISPARITY))


def _of_a_reconstruction(sample: Sample, rng: Random) -> Sample:
    depth = sample.label
    assert depth is not None
    near = depth < 60
    wrong = np.exp((rng.random(SIZE) < 0.03) * rng.normal(0, 1, SIZE))
    valid = near & (_smooth(rng, (8, 12)) > 0.4)
    valid = valid if valid.sum() > 20 else near
    label = _factor(rng) * np.where(near, depth, 1) * wrong
    return _stored(sample, label, valid, (Ambiguity.SCALE, Representation.DEPTH))


def _coarsely(sample: Sample, rng: Random) -> Sample:
    disparity = _disparity(sample)
    bent = (disparity / disparity.max()) ** np.exp(rng.uniform(-0.7, 0.7))
    steps = np.round(7 * np.clip(bent + 0.05 * _smooth(rng) + 0.03 * rng.standard_normal(SIZE), 0, 1))
    return _stored(sample, steps, np.ones(SIZE, bool), (Ambiguity.SHIFT_SCALE, Representation.DISPARITY))


def _exactly(sample: Sample, rng: Random) -> Sample:
    return sample


TRAINED = {
    "pairs": Family("mixed", _as_it_is, _of_pairs),
    "sensor": Family("room", _by_hand, _of_a_sensor),
    "rig": Family("street", _in_haze, _of_a_rig),
    "reconstruction": Family("street", _long_lens, _of_a_reconstruction),
    "coarse": Family("mixed", _at_dusk, _coarsely),
}
UNSEEN = {
    "streets at night": Family("street", _at_night, _exactly),
    "rolled rooms": Family("room", _rolled, _exactly),
    "streets from above": Family("street", _from_above, _exactly),
}
