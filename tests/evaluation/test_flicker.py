"""Flicker beside a protocol's numbers: known answers on rendered films, one fit per film, and what is no film."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.metrics.functional import temporal_alignment_error
from depthkit.resize import InputResize
from depthkit.shards import write_shards
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Representation, Sample

FRAMES, SIZE = 4, (48, 64)
METRES = replace(PROTOCOLS["small_metric"], name="metres", input=InputResize(rule="native", multiple=1))
AFFINE = replace(PROTOCOLS["small_affine"], name="affine", input=InputResize(rule="native", multiple=1))


def film(scene: int = 0, name: str = "room") -> list[Sample]:
    views = SyntheticScenes(scene + 1, size=SIZE, kind="room", seed=3).video(scene, FRAMES)
    return [
        Sample(
            f"{name}/{number}", view.image, view.depth, view.depth > 0, Ambiguity.METRIC, Representation.DEPTH,
            intrinsics=view.intrinsics, world_from_camera=view.world_from_camera,
        )
        for number, view in enumerate(views)
    ]  # fmt: skip


class Oracle:
    """True depth, or disparity, of each image in turn, by a factor and an offset of its own."""

    ambiguity = Ambiguity.METRIC

    def __init__(self, samples: list[Sample], factors: Any = 1.0, *, disparity: bool = False, shift: float = 0.0) -> None:
        self.representation = Representation.DISPARITY if disparity else Representation.DEPTH
        maps = [1 / sample.label if disparity else sample.label for sample in samples]
        factors = np.broadcast_to(factors, len(samples))
        found = [torch.from_numpy(factor * x + shift)[None, None].float() for x, factor in zip(maps, factors, strict=True)]
        self.of = {sample.image.tobytes(): x for sample, x in zip(samples, found, strict=True)}

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self.of[(image[0] * 255).round().byte().permute(1, 2, 0).numpy().tobytes()]


def flicker_of(samples: list[Sample], model: Any, protocol: Any = METRES) -> dict[str, float]:
    found = evaluate(model, samples, protocol, flicker=True, pictures=0, progress=False).summary
    return {name: found[name] for name in ("flow_error", "tae")}


@pytest.fixture(scope="module")
def rooms() -> list[Sample]:
    return film()


def test_true_depth_has_the_flicker_of_its_motion_and_a_jitter_adds_to_it(rooms: list[Sample]) -> None:
    still = flicker_of(rooms, Oracle(rooms))
    depth = torch.stack([torch.from_numpy(sample.label) for sample in rooms])[:, None]
    cameras, poses = (torch.from_numpy(np.stack([getattr(x, y) for x in rooms])) for y in ("intrinsics", "world_from_camera"))
    assert still["tae"] == pytest.approx(float(temporal_alignment_error(depth, cameras, poses)), rel=1e-4)
    assert still["tae"] < 0.03
    jitter = flicker_of(rooms, Oracle(rooms, [1, 1.2, 1, 1.2]))
    assert jitter["flow_error"] > still["flow_error"] + 0.1
    assert jitter["flow_error"] < still["flow_error"] + np.log(1.2) + 1e-6
    assert jitter["tae"] > still["tae"] + 0.1


def test_what_a_film_leaves_undetermined_is_fitted_once(rooms: list[Sample]) -> None:
    """A scale and shift of the whole film changes nothing; one of each frame, which the protocol fits away, is flicker."""
    true = flicker_of(rooms, Oracle(rooms))
    model = Oracle(rooms, 3.0, disparity=True, shift=0.7)
    model.ambiguity = Ambiguity.SHIFT_SCALE
    assert flicker_of(rooms, model, AFFINE) == pytest.approx(true, rel=2e-2)
    jitter = Oracle(rooms, [1, 1.2, 1, 1.2], disparity=True)
    jitter.ambiguity = Ambiguity.SHIFT_SCALE
    found = evaluate(jitter, rooms, AFFINE, flicker=True, pictures=0, progress=False).summary
    assert found["abs_rel"] < 1e-4
    assert found["flow_error"] > true["flow_error"] + 0.05


def test_films_are_told_apart_and_scored_alike_from_memory_and_from_shards(rooms: list[Sample], tmp_path: Any) -> None:
    from depthkit.cli.scoring.evaluate import evaluation_samples

    other = film(1, "attic")
    both, model = [*rooms, *other], Oracle([*rooms, *other])
    found = flicker_of(both, model)
    each = [flicker_of(samples, model) for samples in (rooms, other)]
    for name, value in found.items():
        assert value == pytest.approx(np.mean([x[name] for x in each]), rel=1e-9)
    write_shards(both, tmp_path / "films", split="test", dataset="films", image_format="png")
    stored = evaluate(model, evaluation_samples(tmp_path / "films"), METRES, flicker=True, pictures=0, progress=False)
    assert {name: stored.summary[name] for name in found} == pytest.approx(found, rel=1e-2)


def test_without_poses_the_flow_alone_tells_and_single_images_are_no_film(rooms: list[Sample]) -> None:
    plain = [sample.replace(world_from_camera=None) for sample in rooms]
    summary = evaluate(Oracle(rooms), plain, METRES, flicker=True, pictures=0, progress=False).summary
    assert "flow_error" in summary
    assert "tae" not in summary
    alone = [rooms[0], rooms[1].replace(key="elsewhere/1")]
    with pytest.raises(RecipeError, match="expected successive frames of one film"):
        evaluate(Oracle(rooms), alone, METRES, flicker=True, pictures=0, progress=False)
    with pytest.raises(RecipeError, match="expected a protocol that compares maps of depth to score flicker"):
        evaluate(Oracle(rooms), rooms, PROTOCOLS["held_out_affine_384"], flicker=True, pictures=0, progress=False)
