"""Image files, arrays and tensors as upright RGB: the one reader of every command."""

from __future__ import annotations

import math
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from depthkit.checks import first_line
from depthkit.errors import DepthKitError, ShapeError

if TYPE_CHECKING:  # reading files needs no tensors
    from torch import Tensor

SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of image files, in small or capital letters. A format that needs another package is refused by name."""


def pixel_limit(variables: Mapping[str, str]) -> int:
    """Return the most pixels that an image, a map of depth or a picture of a film may have.

    Args:
        variables: of the environment, of which ``DEPTHKIT_MAX_PIXELS`` sets another limit.

    Raises:
        ShapeError: it is no positive integer.
    """
    text = variables.get("DEPTHKIT_MAX_PIXELS", str(2**28))
    if not text.isdecimal() or not int(text):
        raise ShapeError(f"expected DEPTHKIT_MAX_PIXELS, of the environment, as a number of pixels; got {text!r}.")
    return int(text)


MAX_PIXELS = pixel_limit(os.environ)
"""Limit on pixels: a camera's 200 megapixels fit, a forged header does not."""
PREDICTION_KEY = "depthkit"
"""Key of the PNG text that marks a file as a prediction, not a photograph."""

_HEIF = (".heic", ".heif")
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, AttributeError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip
_LOCK = threading.RLock()  # Pillow's limits are global


def image_size(data: bytes, *, what: str, error: type[DepthKitError] = ShapeError) -> tuple[int, int]:
    """Read (height, width) [px] from an image's header, as its pixels are stored.

    Raises:
        ShapeError: the bytes do not begin as an image does.
    """
    try:
        with _own_limits(), Image.open(BytesIO(data)) as file:
            return file.size[1], file.size[0]
    except (OSError, ValueError, SyntaxError) as problem:
        raise error(f"{what}: expected an image; its header cannot be read. Get the file again.") from problem


def read_image(
    source: str | Path | bytes,
    *,
    what: str | None = None,
    max_pixels: int | None = MAX_PIXELS,
    upright: bool = True,
    photo: bool = False,
    error: type[DepthKitError] = ShapeError,
) -> np.ndarray:
    """Read an image file as uint8 RGB ``(H, W, 3)``.

    Transparency is dropped; of an animation the first picture is read. 16-bit grey is divided by 257; floating-point grey in
    [0, 1] is multiplied by 255.

    Args:
        source: path, or the file's bytes.
        what: name of the file in messages; default the path.
        max_pixels: images with more are refused from their header, before anything is decoded; None has no limit. Pillow's
            own ``MAX_IMAGE_PIXELS`` does not count.
        upright: rotate the image by its EXIF orientation.
        photo: refuse 16-bit grey, as depth is stored.
        error: class of error to raise.

    Raises:
        ShapeError: the file does not exist, is truncated, too large, or not an image with a known range of values.
    """
    named = str(what or ("the bytes given" if isinstance(source, bytes) else source))
    try:
        with opened(source, named, max_pixels=max_pixels, error=error) as file:
            if photo and file.mode.startswith("I;16"):
                raise error(
                    f"expected a photo at {named}; it is of 16-bit grey, as depth is. Leave depth out; save photos with 8 bits."
                )
            return _rgb(ImageOps.exif_transpose(file) if upright else file, named, error)
    except DepthKitError:
        raise
    except FileNotFoundError as found:
        raise error(f"expected an image at {named}; there is no such file. Check the path.") from found
    except UnidentifiedImageError as found:
        if named.lower().endswith(_HEIF):
            remedy = "Save it as JPEG, or install pillow-heif and call pillow_heif.register_heif_opener()"
        else:
            remedy = "Remove it or save it again"
        raise error(
            f"expected an image at {named}; it cannot be decoded (no format that Pillow reads here). {remedy}."
        ) from found
    except _DECODER_ERRORS as found:
        raise error(
            f"expected an image at {named}; it cannot be decoded ({first_line(found)}). Remove it or save it again."
        ) from found


@contextmanager
def opened(
    source: str | Path | bytes,
    named: str,
    *,
    max_pixels: int | None = MAX_PIXELS,
    error: type[DepthKitError] = ShapeError,
    formats: tuple[str, ...] | None = None,
) -> Iterator[Image.Image]:
    """Open an image in Pillow, whole or not at all, and refuse it by its header if it has too many pixels.

    Args:
        source: path, or the file's bytes.
        named: name of the file in messages.
        max_pixels: as of ``read_image``.
        error: class of error to raise.
        formats: that may be opened; None for all.

    Raises:
        ShapeError: it has more pixels. What else is wrong is left to Pillow's errors.
    """
    with _own_limits(), Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as file:
        width, height = file.size
        if max_pixels is not None and width * height > max_pixels:
            raise error(
                f"expected an image of at most {max_pixels} pixels at {named}; its header says {height}x{width}. "
                "Shrink it, or raise the limit, DEPTHKIT_MAX_PIXELS in the environment."
            )
        yield file


def plain_array(data: bytes) -> np.ndarray:
    """Read the bytes of a plain .npy file without asking for more memory than they have; nothing in it is executed.

    Raises:
        ValueError: they are no such file, or not as long as their header says.
    """
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is for tables")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    start, wanted = stream.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject or wanted != len(data) - start:
        raise ValueError(f"its header says {dtype} {shape}, {wanted} bytes; there are {len(data) - start}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if by_columns else "C").copy()


@contextmanager
def _own_limits() -> Iterator[None]:
    """Decode whole files only, of any size, whatever limits the surrounding program has set in Pillow."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = kept


def _rgb(image: Image.Image, named: str, error: type[DepthKitError] = ShapeError) -> np.ndarray:
    """Convert a Pillow image of any mode to uint8 RGB."""
    wide = image.mode.startswith("I;16")
    if 0 in image.size:
        raise error(f"expected an image with pixels at {named}; got one of size {image.height}x{image.width}.")
    if not wide and image.mode not in ("F", "I"):
        return np.array(image.convert("RGB"))
    values = np.asarray(image, np.float64)
    low, high = (0, 65535) if wide else (0, 1)
    if image.mode == "I" or not (values.min() >= low and values.max() <= high):  # also true of NaN
        raise error(
            f"expected an image of 8 or 16 bits, or of floating-point values in [0, 1], at {named}; got values from "
            f"{values.min():g} to {values.max():g} whose white is not known. Scale it and save it with 8 or 16 bits."
        )
    grey = (values * (255 / high)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def as_image(image: Any) -> Tensor:
    """Convert an image in memory to float32 RGB in [0, 1], ``(1, 3, H, W)``.

    Args:
        image: image of Pillow (rotated by its EXIF orientation), array ``(H, W, 3)`` or ``(H, W)``, or tensor
            ``(3, H, W)`` or ``(1, 3, H, W)``; uint8 in [0, 255] or floating point in [0, 1].

    Raises:
        ShapeError: anything else.

    Example:
        >>> as_image(np.full((2, 3, 3), 255, np.uint8)).shape, as_image(np.full((2, 3), 0.5))[0, :, 0, 0]
        (torch.Size([1, 3, 2, 3]), tensor([0.5000, 0.5000, 0.5000]))
    """
    import torch

    if isinstance(image, Image.Image):
        try:
            image = _rgb(ImageOps.exif_transpose(image), "the image given")
        except DepthKitError:
            raise
        except _DECODER_ERRORS as found:
            raise ShapeError(f"expected an image that Pillow can decode; it cannot ({first_line(found)}).") from found
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise ShapeError(
            "expected an image: the path of a file, an image of Pillow, an array (H, W, 3) or a tensor (3, H, W); got "
            f"{type(image).__name__}. Bytes are read by depthkit.images.read_image."
        )
    shape, dtype = tuple(image.shape), image.dtype
    if isinstance(image, np.ndarray):
        known = image.dtype.newbyteorder("=") in (np.uint8, np.float16, np.float32, np.float64)
        x = torch.from_numpy(np.array(image, image.dtype.newbyteorder("="))) if known else torch.empty(0)
        x = (x[..., None].expand(*x.shape, 3) if x.ndim == 2 else x).movedim(-1, 0) if x.ndim > 1 else x
    else:
        x = image
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[:2] != (1, 3) or not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ShapeError(
            f"expected an RGB image with pixels: array (H, W, 3), or tensor (3, H, W), in uint8 or floating point; "
            f"got {type(image).__name__} of shape {shape} and {dtype}. Pass images of a batch as a list."
        )
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if not (x.min() >= 0 and x.max() <= 1):  # also true of NaN
        raise ShapeError(
            f"expected a floating-point image in [0, 1]; got values from {x.min():g} to {x.max():g}. "
            "Divide 8-bit images by 255, or pass them as uint8; do not normalise: the network does."
        )
    return x


def find_images(folder: str | Path, *, error: type[DepthKitError] = ShapeError) -> list[Path]:
    """Find all image files in a folder and the folders in it, sorted.

    Hidden files and folders (macOS puts a ``._x.jpg`` beside ``x.jpg``) are left out, and so are maps and pictures that
    ``Prediction`` has written. Links keep their own names.

    Raises:
        ShapeError: there is none.
    """
    root = Path(folder)
    found = sorted(file for file in root.rglob("*") if is_image_name(file.relative_to(root)) and not file.is_dir())
    found = [file for file in found if not is_prediction(file)]
    if not found:
        raise error(f"expected images in {folder}; found none with a suffix of {', '.join(SUFFIXES)}.")
    return found


def image_files(sources: Iterable[str | Path], *, error: type[DepthKitError] = ShapeError) -> list[Path]:
    """List the image files of sources, each once: files as given, and the images that ``find_images`` finds in folders.

    Raises:
        ShapeError: a source does not exist, or a folder has no images.
    """
    found: dict[str, Path] = {}
    for source in map(Path, sources):
        if not source.exists() and not source.is_symlink():
            raise error(f"expected an image at {source}; there is no such file or folder. Check the path.")
        for file in find_images(source, error=error) if source.is_dir() else [source]:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def is_image_name(path: str | Path) -> bool:
    """Tell whether a path ends like an image file and has no hidden part.

    Example:
        >>> is_image_name("a/B.JPG"), is_image_name("._a.jpg"), is_image_name(".thumbnails/a.jpg")
        (True, False, False)
    """
    path = Path(path)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") and part != ".." for part in path.parts)


def is_prediction(path: Path) -> bool:
    """Tell whether a file is a map or a coloured picture that ``Prediction`` wrote."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return False
    return f"tEXt{PREDICTION_KEY}\0".encode() in start
