"""Depth from a file of any ending: integers, floating-point numbers, or numbers in the channels of a picture."""

import io
import re
import zipfile
import zlib
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np

from depthkit.convert.records.files import read_bytes, read_exr, read_npy, read_pfm, read_pnm
from depthkit.convert.records.record import Annotation, Record
from depthkit.errors import GeometryError, LabelError
from depthkit.images import MAX_PIXELS, opened
from depthkit.shards.images import decode_pixels

_FAR = 1e6  # from which on a floating-point map means its background, as renderers write it
_SATURATED = 65535
_CARLA_FAR, _CARLA_LAST = 1000.0, 2**24 - 1
_AIRSIM_SKY = 5000.0  # the engine's sky is a sphere at some 10 km


class Coding(StrEnum):
    """How 8-bit PNGs hold depth."""

    AUTO = "auto"
    """Not at all: they are pictures of depth, and refused."""
    CARLA = "carla"
    """Kilometres in 24 bits, red the lowest; all bits are the sky."""
    FLOAT32 = "float32"
    """Metres, the four bytes of a float32 in blue, green, red and alpha (TartanAir's second version)."""


def read_depth(
    root: Path, record: Record, size: tuple[int, int], *, coding: Coding = Coding.AUTO, whole: float = 1.0, ray: bool = False
) -> Annotation:
    """Read the label of a record.

    Args:
        root: folder.
        record: its ``scale`` is label units per integer.
        size: of its image.
        coding: of 8-bit PNGs.
        whole: what a floating-point number is multiplied by to make an integer of it.
        ray: the file holds distances from the camera, not along its axis.

    Raises:
        LabelError: the file is no depth.
        GeometryError: distances from the camera without intrinsics.
    """
    assert record.label
    file = root / record.label
    values = _READERS[file.suffix.lower()](file)
    sky = None
    if values.dtype == np.uint8:
        values, sky = _decoded(values, coding, file)
    integers = values.dtype.kind in "iu"
    valid = (values > 0) & (values < (_SATURATED if integers else _FAR))  # false of NaN
    depth = np.where(valid, values, 0).astype(np.float64) * record.scale * (1 if integers else whole) + record.shift
    if ray:
        depth *= _cosine(record, depth.shape, file)
    if sky is None or not sky.any():
        return Annotation(depth, valid)
    return Annotation(np.where(sky, np.inf, depth), valid | sky, sky)


def is_measured(name: str) -> bool:
    """Tell whether a file's ending is one of numbers, not of pictures."""
    return Path(name).suffix.lower() in _NUMBERS


def _decoded(pixels: np.ndarray, coding: Coding, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Make metres, and where the sky is, of an 8-bit PNG in OpenCV's channel order."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if coding == Coding.CARLA and channels in (3, 4):
        blue, green, red = (pixels[..., channel].astype(np.uint32) for channel in range(3))
        codes = red | green << 8 | blue << 16
        return codes * (_CARLA_FAR / _CARLA_LAST), codes == _CARLA_LAST
    if coding == Coding.FLOAT32 and channels == 4:
        metres = np.ascontiguousarray(pixels).view("<f4")[..., 0]
        return metres, metres >= _AIRSIM_SKY
    raise LabelError(
        f"{file}: expected depth of 16 bits or floating point; got 8 bits in {channels} channels, a picture of depth. Save its "
        "numbers, or if its channels code them, give --depth_coding carla (24 bits) or float32 (4 bytes)."
    )


def _cosine(record: Record, size: tuple[int, ...], file: Path) -> np.ndarray:
    """Return the cosine of the angle between each pixel's ray and the axis."""
    if record.intrinsics is None:
        raise GeometryError(f"{file}: expected intrinsics to turn distances from the camera into depth; give --intrinsics.")
    (fx, _, cx), (_, fy, cy) = record.intrinsics[:2]
    y, x = np.mgrid[: size[0], : size[1]]
    cosine: np.ndarray = 1 / np.sqrt(1 + ((x - cx) / fx) ** 2 + ((y - cy) / fy) ** 2)
    return cosine


def _read_picture(file: Path) -> np.ndarray:
    values = decode_pixels(read_bytes(file), cv2.IMREAD_UNCHANGED, str(file), LabelError)
    if values.dtype != np.uint8 and values.ndim != 2:
        raise LabelError(
            f"{file}: expected a 16-bit PNG with one channel; got {values.dtype} {values.shape}. Convert it first."
        )
    return values


def _read_jpeg(file: Path) -> np.ndarray:
    raise LabelError(f"{file}: expected depth without losses; got a JPEG. Get it as a 16-bit PNG or as numbers.")


def _read_tiff(file: Path) -> np.ndarray:
    """Read the first page of a TIFF file of one channel; compression that Pillow lacks is said."""
    data = read_bytes(file)
    try:
        with opened(data, str(file), error=LabelError, formats=("TIFF",)) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, MemoryError, zlib.error) as error:
        raise LabelError(f"{file}: expected a TIFF of one channel; it does not read ({error}). Save it as .npy.") from error
    if values.ndim != 2 or values.dtype == np.bool_:
        raise LabelError(f"{file}: expected a TIFF of one channel; got {values.dtype} {values.shape}. Convert it first.")
    return values


def _read_npz(file: Path) -> np.ndarray:
    """Read the only array of a .npz file, else the array named depth; pickled content is refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(file))) as content:
            names = [name for name in content.namelist() if name.endswith(".npy")]
            chosen = names if len(names) == 1 else [name for name in names if name in ("depth.npy", "data.npy")]
            if len(chosen) != 1:
                raise LabelError(
                    f"{file}: expected one array, or one named depth; got {', '.join(name[:-4] for name in names) or 'none'}."
                )
            if content.getinfo(chosen[0]).file_size > 8 * MAX_PIXELS + 2**16:
                raise LabelError(f"{file}: expected at most {MAX_PIXELS} pixels; {chosen[0]} says more. Shrink it.")
            member = content.read(chosen[0])
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        raise LabelError(f"{file}: expected a .npz file; it does not read ({error}). Get it again.") from error
    return read_npy(file, member)


def _read_colmap(file: Path) -> np.ndarray:
    """Read a depth map of COLMAP: ``width&height&channels&`` and float32 row by row."""
    data = read_bytes(file)
    header = re.match(rb"(\d{1,9})&(\d{1,9})&1&", data)
    if header is None or len(data) - header.end() != 4 * int(header[1]) * int(header[2]):
        raise LabelError(f"{file}: expected a depth map of COLMAP, width&height&1& and as many float32; got {data[:16]!r}.")
    return np.frombuffer(data, "<f4", offset=header.end()).reshape(int(header[2]), int(header[1]))


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".png": _read_picture,
    ".webp": _read_picture,
    ".jpg": _read_jpeg,
    ".jpeg": _read_jpeg,
    ".npy": read_npy,
    ".npz": _read_npz,
    ".exr": read_exr,
    ".pfm": read_pfm,
    ".pgm": read_pnm,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".bin": _read_colmap,
}
SUFFIXES = tuple(_READERS)
"""Endings of files that can hold depth, in small letters."""
_NUMBERS = (".npy", ".npz", ".exr", ".pfm", ".pgm", ".bin")
