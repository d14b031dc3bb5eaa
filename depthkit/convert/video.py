"""A video file: its frames as samples, each with its neighbours in time, and no label.

Any container and codec that FFmpeg reads (PyAV), as long as its packets have time stamps.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np

from depthkit.convert.records.frames import Frame, Frames, camera_matrix, every_nth, key_of, member, part
from depthkit.convert.records.neighbours import Spacing, Target, with_neighbours
from depthkit.errors import DepthKitError, LabelError, ShapeError
from depthkit.shards import Reject
from depthkit.types import Sample, Views

_MEMORY = 128 * 2**20  # bytes of decoded frames that are kept, so that the frame before need not be sought
_REMEDY = "Leave it out, or encode the video again: ffmpeg -i VIDEO new.mp4"


def samples(file: str | Path, split: str | None = None, **options: Any) -> Iterator[Sample]:
    """The samples of a video one by one; arguments and errors are those of ``frames``."""
    return iter(frames(file, split, **options))


def frames(
    file: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.2,
    intrinsics: Sequence[float] | None = None,
    views: Views | str = Views.SINGLE,
    spacing: int = 1,
    max_spacing: int | None = None,
    min_motion: float = 0.0,
    every: int = 1,
    first: int = 0,
    stop: int | None = None,
) -> Frames:
    """The frames of a video as a sequence of samples.

    Args:
        file: the video.
        split: None for all frames, ``train`` or ``test`` for those before or in the held-out end.
        holdout: fraction of the frames, at the end, that are for testing.
        intrinsics: fx, fy, cx, cy [px] of the upright picture; without them training has to find the camera itself.
        views: ``single``, or ``video`` to add the frames before and after.
        spacing: for video, how many frames away neighbours are; at 30 frames per second, 3 is a tenth of a second.
        max_spacing: see ``neighbours.Spacing.largest``.
        min_motion: see ``neighbours.Spacing``.
        every: use each n-th frame only; those between may still be neighbours.
        first: position of the first frame to use.
        stop: position after the last.

    Raises:
        DepthKitError: there is no such video, or PyAV is not installed.
        GeometryError: the intrinsics are none.
    """
    file, views = Path(file), member(Views, views, "views")
    gaps = Spacing.of(views, spacing, max_spacing, min_motion)
    if views not in (Views.SINGLE, Views.VIDEO):
        raise LabelError(f"expected views single or video; got {views}. A video file has no second camera.")
    matrix = None if intrinsics is None else camera_matrix(intrinsics, "intrinsics")
    video = Video(file)
    found = [Frame(key_of(file.stem, f"{n:06d}"), f"{file.name}#{n}", intrinsics=matrix) for n in range(len(video))[first:stop]]
    here = found[part(len(found), split, holdout)]
    chosen, rejects = tuple(every_nth(here, every)), tuple[Reject, ...]()
    if gaps:
        clip = dict(enumerate(here))
        targets = [Target(clip[time], clip, time) for time in every_nth(range(len(here)), every)]
        chosen, rejects = with_neighbours(targets, gaps, lambda name: video[_position(name)])
    if video.missing:
        rejects += (Reject(key_of(file.stem, "end"), f"the file ends {video.missing} frames early"),)
    return VideoFrames(file.parent, chosen, rejects=rejects, video=video)


@dataclass(frozen=True)
class VideoFrames(Frames):
    """Frames of a video file, named ``FILE#POSITION``.

    Attributes:
        video: what they are read from.
    """

    video: "Video" = field(kw_only=True)

    def image(self, name: str) -> np.ndarray:
        """A picture by its name, uint8 RGB ``(H, W, 3)``."""
        return self.video[_position(name)]


def _position(name: str) -> int:
    return int(name.rpartition("#")[2])


class Video(Sequence[np.ndarray]):
    """The pictures of a video file by position, each exactly the one that is shown at its time.

    Positions are found by time stamp from the key frame before them, so the order of access changes nothing but the time it
    takes; forward is fast. A picture is refused if the decoder met an error in anything since its key frame, because
    decoders show a guess in that case; damage that still decodes goes unnoticed. The file is opened when it is needed, once
    in every process.

    Attributes:
        times: when each is shown [s].
        size: (height, width) [px] of all, before they are turned upright.
        missing: pictures that the file should hold and does not.

    Args:
        file: the video.

    Raises:
        DepthKitError: it is no video, has no time stamps, or PyAV is not installed; from indexing: the picture is damaged.
        ShapeError: from indexing: a picture is not of the video's size.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        container, stream = _open(self.file)
        with container:
            packets = [packet for packet in _packets(container, stream) if packet.size and not packet.is_discard]
            if not packets or any(packet.pts is None for packet in packets):
                raise DepthKitError(
                    f"{self.file}: expected a video with time stamps; got {len(packets)} packets, some without. "
                    "Put it into a container that has them: ffmpeg -i VIDEO -c copy new.mkv"
                )
            self._stamps = sorted({packet.pts for packet in packets})
            self._keys = sorted({packet.pts for packet in packets if packet.is_keyframe} | {self._stamps[0]})
            self.times = tuple(float(stamp * stream.time_base) for stamp in self._stamps)
            self.size = (int(stream.height), int(stream.width))
            self.missing = max(stream.frames - len(self._stamps), 0)
        self._decoder: _Decoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None}

    def __len__(self) -> int:
        return len(self._stamps)

    @overload
    def __getitem__(self, position: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, position: slice) -> list[np.ndarray]: ...
    def __getitem__(self, position: int | slice) -> "np.ndarray | list[np.ndarray]":
        if isinstance(position, slice):
            return [self[n] for n in range(len(self))[position]]
        stamp = self._stamps[position]
        self._decoder = self._decoder or _Decoder(self.file, _MEMORY // (2 * self.size[0] * self.size[1]))
        frame = self._decoder(stamp, self._keys[bisect_right(self._keys, stamp) - 1])
        where = f"{self.file}: frame {position} ({self.times[position]:.3f} s)"
        if frame is None:
            raise DepthKitError(f"{where}: expected a picture that decodes; it or one that it builds on is damaged. {_REMEDY}")
        if (frame.height, frame.width) != self.size:
            raise ShapeError(
                f"{where}: expected {self.size[1]} x {self.size[0]} pixels, as the video begins; "
                f"got {frame.width} x {frame.height}. {_REMEDY}"
            )
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


class _Decoder:
    """An open video that goes to a time stamp and on from there, and remembers the last pictures.

    Args:
        file: the video.
        memory: pictures to remember, at least 4.
    """

    def __init__(self, file: Path, memory: int) -> None:
        self.file, self.memory = file, max(memory, 4)
        self.recent: OrderedDict[int, Any] = OrderedDict()
        self.lost = set[int]()
        self._begin()

    def __call__(self, stamp: int, key: int) -> Any:
        """The picture shown at a time stamp, whose key frame is that of another; None if it is damaged."""
        if stamp not in self.recent and stamp not in self.lost:
            if not key <= self.shown < stamp:
                self._seek(key)
            while self.shown < stamp and (packet := next(self.packets, None)):
                self._take(packet)
        return self.recent.get(stamp)

    def _begin(self) -> None:
        self.container, self.stream = _open(self.file)
        self._here(_packets(self.container, self.stream))

    def _here(self, packets: Iterator[Any]) -> None:
        self.packets, self.shown, self.whole = packets, -(2**63), True

    def _seek(self, key: int) -> None:
        """Go to where a key frame begins, or to the begin of the file if its index is wrong."""
        self.container.seek(key, stream=self.stream)
        packets = _packets(self.container, self.stream)
        first = next(packets, None)
        if first is None or first.pts is None or first.pts > key:
            self.container.close()
            self._begin()
        else:
            self._here(chain([first], packets))

    def _take(self, packet: Any) -> None:
        """Decode a packet and keep what pictures come of it, if all that they may build on is whole."""
        import av

        self.whole = self.whole or packet.is_keyframe
        try:
            shown = packet.decode()
        except av.error.FFmpegError:
            self.whole, shown = False, []
        self.whole = self.whole and not packet.is_corrupt
        if not self.whole and packet.pts is not None:
            self.lost.add(packet.pts)
        for frame in shown:
            self.shown = max(self.shown, frame.pts)
            if frame.is_corrupt:
                self.lost.add(frame.pts)
            if frame.pts not in self.lost:
                self.recent[frame.pts] = frame
        while len(self.recent) > self.memory:
            self.recent.popitem(last=False)


def _open(file: Path) -> tuple[Any, Any]:
    """The container and its first video stream."""
    try:
        import av
    except ImportError as error:
        raise DepthKitError(
            "expected PyAV to read video files; it is not installed. Run pip install 'depthkit[video]'."
        ) from error
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        remedy = "Use dataset folder for frames in a folder." if found == "a folder" else "Check the path."
        raise DepthKitError(f"expected a video file at {file}; found {found}. {remedy}")
    try:
        container = av.open(str(file))
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}  # an error, not a picture with a guess in it
        stream.codec_context.thread_count = 1  # so that an error comes with the packet that it is in
    except (av.error.FFmpegError, IndexError) as error:
        raise DepthKitError(
            f"{file}: expected a video file; it does not open ({error}). Get it again if it was cut short."
        ) from error
    return container, stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets up to the end, or up to where the file is broken."""
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return
