"""Files of depth as arrays: 16-bit PNG, npy, PFM, HDF5, OpenEXR, tables. What is wrong with one is said with its name."""

import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np

from depthkit.checks import optional_import
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.images import MAX_PIXELS, plain_array
from depthkit.shards.images import decode_pixels

_CHANNELS = 4  # of an OpenEXR file whose pixels are as many as any image's may be


def read_bytes(file: Path) -> bytes:
    """Read the content of a file.

    Raises:
        DepthKitError: it does not read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise DepthKitError(f"expected file {file}; {error.strerror}. Restore it or leave the frame out.") from error


def names_in(folder: Path) -> list[str]:
    """List the names in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders_with(root: Path, name: str) -> list[str]:
    """Find folders that hold a folder of this name, relative to the root, sorted; their insides are not searched.

    Data sets of a million files are found in a second, because folders of pictures are never opened.
    """
    found = []
    for place, folders, _ in os.walk(root):
        if name in folders:
            found.append(Path(place).relative_to(root).as_posix())
            folders.clear()
    return sorted(found)


def read_table(file: Path, columns: int, *, skip: int = 0) -> np.ndarray:
    """Read numbers in lines of equal length, float64 ``(N, columns)``.

    Args:
        file: the file.
        columns: numbers per line.
        skip: lines before the first.

    Raises:
        GeometryError: it holds something else.
    """
    try:
        rows = np.loadtxt(read_bytes(file).decode("utf-8", "replace").splitlines(), ndmin=2, skiprows=skip)
    except ValueError as error:
        raise GeometryError(
            f"{file}: expected lines of {columns} numbers; it does not read ({error}). Get it again."
        ) from error
    if rows.shape[1:] != (columns,) or not np.isfinite(rows).all():
        raise GeometryError(f"{file}: expected lines of {columns} finite numbers; got a table {rows.shape}. Get it again.")
    return rows


def read_png16(file: Path) -> np.ndarray:
    """Read a 16-bit PNG, uint16 ``(H, W)``.

    Raises:
        LabelError: it is something else.
    """
    codes = decode_pixels(read_bytes(file), cv2.IMREAD_UNCHANGED, str(file), LabelError)
    if codes.dtype != np.uint16 or codes.ndim != 2:
        raise LabelError(f"{file}: expected a 16-bit PNG with one channel; got {codes.dtype} {codes.shape}. Convert it first.")
    return codes


def read_grey(file: Path) -> np.ndarray:
    """Read an 8-bit picture as one channel, uint8 ``(H, W)``.

    Raises:
        LabelError: it is no picture.
    """
    return decode_pixels(read_bytes(file), cv2.IMREAD_GRAYSCALE, str(file), LabelError)


def read_npy(file: Path, data: bytes | None = None) -> np.ndarray:
    """Read a plain .npy file of one map, ``(H, W)``, or its bytes; nothing in it is executed.

    Raises:
        LabelError: it is something else.
    """
    try:
        array = plain_array(read_bytes(file) if data is None else data)
    except DepthKitError:
        raise
    except Exception as error:  # parsers of damaged heads have classes of their own
        raise LabelError(f"{file}: expected a plain .npy file; it does not read ({error}). Get it again.") from error
    return _map(array, file)


def read_pfm(file: Path) -> np.ndarray:
    """Read a portable float map, float32 ``(H, W)``, first row on top (the file has it last); the first of three channels.

    Raises:
        LabelError: it is something else.
    """
    data = read_bytes(file)
    header = re.match(rb"P([fF])\s+(\d+)\s+(\d+)\s+(-?[\d.eE+-]+)[ \t\r]*\n", data)
    if header is None:
        raise LabelError(f"{file}: expected a PFM file, which begins with Pf; got {data[:8]!r}. Get it again.")
    channels, width, height = 1 if header[1] == b"f" else 3, int(header[2]), int(header[3])
    pixels = data[header.end() :]
    if len(pixels) != 4 * width * height * channels:
        raise LabelError(
            f"{file}: expected {width} x {height} x {channels} float32; got {len(pixels)} bytes. It is cut short: get it again."
        )
    order = "<f4" if float(header[4]) < 0 else ">f4"
    return np.frombuffer(pixels, order).reshape(height, width, channels)[::-1, :, 0].astype(np.float32)


def read_pnm(file: Path) -> np.ndarray:
    """Read a binary PGM or PPM file, ``(H, W)`` or RGB ``(H, W, 3)``: uint8, or uint16 with the higher byte first.

    Raises:
        LabelError: it is something else.
    """
    data = read_bytes(file)
    header = re.match(rb"P([56])\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+(\d+)\s", data)
    if header is None:
        raise LabelError(f"{file}: expected a PGM or PPM file, which begins with P5 or P6; got {data[:8]!r}. Get it again.")
    width, height, largest = (int(word) for word in header.groups()[1:])
    shape = (height, width) if header[1] == b"5" else (height, width, 3)
    kind = np.dtype(np.uint8 if largest < 256 else ">u2")
    pixels = data[header.end() :]
    if len(pixels) != int(np.prod(shape)) * kind.itemsize:
        raise LabelError(f"{file}: expected {shape} values; got {len(pixels)} bytes. It is cut short: get it again.")
    return np.frombuffer(pixels, kind).reshape(shape)


def read_h5(file: Path, name: str, index: int | None = None) -> np.ndarray:
    """Read a data set of an HDF5 file.

    Args:
        file: the file.
        name: of the data set inside.
        index: along its first axis, if only that part is wanted.

    Raises:
        DepthKitError: h5py is not installed.
        LabelError: the file is none, or has no such data set.
    """
    h5py = optional_import("h5py", "convert")
    if not file.is_file():
        read_bytes(file)
    try:
        with h5py.File(file, "r") as content:
            if name not in content:
                raise LabelError(f"{file}: expected data set '{name}'; found {', '.join(content) or 'none'}. Check the layout.")
            return np.asarray(content[name][() if index is None else index])
    except LabelError:
        raise
    except (OSError, RuntimeError, IndexError, ValueError, MemoryError) as error:
        raise LabelError(f"{file}: expected an HDF5 file; it does not read ({error}). Get it again.") from error


def read_h5_words(file: Path, name: str) -> list[str]:
    """Read the words of a cell array of MATLAB in an HDF5 file; errors are those of ``read_h5``."""
    references = read_h5(file, name).ravel()
    h5py = optional_import("h5py", "convert")
    with h5py.File(file, "r") as content:
        return ["".join(map(chr, content[reference][()].ravel())) for reference in references]


def read_exr(file: Path) -> np.ndarray:
    """Read the first channel (Y, G, R or Z) of an OpenEXR file, float32 ``(H, W)``.

    Raises:
        DepthKitError: OpenEXR is not installed.
        LabelError: the file is none.
    """
    openexr = optional_import("OpenEXR", "convert")  # wheels of OpenCV are built without it
    claimed = _exr_numbers(read_bytes(file))
    if claimed > _CHANNELS * MAX_PIXELS:
        raise LabelError(f"{file}: expected at most {_CHANNELS} x {MAX_PIXELS} numbers; its header says {claimed}. Shrink it.")
    try:
        with openexr.File(str(file), separate_channels=True) as content:
            channels = content.channels()
            name = next((name for name in ("Y", "G", "R", "Z") if name in channels), None)
            if name is None:
                raise LabelError(f"{file}: expected a channel Y, G, R or Z; found {', '.join(channels)}. Check the layout.")
            return _map(np.asarray(channels[name].pixels), file).astype(np.float32)
    except (OSError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise LabelError(f"{file}: expected an OpenEXR file; it does not read ({error}). Get it again.") from error


def _exr_numbers(data: bytes) -> int:
    """Count the numbers that the headers of an OpenEXR file claim, in all channels of all parts; 0 if they do not read."""
    total, position = 0, 8
    while (end := data.find(b"\0", position)) > position:  # a part: attributes by name, type and length, up to an empty name
        pixels = channels = 0
        while end > position:
            name, kind = data[position:end], data.find(b"\0", end + 1)
            start, length = kind + 5, int.from_bytes(data[kind + 1 : kind + 5], "little")
            value = data[start : start + length]
            if name == b"dataWindow" and len(value) == 16:
                left, top, right, bottom = struct.unpack("<4i", value)
                pixels = max(right - left + 1, 0) * max(bottom - top + 1, 0)
            elif name == b"channels":
                channels = len(re.findall(rb"[^\0]+\0.{16}", value, re.DOTALL))
            position = start + length
            end = data.find(b"\0", position)
        total += pixels * channels
        position += 1
        if not data[5] & 0x10:  # of a single part
            break
    return total


def _map(array: np.ndarray, file: Path) -> np.ndarray:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.size > MAX_PIXELS:
        raise LabelError(f"{file}: expected one map (H, W) of numbers; got {array.dtype} {array.shape}. Check the layout.")
    return array
