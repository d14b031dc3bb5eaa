"""Small copies of images with their predictions and labels, as they were scored: what pages draw."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from depthkit.checks import first_line
from depthkit.errors import RecipeError
from depthkit.evaluation.page.colours import ColourScale
from depthkit.resize import interpolate
from depthkit.types import Representation
from depthkit.writing import replacing

SIDE = 256
"""Longest side of the copies [px]."""
_IN_MEMORY = 2**26  # bytes of maps that no file was asked for


@dataclass(frozen=True)
class Maps:
    """One image, what was predicted and what is true, after the last step of a protocol.

    Attributes:
        image: uint8 RGB, ``(h, w, 3)``.
        pred: ``(h, w)``, NaN where it has no value.
        target: ``(h, w)``, NaN where nothing is scored.
        representation: of both maps.
        unit: of both maps.
    """

    image: np.ndarray
    pred: np.ndarray
    target: np.ndarray
    representation: Representation
    unit: str

    @classmethod
    def of(
        cls, image: Tensor, pred: Tensor, target: Tensor, valid: Tensor, *, representation: Representation, unit: str
    ) -> "Maps":
        """Make the copies; each pixel of a map is one pixel of the original, a scored one where there is any near it.

        Args:
            image: RGB in [0, 1], ``(3, H', W')``.
            pred: prediction, ``(H, W)``.
            target: label, ``(H, W)``.
            valid: pixels that are scored, bool ``(H, W)``.
            representation: of the maps.
            unit: of the maps.
        """
        p, t, v = (np.asarray(x.detach().cpu()) for x in (pred.double(), target.double(), valid))
        rows, columns = shown_pixels(v)
        p, t, v = p[rows, columns], t[rows, columns], v[rows, columns]
        small = interpolate(image[None].float(), p.shape, "area")[0]
        picture = (small.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        p = np.where(np.isfinite(p), p, np.nan)
        return cls(picture, p.astype(np.float32), np.where(v, t, np.nan).astype(np.float32), representation, unit)

    @property
    def scale(self) -> ColourScale:
        """Colours of both maps: those of the label's values, or of the prediction's where there is no label."""
        values = self.target if np.isfinite(self.target).any() else self.pred
        return ColourScale.of(values, self.unit, self.representation)

    @property
    def error_unit(self) -> str:
        """Unit of ``error``."""
        return "%" if self.representation == Representation.DEPTH else self.unit

    @property
    def error(self) -> np.ndarray:
        """Distance of the prediction from the label, ``(h, w)``: of depth in percent of the label, else in its unit."""
        gap = np.abs(self.pred - self.target)
        return 100 * gap / self.target if self.representation == Representation.DEPTH else gap

    @property
    def pictures(self) -> tuple[np.ndarray, ...]:
        """Image, prediction and label in one scale of colours, uint8 ``(h, w, 3)`` each."""
        return self.image, self.scale.colour(self.pred), self.scale.colour(self.target)


def error_scale(shown: Sequence[Maps]) -> ColourScale:
    """Return one scale for the errors of all images, from 0 to what 95 % of the pixels stay below."""
    errors = np.concatenate([np.zeros(0), *(maps.error[np.isfinite(maps.error)] for maps in shown)])
    high = float(np.percentile(errors, 95)) if errors.size else 0.0
    return ColourScale(0.0, high, shown[0].error_unit if shown else "", cmap="inferno")


def shown_pixels(valid: np.ndarray, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Choose a pixel of every block of a map, so that as many as ``side`` remain along the longer side.

    Args:
        valid: bool ``(H, W)``.
        side: how many.

    Returns:
        Rows and columns of the chosen, ``(h, w)`` each: the first valid pixel of a block, else its first one.

    Example:
        >>> rows, columns = shown_pixels(np.array([[False, True], [False, False]]), side=1)
        >>> rows.tolist(), columns.tolist()
        ([[0]], [[1]])
    """
    height, width = valid.shape
    k = -(-max(height, width) // side)
    h, w = -(-height // k), -(-width // k)
    whole = np.zeros((h * k, w * k), bool)
    whole[:height, :width] = valid
    place = whole.reshape(h, k, w, k).transpose(0, 2, 1, 3).reshape(h, w, k * k).argmax(-1)
    return np.arange(h)[:, None] * k + place // k, np.arange(w) * k + place % k


class MapsFile:
    """The maps of many images in one zip file; memory holds one of them.

    Args:
        archive: open zip file.
    """

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self.keys = {name.removesuffix(".npz") for name in archive.namelist()}

    @classmethod
    @contextmanager
    def writing(cls, path: Path | None) -> Iterator["MapsFile"]:
        """Write a file that gets its name when it is whole; without a path, one for the time being.

        Raises:
            PredictionError: it cannot be written.
        """
        with ExitStack() as stack:
            place: Any = stack.enter_context(
                SpooledTemporaryFile(_IN_MEMORY) if path is None else replacing(path)  # noqa: SIM115 - the stack closes it
            )
            yield cls(stack.enter_context(ZipFile(place, "w", ZIP_DEFLATED, compresslevel=1)))

    @classmethod
    @contextmanager
    def reading(cls, path: Path) -> Iterator["MapsFile"]:
        """Read a file.

        Raises:
            RecipeError: there is none, or it is no such file.
        """
        try:
            with ZipFile(path) as archive:
                yield cls(archive)
        except (OSError, BadZipFile, KeyError, ValueError) as error:
            raise RecipeError(
                f"expected the maps of `depthkit evaluate --out` at {path}; they cannot be read ({first_line(error)}). "
                "Evaluate again, or leave out --out."
            ) from error

    def add(self, key: str, maps: Maps) -> None:
        """Append the maps of an image; of two of one name the first stays."""
        if key in self.keys:
            return
        self.keys.add(key)
        factors = [float(np.nanmax(np.abs(x), initial=0)) or 1.0 for x in (maps.pred, maps.target)]  # float16 ends at 65504
        picture, content = BytesIO(), BytesIO()
        Image.fromarray(maps.image).save(picture, format="jpeg", quality=88)
        np.savez(
            content,
            image=np.frombuffer(picture.getvalue(), np.uint8),
            maps=np.stack([maps.pred / factors[0], maps.target / factors[1]]).astype(np.float16),
            facts=np.array(json.dumps({"factors": factors, "representation": maps.representation, "unit": maps.unit})),
        )
        self._archive.writestr(f"{key}.npz", content.getvalue())

    def __getitem__(self, key: str) -> Maps:
        with np.load(BytesIO(self._archive.read(f"{key}.npz")), allow_pickle=False) as found:
            facts = json.loads(str(found["facts"]))
            pred, target = found["maps"].astype(np.float32) * np.array(facts["factors"], np.float32)[:, None, None]
            image = np.asarray(Image.open(BytesIO(found["image"].tobytes())))
        return Maps(image, pred, target, Representation(facts["representation"]), facts["unit"])


def extremes(rows: Sequence[Mapping[str, Any]], metric: str, count: int, *, higher: bool) -> dict[str, list[str]]:
    """Choose the images to look at: the best, those about the median, and the worst by one metric; few are all shown.

    Args:
        rows: of ``Report.per_image``; those without a finite value are left out.
        metric: its name.
        count: images in all.
        higher: larger values are better.

    Example:
        >>> rows = [{"key": k, "abs_rel": v} for k, v in zip("abcde", (0.3, 0.1, 0.5, 0.2, float("nan")))]
        >>> extremes(rows, "abs_rel", 3, higher=False)
        {'best': ['b'], 'median': ['d'], 'worst': ['c']}
    """
    found = [(row[metric], row["key"]) for row in rows if row.get(metric) is not None and np.isfinite(row[metric])]
    keys = [key for _, key in sorted(found, key=lambda pair: -pair[0] if higher else pair[0])]
    n = len(keys)
    if n <= count:
        parts: list[Sequence[int]] = [part.tolist() for part in np.array_split(np.arange(n), 3)]
    else:
        best = worst = count // 3
        start = (n - (count - 2 * best)) // 2
        parts = [range(best), range(start, start + count - 2 * best), range(n - worst, n)]
    return {name: [keys[i] for i in part] for name, part in zip(("best", "median", "worst"), parts, strict=True)}


def small_maps(image: Tensor, comparison: Any, index: int, *, representation: Representation, unit: str) -> Maps:
    """Make the copies of one row of a batch, ``image`` ``(3, H, W)``, from what the metrics of a protocol read."""
    parts = (comparison.pred, comparison.target, comparison.valid)
    if parts[0].shape != parts[1].shape:  # of point pairs no label is dense
        parts = (parts[0], torch.full_like(parts[0], torch.nan), torch.zeros_like(parts[0], dtype=torch.bool))
    return Maps.of(image, *(part[index, 0] for part in parts), representation=representation, unit=unit)
