"""Samples into one ``Batch``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import torch
from torch import Tensor

from depthkit.data.stream.memory import borrowed
from depthkit.errors import ShapeError
from depthkit.shards.label import CodedLabel
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Batch, Sample, Views


class Pixels(NamedTuple):
    """Hold what a batch has for every pixel, on its way from a worker to the main process: images still in 8 bits."""

    image: Tensor
    frames: Tensor
    target: Tensor
    valid: Tensor
    sky: Tensor

    @classmethod
    def blank(cls, rows: int, height: int, width: int, views: int = 0) -> Self:
        """Return zeros for ``rows`` rows with ``views`` further views each."""
        masks = (torch.zeros(rows, 1, height, width, dtype=torch.bool) for _ in range(2))
        image = torch.zeros(rows, 3, height, width, dtype=torch.uint8)
        frames = torch.zeros(rows, views, 3, height, width, dtype=torch.uint8)
        return cls(image, frames, torch.zeros(rows, 1, height, width), *masks)

    @classmethod
    def unwritten(cls, rows: int, height: int, width: int, views: int = 0) -> Self:
        """Return the same with arbitrary content."""
        masks = (borrowed((rows, 1, height, width), torch.bool) for _ in range(2))
        image, frames = (borrowed((rows, *shape, 3, height, width), torch.uint8) for shape in ((), (views,)))
        return cls(image, frames, borrowed((rows, 1, height, width)), *masks)

    def rows(self, number: int) -> Self:
        """Return the first ``number`` rows."""
        return type(self)(*(part[:number] for part in self))


def collate(
    samples: Sequence[Sample],
    datasets: Sequence[int],
    *,
    coded: Sequence[CodedLabel | None] = (),
    real: Sequence[bool] | None = None,
    broken: Sequence[str] = (),
    buffer: Pixels | None = None,
) -> Batch:
    """Stack samples of one size, with images still in 8 bits; ``to_float`` makes it what a ``Batch`` promises.

    Args:
        samples: at least one.
        datasets: position of each sample's source.
        coded: how to look up the label of each sample that holds codes instead of values; none does by default.
        real: False where a row only pads; None where all are real.
        broken: what could not be read on the way to this batch, one sentence each.
        buffer: memory to write to, for at least as many rows of this size and these views; None to ask for some.

    Raises:
        ShapeError: the samples differ in size or in the names of their further views.
    """
    height, width = samples[0].size
    names = frame_names(samples[0])
    for sample in samples:
        if sample.size != (height, width):
            raise ShapeError(
                f"expected images of one size in a batch; got {samples[0].size} ({samples[0].key}) and {sample.size} "
                f"({sample.key}). Resize them with a transform, or use a batch size of 1."
            )
        if frame_names(sample) != names:
            raise ShapeError(
                f"expected the same further views in a batch; got {_listed(names)} ({samples[0].key}) and "
                f"{_listed(frame_names(sample))} ({sample.key}). Read only the views that all samples hold."
            )
    rows = len(samples)
    pixels = (buffer or Pixels.unwritten(rows, height, width, len(names))).rows(rows)
    intrinsics = torch.full((rows, 3, 3), torch.nan)
    poses = torch.full((rows, len(names), 4, 4), torch.nan)
    cameras = torch.full((rows, 4, 4), torch.nan)
    pairs = torch.full((rows, max((len(s.pairs) for s in samples if s.pairs is not None), default=0), 5), -1)
    jumps = any(sample.edges is not None for sample in samples)
    edges = torch.zeros(rows, int(jumps), height, width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        if sample.edges is not None:
            edges[row, 0] = torch.from_numpy(sample.edges)
        _write(pixels.image[row], sample.image)
        for view, name in enumerate(names):
            _write(pixels.frames[row, view], sample.frames[name])
            if name in sample.frames_from_camera:
                poses[row, view] = torch.from_numpy(sample.frames_from_camera[name])
        _write_label(sample, coded[row] if coded else None, *(part[row, 0].numpy() for part in pixels[2:]))
        if sample.intrinsics is not None:
            intrinsics[row] = torch.from_numpy(sample.intrinsics)
        if sample.world_from_camera is not None:
            cameras[row] = torch.from_numpy(sample.world_from_camera)
        if sample.pairs is not None:
            pairs[row, : len(sample.pairs)] = torch.from_numpy(sample.pairs)
    return Batch(
        **pixels._asdict(),
        ambiguity=torch.tensor([AMBIGUITIES.index(s.ambiguity) for s in samples]),
        representation=torch.tensor([REPRESENTATIONS.index(s.representation) for s in samples]),
        dataset=torch.tensor(list(datasets)),
        intrinsics=intrinsics,
        real=torch.ones(rows, dtype=torch.bool) if real is None else torch.tensor(list(real)),
        keys=tuple(s.key for s in samples),
        pairs=pairs,
        frames_from_camera=poses,
        edges=edges,
        world_from_camera=cameras,
        frame_names=names,
        broken=tuple(broken),
    )


def as_batch(data: Any) -> Any:
    """Make a batch of one or several samples, as a loader of one's own may yield them; return anything else as it is."""
    samples = [data] if isinstance(data, Sample) else data
    if isinstance(samples, list | tuple) and samples and all(isinstance(x, Sample) for x in samples):
        return to_float(collate(samples, [0] * len(samples)))
    return to_float(data) if isinstance(data, Batch) and data.image.dtype == torch.uint8 else data


def frame_names(sample: Sample) -> tuple[str, ...]:
    """Return the names of the sample's further views in the order of ``Batch.frames``: prev, next, stereo, others by name."""
    first = Views.VIDEO_STEREO.frames
    return tuple(name for name in first if name in sample.frames) + tuple(sorted(sample.frames.keys() - set(first)))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _write(planes: Tensor, image: np.ndarray) -> None:
    """Pixels ``(H, W, 3)`` to planes ``(3, H, W)``."""
    cv2.mixChannels([image], list(planes.numpy()), [0, 0, 1, 1, 2, 2])


def _write_label(sample: Sample, coded: CodedLabel | None, value: np.ndarray, valid: np.ndarray, sky: np.ndarray) -> None:
    far = sample.sky
    if coded is not None:
        dense = coded.read(sample.label, value=value, valid=valid)
        far = dense.infinite if far is None else far & dense.valid
    else:
        value[...] = 0 if sample.label is None else sample.label
        valid[...] = False if sample.valid is None else sample.valid
    sky[...] = False if far is None else far


def to_float(batch: Batch, pixels: Pixels | None = None, *, pin_memory: bool = False) -> Batch:
    """Return the batch with its images in float32, in [0, 1], on the device where it is.

    Args:
        batch: from ``collate``.
        pixels: its large parts, if it came without them; they are copied, so that their memory may be used again.
        pin_memory: whether what is made here lies in page-locked memory.
    """
    if pixels is not None:
        rest = Pixels(pixels.image[:0], pixels.frames[:0], *pixels[2:])
        batch = replace(copied(batch, rest, pin_memory=pin_memory), image=pixels.image, frames=pixels.frames)
    # By a tensor: of a number, CUDA takes the reciprocal and multiplies, which rounds otherwise.
    most = torch.full((), 255.0, device=batch.image.device)

    def converted(x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return x.to(torch.float32, copy=True).div_(most)
        out = borrowed(x.shape, pin_memory=pin_memory)
        for plane, codes in zip(out.flatten(0, -3), x.flatten(0, -3), strict=True):  # each while it is in the cache
            plane.copy_(codes).div_(most)
        return out

    return replace(batch, image=converted(batch.image), frames=converted(batch.frames))


def copied(batch: Batch, pixels: Pixels, *, pin_memory: bool = False) -> Batch:
    """Return the batch with a copy of its large parts, images still in 8 bits."""
    own = (borrowed(part.shape, part.dtype, pin_memory=pin_memory).copy_(part) for part in pixels)
    return replace(batch, **Pixels(*own)._asdict())


def padding(sample: Sample) -> Sample:
    """Return a row that only pads: the sample's size and views, nothing to learn or score."""
    black = np.zeros_like(sample.image)
    return Sample(key=sample.key, image=black, frames=dict.fromkeys(sample.frames, black))
