"""Image files as batches for a predictor, read by other processes, and their results as files, written by other threads."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch.utils.data import IterableDataset, get_worker_info

from depthkit.checks import check_choice
from depthkit.errors import DepthKitError, LabelError, RecipeError, ShapeError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.images import is_image_name, is_prediction, read_image
from depthkit.inference.cameras import UNKNOWN, Cameras
from depthkit.inference.film.frames import ahead, is_film_name
from depthkit.inference.film.writing import FilmWriter
from depthkit.inference.outputs import COLOUR, CONFIDENCE
from depthkit.inference.prediction import Prediction, Unit, facts_beside
from depthkit.inference.predictor import Loaded, grouped
from depthkit.resize import InputResize
from depthkit.types import Ambiguity

LIST = ".txt"
"""What the name of a list of images ends in."""
FOV, MAX_EDGE, FAR = 60.0, 1.1, 10.0
"""Of point clouds: the field of view [degrees] of images whose camera is not known, and what ``to_point_cloud`` drops."""
_AHEAD = 4  # results per thread that may wait to be written


class Format(StrEnum):
    """Formats of results, and the suffixes of their files."""

    PNG = "png"
    NPY = "npy"
    EXR = "exr"
    PLY = "ply"
    GLB = "glb"
    MP4 = "mp4"
    """A film in colours, of films and folders of frames."""
    KITTI = "kitti"
    """What KITTI's depth benchmark takes: 16-bit PNG of 1/256 m under the image's own name, and nothing beside it."""


_CLOUDS = (Format.PLY, Format.GLB)


class Group(NamedTuple):
    """Images of one network size, and the sentences about the files before them that could not be read."""

    images: list[Loaded]
    broken: dict[str, str]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Stay where it is: the predictor moves one image at a time. Lightning calls this."""
        return self


class ImageReader(IterableDataset[Group]):
    """Read image files in groups of one network size, by worker processes that share the files, or else by a thread.

    Args:
        files: which.
        rule: size at which the network sees an image.
        multiple: what each side of it must be a multiple of [px].
        batch_size: images per group, at most.
        cameras: where their intrinsics are looked for.
        resized: also resize images, for a network on the processor itself.
    """

    def __init__(
        self,
        files: Sequence[Path],
        rule: InputResize,
        multiple: int,
        batch_size: int,
        cameras: Cameras = UNKNOWN,
        *,
        resized: bool = False,
    ) -> None:
        self.files, self.rule, self.multiple, self.batch_size = tuple(files), rule, multiple, batch_size
        self.cameras, self.resized = cameras, resized

    def __iter__(self) -> Iterator[Group]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        broken: dict[str, str] = {}

        def loaded() -> Iterator[Loaded]:
            for file in self.files[first::step]:
                try:
                    image = torch.from_numpy(read_image(file, photo=True)).permute(2, 0, 1)[None]
                    size = image.shape[-2], image.shape[-1]
                    camera = self.cameras.of(file, size)
                except DepthKitError as error:
                    broken[str(file)] = str(error)
                else:
                    seen = self.rule(image, self.multiple) if self.resized else None
                    yield Loaded(str(file), image, self.rule.size(*size, self.multiple), camera, seen)

        def groups() -> Iterator[Group]:
            for images in grouped(loaded(), self.batch_size):
                yield Group(images, dict(broken))
                broken.clear()
            if broken:
                yield Group([], broken)

        yield from groups() if info else ahead(groups())


@dataclass(frozen=True)
class Results:
    """How the results of image files are written.

    Attributes:
        format: of the main result.
        unit: of the codes of a PNG.
        span: one range of values for the colours, PNG codes and points of all files; None: each map's own.
        colour: also write ``<name>.colour.png``.
        max_edge: see ``Prediction.to_point_cloud``.
        far: see ``Prediction.to_point_cloud``.
        confidence: also write ``<name>.confidence.png``; ``.npy`` or ``.exr`` beside maps of that format.

    Raises:
        RecipeError: a unit of another format, an empty range, or confidence beside what KITTI's server takes.
    """

    format: str = Format.PNG
    unit: str = Unit.RELATIVE
    span: tuple[float, float] | None = None
    colour: bool = True
    max_edge: float | None = MAX_EDGE
    far: float | None = FAR
    confidence: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", check_choice("format", self.format, Format))
        object.__setattr__(self, "unit", check_choice("unit", self.unit, Unit))
        if self.format in (Format.KITTI, Format.MP4):
            object.__setattr__(self, "colour", False)
        if self.format in (Format.KITTI, Format.MP4) and self.confidence:
            raise RecipeError(f"expected no confidence with format {self.format}, which holds nothing else; leave out one.")
        if self.unit != Unit.RELATIVE and self.format != Format.PNG:
            raise RecipeError(f"expected format png for the unit {self.unit}; got {self.format}. Leave out the unit.")
        if self.span is not None and not self.span[0] < self.span[1]:
            raise RecipeError(f"expected a range from a lower to a higher value; got {self.span[0]:g} and {self.span[1]:g}.")

    @property
    def endings(self) -> tuple[str, ...]:
        """What the names of an image's results end in."""
        more = (COLOUR,) * self.colour + (self._confidence,) * self.confidence
        return self.suffix, *more

    @property
    def suffix(self) -> str:
        """Ending of the main result."""
        return ".png" if self.format == Format.KITTI else f".{self.format}"

    @property
    def _confidence(self) -> str:
        """Ending of a confidence map."""
        return f"{CONFIDENCE}{self.suffix if self.format in (Format.NPY, Format.EXR) else '.png'}"

    def check(self, ambiguity: Ambiguity) -> None:
        """Check that a network's predictions can be written so, before the first is made.

        Raises:
            LabelError: they have no depth, or none in metres.
        """
        if self.format in _CLOUDS and ambiguity == Ambiguity.SHIFT_SCALE:
            raise LabelError(
                f"expected a network that predicts depth, or depth up to scale, for format {self.format}; this one predicts "
                "up to scale and shift, and the shift is not known. Choose format png or npy, or another network."
            )
        if (self.unit != Unit.RELATIVE or self.format == Format.KITTI) and ambiguity != Ambiguity.METRIC:
            wanted = f"format {self.format}" if self.format == Format.KITTI else f"the unit {self.unit}"
            raise LabelError(
                f"expected a network that predicts metres for {wanted}; this one predicts up to {ambiguity}. "
                f"Choose unit {Unit.RELATIVE} and format {Format.PNG}, or find its scale by `depthkit calibrate`."
            )

    def write(self, prediction: Prediction, names: Callable[[str, str], Path]) -> None:
        """Write the results of an image, whose name the prediction bears."""
        path = names(prediction.name, self.suffix)
        if self.format == Format.KITTI:
            prediction.save_kitti(path)
        elif self.format in _CLOUDS:
            camera = prediction.intrinsics
            if camera is None:
                camera = intrinsics_from_field_of_view((prediction.map.shape[0], prediction.map.shape[1]), FOV)
            prediction.save_point_cloud(path, camera, max_edge=self.max_edge, far=self.far, span=self.span)
        else:
            prediction.save(path, unit=self.unit, span=self.span)
        if self.colour:
            prediction.save_colour(names(prediction.name, COLOUR), span=self.span)
        if self.confidence:
            prediction.save_confidence(names(prediction.name, self._confidence))


@dataclass
class Writer:
    """Write predictions by threads while others are made; no more of them wait than memory holds.

    Attributes:
        results: how.
        names: where.
        threads: how many write.
        written: images whose results are there.
        broken: why others have none, by their files.
    """

    results: Results | FilmWriter
    names: Callable[[str, str], Path]
    threads: int = 2
    written: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    _pool: Any = None
    _pending: deque[tuple[str, Future[None]]] = field(default_factory=deque)

    def add(self, prediction: Prediction) -> None:
        """Hand over a prediction; wait if many are not written yet."""
        prediction = prediction if self.results.format in _CLOUDS else replace(prediction, image=None)
        self.make(prediction.name, lambda: prediction)

    def make(self, name: str, prediction: Callable[[], Prediction]) -> None:
        """Hand over what makes the prediction of that name, in a thread of the writer; wait if many are not written yet."""
        self._pool = self._pool or ThreadPoolExecutor(self.threads)
        self._pending.append((name, self._pool.submit(lambda: self.results.write(prediction(), self.names))))
        self.collect(_AHEAD * self.threads)

    def collect(self, waiting: int = 0) -> None:
        """Wait until at most this many predictions remain to be written."""
        while len(self._pending) > waiting:
            name, job = self._pending.popleft()
            try:
                job.result()
            except DepthKitError as error:
                if isinstance(error.__cause__, OSError):  # a full disk is none of this image alone
                    raise
                self.broken[name] = str(error)
            else:
                self.written += 1

    def close(self) -> None:
        """Write what was handed over, and start nothing new."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for _, job in self._pending:
            self.written += job.done() and job.exception() is None
        self._pending.clear()


def listed(sources: Sequence[str | Path]) -> list[Path]:
    """Replace each list among sources, a text file with a path in each line, by what it names.

    Paths are from the folder of the list; empty lines, and those that begin with #, name nothing.

    Raises:
        ShapeError: there is no such list, or it names nothing.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if source.suffix.lower() != LIST:
            found.append(source)
            continue
        if not source.is_file():
            raise ShapeError(f"expected a list of images at {source}; there is no such file. Check the path.")
        lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines()]
        names = [source.parent / line for line in lines if line and not line.startswith("#")]
        if not names:
            raise ShapeError(f"expected a path in each line of {source}; it names none.")
        found += names
    return found


def left_out(sources: Sequence[Path]) -> dict[str, int]:
    """Count the files in the folders among sources that are no images to predict, by why."""
    counts = {"no image files": 0, "hidden": 0, "written by depthkit": 0}
    for folder in filter(Path.is_dir, sources):
        for file in folder.rglob("*"):
            inside = file.relative_to(folder)
            if file.is_dir():
                continue
            if any(part.startswith(".") for part in inside.parts):
                counts["hidden"] += 1
            elif is_film_name(inside):
                counts["written by depthkit"] += facts_beside(file).is_file()
            elif not is_image_name(inside):
                counts["no image files"] += 1
            elif is_prediction(file):
                counts["written by depthkit"] += 1
    return {why: count for why, count in counts.items() if count}


def workers_that_help(num_workers: int | None) -> int:
    """How many processes read: as asked, else one for each two processors up to 4, none where there are two or fewer."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors // 2, 4) * (processors > 2) if num_workers is None else num_workers
