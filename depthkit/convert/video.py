"""A video file: its frames as samples, each with its neighbours in time, and no label.

Any container and codec that FFmpeg reads (PyAV), as long as its packets have time stamps.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.chain import Chain, chained, films_in
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.neighbours import Spacing, Target, with_neighbours
from depthkit.convert.records.record import UNLABELLED, Record, Records, camera_matrix, every_nth, key_of, part
from depthkit.errors import DepthKitError, LabelError, ShapeError
from depthkit.images import MAX_PIXELS
from depthkit.shards import Reject
from depthkit.types import Views

_MEMORY = 128 * 2**20  # bytes of decoded frames that are kept, so that the frame before need not be sought
_REMEDY = "Leave it out, or encode the video again: ffmpeg -i VIDEO new.mp4"


def video(
    root: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.0,
    intrinsics: Sequence[float] | None = None,
    views: Views | str = Views.SINGLE,
    spacing: int = 1,
    max_spacing: int | None = None,
    min_motion: float = 0.0,
    every: int = 1,
    first: int = 0,
    stop: int | None = None,
) -> Records | Chain:
    """Read the frames of a video, or of a folder of videos one behind the other.

    Args:
        root: the video file, or a folder of such files.
        split: None for all frames, ``train`` or ``test`` for those before or in the held-out end of each video.
        holdout: fraction of the frames, at the end, that are for testing.
        intrinsics: fx, fy, cx, cy [px] of the upright picture; without them training has to find the camera itself.
        views: single, or video to add the frames before and after.
        spacing: how many frames away these neighbours are; 3 is a tenth of a second at 30 frames per second.
        max_spacing: where less than min_motion moves, try neighbours up to this many frames away.
        min_motion: leave out images whose neighbours move less, as mean optical flow [px at width 416].
        every: use each n-th frame only; those between may still be neighbours.
        first: position of the first frame to use.
        stop: position after the last.

    Raises:
        DepthKitError: there is no such video, or PyAV is not installed.
        GeometryError: the intrinsics are none.
    """
    root, views = Path(root), check_choice("views", views, Views)
    gaps = Spacing.of(views, spacing, max_spacing, min_motion)
    if views not in (Views.SINGLE, Views.VIDEO):
        raise LabelError(f"expected views single or video; got {views}. A video file has no second camera.")
    matrix = None if intrinsics is None else camera_matrix(intrinsics, "intrinsics")

    def read(file: Path) -> VideoFrames:
        pictures = Video(file)
        names = [(key_of(file.stem, f"{n:06d}"), f"{file.name}#{n}") for n in range(len(pictures))[first:stop]]
        here = [Record(key, name, intrinsics=matrix) for key, name in names][part(len(names), split, holdout)]
        return _with_gaps(VideoFrames(file.parent, tuple(here), video=pictures), gaps, every, file.stem)

    return chained(root, films_in(root), read, UNLABELLED) if root.is_dir() else read(root)


@dataclass(frozen=True)
class VideoFrames(Records):
    """Records of a video file, named ``FILE#POSITION``.

    Attributes:
        video: what they are read from.
    """

    video: "Video" = field(kw_only=True)

    def image(self, name: str) -> np.ndarray:
        """Return a picture by its name, uint8 RGB ``(H, W, 3)``."""
        return self.video[_position(name)]


def _with_gaps(film: VideoFrames, gaps: Spacing | None, every: int, name: str) -> VideoFrames:
    """Keep each n-th frame, with its neighbours if they are asked for."""
    here = film.records
    chosen, rejects = tuple(every_nth(here, every)), tuple[Reject, ...]()
    if gaps:
        clip = dict(enumerate(here))
        chosen, rejects = with_neighbours(
            [Target(clip[t], clip, t) for t in every_nth(range(len(here)), every)], gaps, film.image
        )
    if film.video.missing:
        rejects += (Reject(key_of(name, "end"), f"the file ends {film.video.missing} frames early"),)
    return replace(film, records=chosen, rejects=rejects)


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
        """Return the picture shown at a time stamp, from the key frame of another; None if it is damaged."""
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
        import av

        packets = _packets(self.container, self.stream)
        try:
            self.container.seek(key, stream=self.stream)
            first = next(packets, None)
        except av.error.FFmpegError:
            first = None
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
            if frame.pts is None:
                continue
            self.shown = max(self.shown, frame.pts)
            if frame.is_corrupt:
                self.lost.add(frame.pts)
            if frame.pts not in self.lost:
                self.recent[frame.pts] = frame
        while len(self.recent) > self.memory:
            self.recent.popitem(last=False)


def _open(file: Path) -> tuple[Any, Any]:
    """Open the container and its first video stream."""
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
        container = av.open(str(file), metadata_errors="replace")
        if not container.streams.video:
            container.close()
            raise DepthKitError(f"{file}: expected a video file; it holds no pictures, such as sound alone. Give another file.")
        stream = container.streams.video[0]
        if stream.codec_context is None or not (stream.width and stream.height and stream.time_base):
            container.close()
            raise DepthKitError(f"{file}: expected a video of a known codec and size; its head is damaged. Get it again.")
        if stream.width * stream.height > MAX_PIXELS:
            container.close()
            raise DepthKitError(
                f"{file}: expected pictures of at most {MAX_PIXELS} pixels; got {stream.width} x {stream.height}. Get it again."
            )
        stream.codec_context.options = {
            "err_detect": "explode",  # an error, not a picture with a guess in it
            "max_pixels": str(MAX_PIXELS),
        }
        stream.codec_context.thread_count = 1  # so that an error comes with the packet that it is in
    except av.error.FFmpegError as error:
        raise DepthKitError(
            f"{file}: expected a video file; it does not open ({error}). Get it again if it was cut short."
        ) from error
    return container, stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets up to the end, or up to where the file is broken."""
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return


DATASETS = (
    Dataset(
        name="video",
        read=video,
        layout="a video file, or a folder of them",
        kind=UNLABELLED,
        unit="no label",
        invalid="no label",
        sky="not marked",
        camera="as given",
        source="depthkit",
        licence="",
        splits="the end of each film is held out",
        test="tests/convert/test_video.py",
        real=True,
    ),
)
