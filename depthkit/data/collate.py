"""Samples into one ``Batch``."""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from depthkit.errors import ShapeError
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Batch, Sample


def collate(
    samples: Sequence[Sample], datasets: Sequence[int], *, real: Sequence[bool] | None = None, broken: Sequence[str] = ()
) -> Batch:
    """Stack samples of one size, with the image still in 8 bits; ``finished`` makes it what a ``Batch`` promises.

    Between the two lies the way from a worker to the main process, and a quarter of the bytes is a quarter of the cost.

    Args:
        samples: at least one.
        datasets: position of each sample's source.
        real: False where a row only pads; None where all are real.
        broken: what could not be read on the way to this batch, one sentence each.

    Raises:
        ShapeError: the images differ in size.
    """
    height, width = samples[0].size
    for sample in samples:
        if sample.size != (height, width):
            raise ShapeError(
                f"expected images of one size in a batch; got {samples[0].size} ({samples[0].key}) and {sample.size} "
                f"({sample.key}). Resize them with a transform, or use a batch size of 1."
            )
    rows = len(samples)
    image = _zeros(torch.uint8, rows, 3, height, width)
    target = _zeros(torch.float32, rows, 1, height, width)
    valid, sky = (_zeros(torch.bool, rows, 1, height, width) for _ in range(2))
    intrinsics = torch.full((rows, 3, 3), torch.nan)
    pairs = torch.full((rows, max((len(s.pairs) for s in samples if s.pairs is not None), default=0), 5), -1)
    for row, sample in enumerate(samples):
        for channel, plane in enumerate(cv2.split(sample.image)):
            image[row, channel].copy_(torch.from_numpy(plane))
        if sample.label is not None and sample.valid is not None:
            target[row, 0].copy_(torch.from_numpy(np.ascontiguousarray(sample.label)))
            valid[row, 0].copy_(torch.from_numpy(np.ascontiguousarray(sample.valid)))
        if sample.sky is not None:
            sky[row, 0].copy_(torch.from_numpy(np.ascontiguousarray(sample.sky)))
        if sample.intrinsics is not None:
            intrinsics[row] = torch.from_numpy(sample.intrinsics)
        if sample.pairs is not None:
            pairs[row, : len(sample.pairs)] = torch.from_numpy(sample.pairs)
    return Batch(
        image=image,
        target=target,
        valid=valid,
        sky=sky,
        ambiguity=torch.tensor([AMBIGUITIES.index(s.ambiguity) for s in samples]),
        representation=torch.tensor([REPRESENTATIONS.index(s.representation) for s in samples]),
        dataset=torch.tensor(list(datasets)),
        intrinsics=intrinsics,
        real=torch.ones(rows, dtype=torch.bool) if real is None else torch.tensor(list(real)),
        keys=tuple(s.key for s in samples),
        pairs=pairs,
        broken=tuple(broken),
    )


def finished(batch: Batch, *, pin_memory: bool = False) -> Batch:
    """The batch with its image in float32, in [0, 1]."""
    image = torch.empty(batch.image.shape, pin_memory=pin_memory)
    return replace(batch, image=torch.div(batch.image, 255, out=image))


def padding(sample: Sample) -> Sample:
    """A row that only pads: the sample's size, nothing to learn or score."""
    return Sample(key=sample.key, image=np.zeros_like(sample.image))


def _zeros(dtype: torch.dtype, *shape: int) -> Tensor:
    """Memory for a batch; in a worker process at once in what it shares with the main process, which saves a copy."""
    if get_worker_info() is None:
        return torch.zeros(shape, dtype=dtype)
    shared = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # comes zeroed from the system
    return torch.empty(0, dtype=dtype).set_(shared, 0, shape)  # type: ignore[call-overload]
