"""What a look at the data finds: labels, unit, range, scenes, duplicates, cameras."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from depthkit.cli.finetuning.division import near
from depthkit.cli.finetuning.sources import Source
from depthkit.errors import DepthKitError, LabelError
from depthkit.representation import convert
from depthkit.shards.label import UNITS, count_values, range_of
from depthkit.types import Ambiguity, LabelKind, Representation, scene_of

PLAUSIBLE = (0.05, 200.0)
"""Between what a median depth in metres may lie."""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        keys: names of the samples that can be read.
        positions: their places in the source.
        signatures: bool ``(N, 64)``; see ``signature``.
        kind: of the labels.
        range: the values below which 5, 50 and 95 % of the labels' pixels lie.
        valid: share of the pixels that have a label.
        sky: share that is known to be sky.
        size: (height, width) that most images have [px].
        focal: least and greatest focal length [px], None without intrinsics.
        with_camera: images with intrinsics.
        exact: images that are a copy of an earlier one.
        near: images that nearly show what an earlier one shows.
        broken: images that were left out, a sentence each.
    """

    keys: tuple[str, ...]
    positions: tuple[int, ...]
    signatures: np.ndarray
    kind: LabelKind
    range: tuple[float, float, float]
    valid: float
    sky: float
    size: tuple[int, int]
    focal: tuple[float, float] | None
    with_camera: int
    exact: int
    near: int
    broken: tuple[str, ...]

    @property
    def scenes(self) -> Counter[str]:
        """Images of each scene."""
        return Counter(map(scene_of, self.keys))

    @property
    def unit(self) -> str:
        """Unit of the labels; an unknown one is called arbitrary."""
        return UNITS[self.kind.representation] if self.kind.ambiguity == Ambiguity.METRIC else "arbitrary"

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "images": len(self.keys),
            "size": list(self.size),
            "label": {"ambiguity": str(self.kind.ambiguity), "representation": str(self.kind.representation)},
            "unit": self.unit,
            "range_5_50_95": list(self.range),
            "valid_share": round(self.valid, 6),
            "sky_share": round(self.sky, 6),
            "scenes": dict(self.scenes),
            "exact_duplicates": self.exact,
            "near_duplicates": self.near,
            "with_intrinsics": self.with_camera,
            "focal_length": None if self.focal is None else list(self.focal),
            "left_out": list(self.broken),
        }

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        low, middle, high = self.range
        yield f"images: {len(self.keys)}, most of them {self.size[0]}x{self.size[1]}; {len(self.scenes)} scene(s)"
        yield f"labels: {self.kind}, unit {self.unit}; 5, 50, 95 %: {low:g}, {middle:g}, {high:g}"
        sparse = "dense" if self.valid > 0.3 else "sparse"
        yield f"pixels with a label: {self.valid:.1%} ({sparse}); sky: {self.sky:.1%}"
        yield f"duplicates: {self.exact} exact, {self.near} near"
        camera = "none" if self.focal is None else f"of {self.with_camera} images, {self.focal[0]:g} to {self.focal[1]:g} px"
        yield f"intrinsics: {camera}"
        if self.broken:
            yield f"left out: {len(self.broken)}; the first, {self.broken[0]}"


def survey(samples: Source, data: str) -> Survey:
    """Look at every sample.

    Args:
        samples: opened by ``sources.opened``.
        data: what the user called them, for messages.

    Raises:
        LabelError: there are no dense labels, or their unit cannot be the metre.
    """
    _check_dense(samples.kind, data)
    keys, positions, signatures, digests = list[str](), list[int](), list[np.ndarray](), list[bytes]()
    counts, sizes, focals = Counter[int](), Counter[tuple[int, int]](), list[float]()
    valid, sky = list[float](), list[float]()
    broken = [f"{reject.name}: {reject.reason}" for reject in samples.rejects]
    for position in track(range(len(samples)), "looking at the data", transient=True):
        try:
            sample = samples[position]
            if sample.label is None or sample.valid is None or not sample.valid.any():
                raise LabelError("no pixel of its label is valid")
        except DepthKitError as error:
            broken.append(f"{samples.key(position)}: {error}")
            continue
        keys.append(sample.key)
        positions.append(position)
        signatures.append(signature(sample.image))
        digests.append(hashlib.blake2b(np.ascontiguousarray(sample.image).data, digest_size=16).digest())
        counts.update(count_values(sample.label, sample.valid))
        sizes[sample.size] += 1
        valid.append(float(sample.valid.mean()))
        sky.append(0.0 if sample.sky is None else float(sample.sky.mean()))
        if sample.intrinsics is not None:
            focals.append(float(sample.intrinsics[0, 0]))
    found = range_of(counts)
    if found is None:
        first = f" The first: {broken[0]}" if broken else ""
        raise LabelError(f"expected images with labels in {data}; got none that can be read.{first}")
    _check_unit(samples.kind, found, data)
    bits = np.stack(signatures)
    exact = len(digests) - len(set(digests))
    alike = int(near(bits, bits, earlier=True).sum())
    return Survey(
        tuple(keys), tuple(positions), bits, samples.kind, found, float(np.mean(valid)), float(np.mean(sky)),
        sizes.most_common(1)[0][0], (min(focals), max(focals)) if focals else None, len(focals), exact, alike - exact,
        tuple(broken),
    )  # fmt: skip


def signature(image: np.ndarray) -> np.ndarray:
    """Describe a picture by whether each of 8 x 8 places is darker than its right neighbour, bool ``(64,)``.

    Args:
        image: uint8 RGB, ``(H, W, 3)``.
    """
    small = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX))
    return (small[:, :-1] < small[:, 1:]).ravel()


def _check_dense(kind: LabelKind, data: str) -> None:
    if kind.ambiguity == Ambiguity.UNLABELLED:
        raise LabelError(
            f"expected labels to fine-tune on; {data} has none. Put 16-bit PNGs in depth/ (or disparity/) beside rgb/ under "
            "the names of the images, or let a teacher label them: `depthkit label`."
        )
    if kind.ambiguity == Ambiguity.ORDINAL:
        raise LabelError(f"expected a value per pixel; the labels of {data} order point pairs. Train with RankingLoss instead.")


def _check_unit(kind: LabelKind, found: tuple[float, float, float], data: str) -> None:
    """Refuse metres that cannot be."""
    if kind.ambiguity != Ambiguity.METRIC:
        return
    median = float(convert(torch.tensor([found[1]]), kind.representation, Representation.DEPTH))
    if not PLAUSIBLE[0] <= median <= PLAUSIBLE[1]:
        unit = "millimetres" if median > PLAUSIBLE[1] else "another unit"
        raise LabelError(
            f"expected labels in metres, their median between {PLAUSIBLE[0]:g} and {PLAUSIBLE[1]:g} m; that of {data} is "
            f"{median:g} m, so they are in {unit}. Give metres per integer as depth_scale, in intrinsics.json of a folder or "
            "to `depthkit shards write`."
        )
