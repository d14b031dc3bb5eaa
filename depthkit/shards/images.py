"""Images as bytes: decoded whole or not at all, and encoded without losing what a file already had.

Plain JPEG, PNG and WebP files go through OpenCV, which is the fastest; every other image through
``depthkit.images.read_image``, whose pixels are the same.
"""

from enum import StrEnum
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from depthkit.errors import DepthKitError, ShapeError, ShardError
from depthkit.images import MAX_PIXELS, read_image

JPEG_QUALITY = 95
"""Of images that have to be encoded; at 4:4:4, so that colour keeps its edges."""
_COLOUR: int = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # the former saves a pass, and older versions lack it
_ORIENTATION = 0x0112  # the EXIF tag of how the camera was held
EXTENSIONS = ("jpg", "png", "webp")
"""What an image member's name may end in."""


class ImageFormat(StrEnum):
    """How images without a JPEG or WebP file of their own are stored."""

    JPG = "jpg"
    """Quality 95 without chroma subsampling: small and fast to read."""
    PNG = "png"
    """Lossless, five times the size."""


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
    if data[:8] == b"\x89PNG\r\n\x1a\n":
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


def is_complete(data: bytes) -> bool:
    """Tell whether the bytes are a JPEG, PNG or WebP file with its end.

    Some decoders fill what is missing from a truncated file with grey and say nothing, hence this look at the structure.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND\xaeB`\x82" in data[-64:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    start = _header(data).start
    return start > 0 and data[start : start + 2] == b"\xff\xda" and data.rfind(b"\xff\xd9") > start


def stored_extension(data: bytes) -> str | None:
    """Find the extension under which shards hold a file's bytes as they are; None if its image must be encoded again.

    Files other than whole JPEG, PNG and WebP are encoded again, and files whose EXIF orientation turns the image.
    """
    if not is_complete(data) or _may_be_turned(data):
        return None
    return "png" if data[:4] == b"\x89PNG" else "webp" if data[:4] == b"RIFF" else "jpg"


def _may_be_turned(data: bytes) -> bool:
    """Tell whether EXIF says that the image is turned; the tag is looked for only where there is EXIF at all."""
    if b"Exif" not in data and b"eXIf" not in data and b"EXIF" not in data and b"tiff:Orientation" not in data:
        return False
    try:
        with Image.open(BytesIO(data)) as file:
            return int(file.getexif().get(_ORIENTATION, 1)) != 1
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return True  # the reader will tell


def decode_pixels(data: bytes, flags: int, what: str, error: type[DepthKitError] = ShardError) -> np.ndarray:
    """Decode a whole JPEG, PNG or WebP file as OpenCV reads it.

    Args:
        data: the file's bytes.
        flags: OpenCV's ``IMREAD_*``.
        what: the file's name and place, for the message.
        error: what to raise if it cannot be read.
    """
    if not data or not is_complete(data):
        raise error(f"{what}: expected a whole JPEG, PNG or WebP file; got {len(data)} bytes that are {_flaw(data)}.")
    if (size := _header(data).pixels) > MAX_PIXELS:
        raise error(f"{what}: expected an image of at most {MAX_PIXELS} pixels; its header says {size}. Shrink it.")
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
    if is_complete(data) and (header.bits != 8 or header.channels == 4):  # OpenCV has other ideas of 16 bits and of CMYK
        return read_image(data, what=what, upright=upright, error=error)
    image = decode_pixels(data, _COLOUR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION), what, error)
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
