"""The frames of a film, a folder or any sequence of images, read and compared while the network looks at the one before."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from depthkit.convert.records.chain import FILMS
from depthkit.convert.video import Video
from depthkit.errors import DepthKitError, ShapeError
from depthkit.geometry.flow import Motion, motion_between, small_grey
from depthkit.images import as_image, find_images, is_image_name, read_image

Item = TypeVar("Item")
OnError = Callable[[str, DepthKitError], None]
RATE = 25.0
"""Frames per second of what has no times of its own, such as a folder of images."""


class Frame(NamedTuple):
    """A picture of a film.

    Attributes:
        name: of it.
        image: RGB uint8 ``(H, W, 3)``.
        time: when it is shown [s].
        file: that it has for itself.
        motion: since the frame before.
    """

    name: str
    image: np.ndarray
    time: float
    file: Path | None = None
    motion: Motion | None = None


class Footage:
    """Frames that can be gone through once or more, one in memory at a time.

    Args:
        source: a film that FFmpeg reads, a folder of images in the order of their names, or an iterable of images as of
            ``DepthPredictor``, which may be endless.
        on_error: called with the name of each frame that cannot be read, which is then left out; None raises.
        rate: frames per second of a folder or an iterable.

    Attributes:
        total: frames there should be; None for an iterable.

    Raises:
        DepthKitError: there is no such film or folder, it has no pictures, or PyAV is not installed.
    """

    def __init__(self, source: Any, *, on_error: OnError | None = None, rate: float = RATE) -> None:
        self.source, self.on_error, self.rate = source, on_error, rate
        self.total: int | None = None
        if isinstance(source, str | Path):
            path = Path(source)
            if path.is_file() and is_image_name(path):
                raise ShapeError(f"expected a film or a folder of frames; got an image, {path}. Predict it as one.")
            if path.is_dir():
                self.source = find_images(path)
            else:
                self.source = Video(path)
                self.total = len(self.source) + self.source.missing
        if isinstance(self.source, list | tuple):
            self.total = len(self.source)

    def __iter__(self) -> Iterator[Frame]:
        if isinstance(self.source, Video):
            yield from self._of_film(self.source)
            return
        for position, item in enumerate(self.source):
            name = str(item) if isinstance(item, str | Path) else f"frame {position}"
            if (image := self._read(name, partial(_picture, item))) is not None:
                yield Frame(name, image, position / self.rate, Path(item) if isinstance(item, str | Path) else None)

    def _of_film(self, film: Video) -> Iterator[Frame]:
        for position, time in enumerate(film.times):
            name = frame_name(film.file, position)
            if (image := self._read(name, partial(film.__getitem__, position))) is not None:
                yield Frame(name, image, time)
        for position in range(len(film), len(film) + film.missing):
            name = frame_name(film.file, position)
            self._refuse(
                name, DepthKitError(f"{name}: expected a frame; the film ends before. Get it again if it was cut short.")
            )

    def _read(self, name: str, read: Callable[[], np.ndarray]) -> np.ndarray | None:
        try:
            return read()
        except DepthKitError as error:
            self._refuse(name, error)
            return None

    def _refuse(self, name: str, error: DepthKitError) -> None:
        if self.on_error is None:
            raise error
        self.on_error(name, error)


def frame_name(film: Path, position: int) -> str:
    """Name a frame of a film."""
    return f"{film}#{position:06d}"


def is_film_name(path: str | Path) -> bool:
    """Tell whether a path ends like a film."""
    return Path(path).suffix.lower() in FILMS


def with_motion(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Add to each frame its motion since the one before."""
    before: np.ndarray | None = None
    for frame in frames:
        grey = small_grey(frame.image)
        yield frame if before is None else frame._replace(motion=motion_between(before, grey))
        before = grey


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, making the next one in another thread meanwhile."""
    iterator, nothing = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, nothing)
        while (item := coming.result()) is not nothing:
            coming = pool.submit(next, iterator, nothing)
            yield item  # type: ignore[misc]


def _picture(item: Any) -> np.ndarray:
    """Read a frame of any kind as uint8 RGB ``(H, W, 3)``."""
    if isinstance(item, str | Path):
        return read_image(item, photo=True)
    image = as_image(item)[0]
    found: np.ndarray = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return found
