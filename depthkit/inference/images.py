"""Images from files, arrays and tensors, as uint8 RGB in the orientation in which they are looked at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from depthkit.errors import ShapeError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 RGB ``(H, W, 3)``, turned as its EXIF orientation says; transparency is dropped.

    Raises:
        ShapeError: there is no such file, or it cannot be decoded as an image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion to RGB would clip at 255
                image = Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
            return np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise ShapeError(f"expected an image at {path}; there is no such file. Check the path.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ShapeError(f"expected an image at {path}; it cannot be decoded ({error}). Remove it or save it again.") from error


def find_images(folder: str | Path) -> list[Path]:
    """All image files in a folder and the folders in it, sorted.

    Raises:
        ShapeError: there is none.
    """
    found = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ShapeError(f"expected images in {folder}; found none with a suffix of {', '.join(sorted(SUFFIXES))}.")
    return found


def as_image(image: np.ndarray | Tensor) -> Tensor:
    """An image in memory as float32 RGB in [0, 1], ``(1, 3, H, W)``.

    Args:
        image: array ``(H, W, 3)`` or ``(H, W)``, or tensor ``(3, H, W)`` or ``(1, 3, H, W)``; uint8 in [0, 255] or floating
            point in [0, 1].

    Raises:
        ShapeError: anything else.

    Example:
        >>> as_image(np.full((2, 3, 3), 255, np.uint8)).shape, as_image(np.full((2, 3), 0.5))[0, :, 0, 0]
        (torch.Size([1, 3, 2, 3]), tensor([0.5000, 0.5000, 0.5000]))
    """
    x = torch.from_numpy(np.array(image)) if isinstance(image, np.ndarray) else image
    if isinstance(image, np.ndarray):
        x = (x[..., None].expand(*x.shape, 3) if x.ndim == 2 else x).movedim(-1, 0)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[:2] != (1, 3) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ShapeError(
            f"expected an RGB image: array (H, W, 3), or tensor (3, H, W), in uint8 or floating point; "
            f"got {type(image).__name__} of shape {tuple(image.shape)} and {image.dtype}. Pass images of a batch as a list."
        )
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if not (x.min() >= 0 and x.max() <= 1):  # also true of NaN
        raise ShapeError(
            f"expected a floating-point image in [0, 1]; got values from {x.min():g} to {x.max():g}. "
            "Divide 8-bit images by 255, or pass them as uint8; do not normalise: the network does."
        )
    return x
