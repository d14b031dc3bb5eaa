"""Depth in the Wild (Chen et al. 2016): photographs with one pair of points each, of which people said which is farther.

Under the root, or under ``DIW_Annotations`` of it, lies ``DIW_test.csv`` (or ``DIW_train.csv``, ``DIW_val.csv``): for each
image a line with its path, such as ``./DIW_test/NAME.thumb``, and a line ``yA,xA,yB,xB,relation,width,height``. Points are
counted from 1, the row first; the relation ``>`` says that A is farther, ``<`` that B is. Paths are relative to the root.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes
from depthkit.convert.records.record import check_folder, key_of, read_picture, wrong_layout
from depthkit.errors import LabelError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

_ORDER = {">": -1, "<": 1, "=": 0}


class Pair(NamedTuple):
    """An image's file, relative to the root, its two points (row and column, from 0) and their order as in ``Sample.pairs``."""

    image: str
    points: tuple[int, int, int, int]
    order: int


@dataclass(frozen=True)
class Pairs(Sequence[Sample]):
    """Images with a pair of points each, read when they are indexed. A point outside of its image is moved to its border.

    Attributes:
        root: folder.
        pairs: what to read.
        rejects: images that are listed and not there.
    """

    root: Path
    pairs: tuple[Pair, ...]
    rejects: tuple[Reject, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, position: int) -> str:
        """Return the key of a sample, without reading it."""
        return key_of(str(Path(self.pairs[position].image).with_suffix("")))

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> "Pairs": ...
    def __getitem__(self, position: int | slice) -> "Sample | Pairs":
        if isinstance(position, slice):
            return replace(self, pairs=self.pairs[position])
        pair = self.pairs[position]
        image = read_picture(self.root, pair.image)
        points = np.clip(pair.points, 0, np.array([*image.shape[:2], *image.shape[:2]]) - 1)
        return Sample(
            key=self.key(position),
            image=image,
            ambiguity=Ambiguity.ORDINAL,
            representation=Representation.DISPARITY,
            pairs=np.array([[*points, pair.order]], np.int32),
            source={"image": pair.image},
        )


def diw(root: str | Path, split: str = "test") -> Pairs:
    """Read the images of a split with their ordered pairs of points.

    Args:
        root: folder of the lists and of the folders of images.
        split: ``test``, ``val`` or ``train``.

    Raises:
        DepthKitError: the folder is not laid out like this.
        LabelError: a line of the list does not read.
    """
    root = Path(root)
    check_folder(root, f"DIW_{split}.csv and the images it lists")
    places = [root / f"DIW_{split}.csv", root / f"DIW_Annotations/DIW_{split}.csv"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise wrong_layout(f"DIW_{split}.csv or DIW_Annotations/DIW_{split}.csv", root)
    lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    listed = [_pair(file, number, lines) for number in range(0, len(lines) - 1, 2)]
    folders = {folder: set(names_in(root / folder)) for folder in {str(Path(pair.image).parent) for pair in listed}}
    here = tuple(pair for pair in listed if Path(pair.image).name in folders[str(Path(pair.image).parent)])
    if not here:
        raise wrong_layout(f"{listed[0].image if listed else 'images'} and the other images of {file.name}", root)
    there = set(here)
    return Pairs(root, here, tuple(Reject(pair.image, "there is no such image") for pair in listed if pair not in there))


def _pair(file: Path, number: int, lines: Sequence[str]) -> Pair:
    image, line = lines[number].strip().removeprefix("./"), lines[number + 1]
    try:
        y_a, x_a, y_b, x_b, relation, *_ = line.split(",")
        points = [int(np.floor(float(x))) - 1 for x in (y_a, x_a, y_b, x_b)]
        return Pair(image, (points[0], points[1], points[2], points[3]), _ORDER[relation.strip().strip('"')])
    except (ValueError, KeyError) as error:
        raise LabelError(
            f"{file}, line {number + 2}: expected yA,xA,yB,xB,relation,width,height with relation > or <; got '{line}'. "
            "Get the list again."
        ) from error


DATASETS = (
    Dataset(
        name="diw",
        read=diw,
        layout="DIW_test.csv (or in DIW_Annotations/) and DIW_test/NAME.thumb",
        kind=LabelKind(Ambiguity.ORDINAL, Representation.DISPARITY),
        unit="one pair of points per image and which of them is farther",
        invalid="everything but the pair",
        sky="not marked",
        camera="unknown; points are counted from 1 in the list and from 0 here",
        source="Chen et al. 2016; MiDaS and GP2 for the count",
        licence="of the photographs on Flickr, each its own",
        published={"test": 74441, "val": None, "train": None},
        splits="the authors' lists",
        test="tests/convert/test_diw.py",
    ),
)
