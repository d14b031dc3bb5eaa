"""The vocabulary and the conventions that the rest of depthkit obeys.

=================  =====================================================================================
quantity           convention
=================  =====================================================================================
image              float32 RGB in [0, 1], ``(B, 3, H, W)``; the network normalises its own input
depth              z along the optical axis [m], ``(B, 1, H, W)``; zero or negative is invalid
disparity          1 / depth [1/m]; a stereo rig's pixel disparity is ``stereo_disparity`` [px]
valid              bool, ``(B, 1, H, W)``; a label's value where it is False is arbitrary
sky                a valid label: disparity 0, depth inf
intrinsics         ``(B, 3, 3)`` [px] of the image they come with, pixel centres at integer coordinates
poses              ``a_from_b``, ``(B, 4, 4)``, translation [m]: ``x_a = a_from_b @ x_b``
camera axes        x right, y down, z forward
=================  =====================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:  # names of depthkit's types do not cost the second that torch takes to import
    import torch
    from torch import Tensor


class Ambiguity(StrEnum):
    """What a label leaves undetermined."""

    METRIC = "metric"
    """Nothing: true depth."""
    SCALE = "scale"
    """One positive factor on depth (UTS, "up to scale"): structure from motion."""
    SHIFT_SCALE = "shift_scale"
    """One positive factor and one offset on disparity (UTSS): stereo photos and films."""
    ORDINAL = "ordinal"
    """Everything but the order of annotated point pairs."""
    UNLABELLED = "unlabelled"
    """Everything: no label."""


class Representation(StrEnum):
    """What the numbers of a map are."""

    DEPTH = "depth"
    """z [m]."""
    DISPARITY = "disparity"
    """1 / z [1/m]."""
    LOG_DEPTH = "log_depth"
    """ln z, z in metres."""
    LOG_DISPARITY = "log_disparity"
    """-ln z, z in metres."""


class Views(StrEnum):
    """Which views of the scene a sample holds."""

    SINGLE = "single"
    VIDEO = "video"
    STEREO = "stereo"
    VIDEO_STEREO = "video_stereo"

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of the views beside the image, in the order of ``Batch.frames``."""
        video, stereo = ("prev", "next"), ("stereo",)
        return {Views.SINGLE: (), Views.VIDEO: video, Views.STEREO: stereo, Views.VIDEO_STEREO: video + stereo}[self]


AMBIGUITIES = tuple(Ambiguity)
"""Position of an ambiguity in this tuple is its code in ``Batch.ambiguity``."""
REPRESENTATIONS = tuple(Representation)
"""Position of a representation in this tuple is its code in ``Batch.representation``."""


class LabelKind(NamedTuple):
    """The kind of a label, a pair: what it leaves undetermined, and what its numbers are."""

    ambiguity: Ambiguity
    representation: Representation

    def __str__(self) -> str:
        return f"{self.ambiguity} {self.representation}"


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it, on the CPU, before batching.

    Attributes:
        key: name, unique in its dataset and free of dots.
        image: uint8 RGB, ``(H, W, 3)``.
        label: float32 in ``representation``, ``(H, W)``; arbitrary where not ``valid``. None if there is none.
        valid: bool, ``(H, W)``. None exactly if ``label`` is None.
        ambiguity: what the label leaves undetermined.
        representation: what the label's numbers are.
        sky: bool, ``(H, W)``, a subset of ``valid`` where there is a label.
        intrinsics: float64 ``(3, 3)`` [px] of ``image``.
        world_from_camera: float64 ``(4, 4)`` [m].
        stereo_baseline: distance between the two cameras of a rig [m].
        frames: further views by name (``prev``, ``next``, ``stereo``, ``frame-N``), uint8 ``(H, W, 3)`` each.
        frames_from_camera: pose ``frame_from_camera`` of such views by the same names, float64 ``(4, 4)`` [m].
        pairs: ordinal label, int32 ``(P, 5)``: row a, column a, row b, column b, order
            (+1: a is closer, -1: b is closer, 0: the same).
        source: where it came from (file names, licence), free text by name.
        edges: bool, ``(H, W)``, where the label jumps, of a test set that says so; transforms drop it.
    """

    key: str
    image: np.ndarray
    label: np.ndarray | None = None
    valid: np.ndarray | None = None
    ambiguity: Ambiguity = Ambiguity.UNLABELLED
    representation: Representation = Representation.DEPTH
    sky: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    world_from_camera: np.ndarray | None = None
    stereo_baseline: float | None = None
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    frames_from_camera: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: np.ndarray | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    edges: np.ndarray | None = None

    @property
    def kind(self) -> LabelKind:
        """The label's pair."""
        return LabelKind(self.ambiguity, self.representation)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image [px]."""
        return self.image.shape[0], self.image.shape[1]

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some attributes changed."""
        return replace(self, **changes)


def scene_of(key: str) -> str:
    """Name the scene of a sample: its key without the number at the end.

    >>> [scene_of(key) for key in ("office/000012", "kitchen_0007", "a/b-3")]
    ['office', 'kitchen', 'a/b']
    """
    return re.sub(r"[-_/]*\d+$", "", key) or "all"


_SMALL = ("ambiguity", "representation", "dataset", "real", "intrinsics", "frames_from_camera")
"""Fields of a batch whose values decide what is computed: ``Batch.on_host`` reads them without waiting for a device."""
_NOT_GIVEN: Any = object()  # views of no batch: what a batch without any holds has the batch's rows, size and device


@dataclass(frozen=True)
class Batch:
    """Samples of one size, stacked.

    Attributes:
        image: float32 RGB in [0, 1], ``(B, 3, H, W)``.
        target: float32 label, each row in its own ``representation``, ``(B, 1, H, W)``; arbitrary where not ``valid``.
        valid: bool, ``(B, 1, H, W)``; all False in a row without a dense label.
        sky: bool, ``(B, 1, H, W)``.
        ambiguity: int64 position in ``AMBIGUITIES``, ``(B,)``.
        representation: int64 position in ``REPRESENTATIONS``, ``(B,)``.
        dataset: int64 position of the sample's source in the datamodule's list, ``(B,)``.
        intrinsics: float32 ``(B, 3, 3)`` [px]; NaN in a row whose camera is unknown.
        real: bool ``(B,)``; False in rows that only pad an evaluation to equal steps on every rank.
        keys: names of the samples.
        pairs: int64 ``(B, P, 5)`` as in ``Sample.pairs``; rows of -1 pad. P is 0 without ordinal labels.
        frames: further views, float32 RGB in [0, 1], ``(B, S, 3, H, W)``; S is 0 for images alone, as by default.
        frames_from_camera: pose ``frame_from_camera`` [m] of each, float32 ``(B, S, 4, 4)``; NaN where it is unknown, as by
            default.
        edges: where the label jumps, bool ``(B, 1, H, W)``; ``(B, 0, H, W)`` where no sample says, as by default.
        world_from_camera: pose of the camera [m], float32 ``(B, 4, 4)``; NaN in a row where it is unknown, as by default.
        frame_names: what the S views are, such as ``("prev", "next")``; the same in every row.
        broken: samples that could not be read since the previous batch of the same worker, one sentence each.
        sent: of a batch that ``to`` moved, each small field with its values on the CPU; see ``on_host``.
    """

    image: Tensor
    target: Tensor
    valid: Tensor
    sky: Tensor
    ambiguity: Tensor
    representation: Tensor
    dataset: Tensor
    intrinsics: Tensor
    real: Tensor
    keys: tuple[str, ...]
    pairs: Tensor
    frames: Tensor = _NOT_GIVEN
    frames_from_camera: Tensor = _NOT_GIVEN
    edges: Tensor = _NOT_GIVEN
    world_from_camera: Tensor = _NOT_GIVEN
    frame_names: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    sent: tuple[tuple[Tensor, Tensor], ...] = ()

    def __post_init__(self) -> None:
        rows, (height, width) = len(self.image), self.image.shape[-2:]
        if self.frames is _NOT_GIVEN:
            object.__setattr__(self, "frames", self.image.new_zeros(rows, 0, 3, height, width))
        if self.frames_from_camera is _NOT_GIVEN:
            unknown = self.image.new_full((rows, self.frames.shape[1], 4, 4), float("nan")).float()
            object.__setattr__(self, "frames_from_camera", unknown)
        if self.edges is _NOT_GIVEN:
            object.__setattr__(self, "edges", self.valid.new_zeros(rows, 0, height, width))
        if self.world_from_camera is _NOT_GIVEN:
            object.__setattr__(self, "world_from_camera", self.image.new_full((rows, 4, 4), float("nan")).float())

    def __len__(self) -> int:
        return len(self.image)

    def _map(self, function: Any) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(x) for name, x in values.items() if not isinstance(x, tuple)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device, as Lightning asks; copies from page-locked memory to it do not wait."""
        ahead = str(device).startswith("cuda")
        moved = self._map(lambda x: x.to(device, non_blocking=non_blocking or (ahead and x.is_pinned())))
        return replace(moved, sent=tuple((getattr(moved, name), self.on_host(getattr(self, name))) for name in _SMALL))

    def double(self) -> Self:
        """Return the batch with its floating-point numbers in float64."""
        return self._map(lambda x: x.double() if x.is_floating_point() else x)

    def on_host(self, x: Tensor) -> Tensor:
        """Return a small field of this batch, such as ``batch.dataset``, on the CPU, without waiting for the device."""
        return next((host for there, host in self.sent if there is x), x).cpu()

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory, as ``DataLoader(pin_memory=True)`` asks."""
        return self._map(lambda x: x.pin_memory())

    def rows(self, keep: Tensor) -> Self:
        """Select the rows where ``keep``, bool ``(B,)`` on the CPU or a small field, is True."""
        keep = self.on_host(keep)
        if bool(keep.all()):
            return self
        index = keep.nonzero()[:, 0]
        there = index.to(self.image.device, non_blocking=self.image.device.type == "cuda")
        rows = replace(self._map(lambda x: x[there]), keys=tuple(self.keys[i] for i in index.tolist()))
        hosts = (self.on_host(getattr(self, name))[index] for name in _SMALL)
        return replace(rows, sent=tuple(zip((getattr(rows, name) for name in _SMALL), hosts, strict=True)))
