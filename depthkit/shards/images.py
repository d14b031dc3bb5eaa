"""Images as bytes: decoded whole or not at all, and encoded without losing what a file already had.

Plain JPEG, PNG and WebP files go through OpenCV, which is the fastest; every other image through
``depthkit.images.read_image``, whose pixels are the same. Depth is PNG of 16 bits with one filter for all rows, and reads
faster than OpenCV reads it.
"""

import struct
import zlib
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import cv2
import numpy as np

from depthkit.errors import DepthKitError, ShapeError, ShardError
from depthkit.images import MAX_PIXELS, opened, read_image

# isal inflates twice as fast; there are no wheels for every machine
inflation: Any = import_module("isal.isal_zlib") if find_spec("isal") else zlib

JPEG_QUALITY = 95
"""Of images that have to be encoded; at 4:4:4, so that colour keeps its edges."""
_COLOUR: int = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # the former saves a pass, and older versions lack it
_ORIENTATION = 0x0112  # the EXIF tag of how the camera was held
_DEFLATE = 1100  # no PNG holds more bytes per byte
_JPEG = 128  # and no JPEG more pixels per bit: a block of 8 x 8 takes one, and room for progress
EXTENSIONS = ("jpg", "png", "webp")
"""What an image member's name may end in."""


class ImageFormat(StrEnum):
    """How images without a JPEG or WebP file of their own are stored."""

    JPG = "jpg"
    """Quality 95 without chroma subsampling: small and fast to read."""
    PNG = "png"
    """Lossless, five times the size."""


_PNG = b"\x89PNG\r\n\x1a\n"
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_COMPRESSION = 4  # of zlib; see depthkit.shards.label
_GREY16 = (b"\x10\x00", b"\x10\x04")  # bits and kind of colour in the header
_NONE, _UP = 0, 2  # row filters of PNG: the bytes themselves, and their differences from the row above


class _Header(NamedTuple):
    """What the first bytes of a JPEG or PNG file say; zeros for WebP, whose images cannot be too large.

    Attributes:
        pixels: height times width.
        channels: of a JPEG: 4 for CMYK.
        bits: per channel.
        start: position where a JPEG's picture starts.
    """

    pixels: int = 0
    channels: int = 0
    bits: int = 8
    start: int = 0


def _header(data: bytes) -> _Header:
    if data[:8] == _PNG:
        return _Header(int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big"), 0, *data[24:25])
    if data[:2] != b"\xff\xd8":
        return _Header()
    found, position = _Header(), 2  # skip the headers, which may hold a thumbnail with an end of its own
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        kind, part = data[position + 1], data[position + 4 : position + 10]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(part) == 6:  # start of frame
            size = int.from_bytes(part[1:3], "big") * int.from_bytes(part[3:5], "big")
            found = _Header(size, part[5], part[0])
        position += 1 if kind == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return found._replace(start=position)


def _chunks_fit(data: bytes) -> bool:
    """Tell whether each chunk of a PNG lies in the file: decoders make room first for one that says it is longer."""
    position = len(_PNG)
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


def is_complete(data: bytes, header: _Header | None = None) -> bool:
    """Tell whether the bytes are a JPEG, PNG or WebP file with its end.

    Some decoders fill what is missing from a truncated file with grey and say nothing, hence this look at the structure.
    """
    if data[:8] == _PNG:
        return _IEND in data[-64:] and _chunks_fit(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    start = (header or _header(data)).start
    return start > 0 and data[start : start + 2] == b"\xff\xda" and data.rfind(b"\xff\xd9") > start


def stored_extension(data: bytes) -> str | None:
    """Find the extension under which shards hold a file's bytes as they are; None if its image must be encoded again.

    Files other than whole JPEG, PNG and WebP are encoded again, and files whose EXIF orientation turns the image. PNGs of
    16-bit grey are not stored: they are no photos.
    """
    if not is_complete(data) or is_turned(data) or (data[:8] == _PNG and data[24:26] in _GREY16):
        return None
    return "png" if data[:4] == b"\x89PNG" else "webp" if data[:4] == b"RIFF" else "jpg"


def is_turned(data: bytes) -> bool:
    """Tell whether EXIF says that an image is turned; the tag is looked for only where there is EXIF at all."""
    if b"Exif" not in data and b"eXIf" not in data and b"EXIF" not in data and b"tiff:Orientation" not in data:
        return False
    try:
        with opened(data, "it", max_pixels=None) as file:
            return int(file.getexif().get(_ORIENTATION, 1)) != 1
    except (OSError, SyntaxError, ValueError, TypeError):
        return True  # the reader will tell


def decode_pixels(
    data: bytes, flags: int, what: str, error: type[DepthKitError] = ShardError, *, header: _Header | None = None
) -> np.ndarray:
    """Decode a whole JPEG, PNG or WebP file as OpenCV reads it.

    Args:
        data: the file's bytes.
        flags: OpenCV's ``IMREAD_*``.
        what: the file's name and place, for the message.
        error: what to raise if it cannot be read.
        header: its header, if it is read already.
    """
    header = header or _header(data)
    if not data or not is_complete(data, header):
        raise error(f"{what}: expected a whole JPEG, PNG or WebP file; got {len(data)} bytes that are {_flaw(data)}.")
    if (size := header.pixels) > MAX_PIXELS:
        raise error(f"{what}: expected an image of at most {MAX_PIXELS} pixels; its header says {size}. Shrink it.")
    least = size * header.bits / _DEFLATE if data[:4] == b"\x89PNG" else size / _JPEG
    if least > 8 * len(data) and data[:4] != b"RIFF":
        raise error(f"{what}: expected a file that holds its {size} pixels; {len(data)} bytes cannot. Get or write it again.")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise error(f"{what}: expected a JPEG, PNG or WebP file that decodes; its {len(data)} bytes are damaged inside.")
    return pixels


def _flaw(data: bytes) -> str:
    known = data[:4] in (b"\x89PNG", b"RIFF") or data[:2] == b"\xff\xd8"
    return "truncated: get or write the file again" if known else "no image: store pictures only under image names"


def decode_image(data: bytes, what: str, error: type[DepthKitError] = ShardError, *, upright: bool = False) -> np.ndarray:
    """Decode an RGB image, uint8 ``(H, W, 3)``; grey becomes RGB.

    Args:
        data: the file's bytes.
        what: the file's name and place, for the message.
        error: what to raise if it cannot be read.
        upright: whether to turn it as its camera noted (EXIF); if not, its pixels come as they are stored.
    """
    header = _header(data)
    if (header.bits != 8 or header.channels == 4) and is_complete(
        data, header
    ):  # OpenCV has other ideas of 16 bits and of CMYK
        return read_image(data, what=what, upright=upright, error=error)
    image = decode_pixels(data, _COLOUR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION), what, error, header=header)
    return image if _COLOUR != cv2.IMREAD_COLOR else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_mask(data: bytes, what: str) -> np.ndarray:
    """Bool mask, ``(H, W)``: True where the stored value is not 0."""
    return decode_pixels(data, cv2.IMREAD_GRAYSCALE, what) > 0


def encode_image(
    image: np.ndarray, image_format: ImageFormat, original: bytes | None = None, *, unaltered: bool = False
) -> tuple[str, bytes]:
    """Extension and bytes of an RGB image.

    Args:
        image: uint8 RGB, ``(H, W, 3)``.
        image_format: how to encode it.
        original: the file it came from, if there is one; a JPEG or WebP of exactly these pixels is stored as it is.
        unaltered: whether the image is known to be what the file decodes to upright, so that this need not be tried.

    Raises:
        ShapeError: it is no such image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"expected an RGB image, uint8 (H, W, 3); got {image.dtype} {image.shape}. Convert it first.")
    if original and original[:4] != b"\x89PNG" and is_complete(original):
        extension = "jpg" if original[:2] == b"\xff\xd8" else "webp"
        if unaltered and b"Exif" not in original[: 2**16]:  # which could say that upright is otherwise
            return extension, bytes(original)
        stored = cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if stored is not None and np.array_equal(stored[..., ::-1], image):
            return extension, bytes(original)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return str(image_format), encode_pixels(bgr, f".{image_format}", options if image_format == ImageFormat.JPG else [])


def encode_pixels(pixels: np.ndarray, extension: str, options: list[int] | None = None) -> bytes:
    """Encode a picture in OpenCV's channel order to the bytes of a file."""
    done, data = cv2.imencode(extension, pixels, options or [])
    assert done, f"OpenCV cannot encode {pixels.dtype} {pixels.shape} as {extension}"
    return data.tobytes()


def swapped(codes: np.ndarray) -> np.ndarray:
    """Return 16-bit numbers as a PNG has them, most significant byte first, in an array of the machine's own uint16."""
    return codes.astype(">u2").view(np.uint16)


def encode_codes(codes: np.ndarray) -> bytes:
    """Encode uint16 ``(H, W)`` as a grey PNG, all rows with the same filter: the one that leaves more bytes 0."""
    rows = np.ascontiguousarray(codes).astype(">u2").view(np.uint8)
    changes = rows.copy()
    changes[1:] -= rows[:-1]
    up = np.count_nonzero(changes) < np.count_nonzero(rows)
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[:, 1:] = (_UP, changes) if up else (_NONE, rows)
    head = struct.pack(">IIBBBBB", codes.shape[1], len(codes), 16, 0, 0, 0, 0)
    return _PNG + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(filtered.data, _COMPRESSION)) + _IEND


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def decode_codes(data: bytes, what: str) -> np.ndarray:
    """Decode a grey PNG of 16 bits to ``swapped`` uint16 ``(H, W)``.

    Files of ``encode_codes`` take half of OpenCV's time; others go through it.

    Args:
        data: the file's bytes.
        what: its name and place, for the message.

    Raises:
        ShardError: it does not decode, or holds something else.
    """
    codes = _decode_one_filter(data)
    if codes is None:
        pixels = decode_pixels(data, cv2.IMREAD_UNCHANGED, what)
        if pixels.dtype != np.uint16 or pixels.ndim != 2:
            raise ShardError(
                f"{what}: expected a 16-bit PNG with one channel; got {pixels.dtype} {pixels.shape}. Write the shard again."
            )
        codes = swapped(pixels)
    return codes


def _decode_one_filter(data: bytes) -> np.ndarray | None:
    """Decode what ``encode_codes`` wrote; None if it is anything else, or damaged."""
    if len(data) < 57 or data[:8] != _PNG or data[37:41] != b"IDAT" or data[24:29] != b"\x10\0\0\0\0":
        return None
    (width, height), end = struct.unpack_from(">II", data, 16), 41 + int.from_bytes(data[33:37], "big")
    size = height * (2 * width + 1)
    if data[end + 4 :] != _IEND or not 0 < width * height <= MAX_PIXELS:
        return None
    inflate = inflation.decompressobj()
    try:
        content = inflate.decompress(memoryview(data)[41:end], size + 1)
    except (zlib.error, inflation.error):
        return None
    if len(content) != size or not inflate.eof:
        return None
    rows = np.frombuffer(content, np.uint8).reshape(height, 2 * width + 1)
    filters = rows[:, 0]
    if (filters != filters[0]).any() or filters[0] not in (_NONE, _UP):
        return None
    codes = np.ascontiguousarray(rows[:, 1:])
    if filters[0] == _UP:
        _add_up(codes)
    return codes.view(np.uint16)


def _add_up(rows: np.ndarray) -> None:
    """Replace every row by the sum of the rows up to it, modulo 256: within groups of rows first, all groups at once."""
    height, width = rows.shape
    each = max(1, int(height**0.5))
    whole = height // each * each
    groups = rows[:whole].reshape(-1, each, width)
    for row in range(1, each):
        groups[:, row] += groups[:, row - 1]
    for group in range(1, len(groups)):
        groups[group] += groups[group - 1, -1]
    for row in range(whole, height):
        rows[row] += rows[row - 1]
