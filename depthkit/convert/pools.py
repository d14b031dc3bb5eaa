"""Pools of images without labels: folders, tars, or a list of either; and the eight that Depth Anything learns from."""

import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes
from depthkit.convert.records.record import UNLABELLED, check_folder, key_of, wrong_layout
from depthkit.errors import DepthKitError
from depthkit.images import is_image_name, read_image
from depthkit.shards.reading import read_named
from depthkit.shards.records import Reject
from depthkit.types import LabelKind, Sample

TAR = ".tar"
_PACKED = (".zip", ".tar.gz", ".tgz", ".7z")
_LONGEST = 80  # bytes of a key; 12 letters are at most 48


def pools(root: str | Path, split: str | None = None, *, split_file: str | Path | None = None) -> "Pool":
    """Read the images of a pool, by name.

    Args:
        root: folder of images and tars, at any depth, or one tar.
        split: not looked at; any name will do.
        split_file: list of the images or tars to read, one name relative to the root in each line; all by default.

    Raises:
        DepthKitError: there are none, or something else is given.
    """
    root = Path(root)
    if root.is_file() and root.suffix == TAR:
        root, wanted = root.parent, [root.name]
    elif split_file is not None:
        check_folder(root, "images or tars")
        wanted = [line.strip() for line in read_bytes(Path(split_file)).decode("utf-8", "replace").splitlines() if line.strip()]
    else:
        check_folder(root, "images or tars")
        wanted = list(_below(root))
    names: list[str] = []
    rejects: list[Reject] = []
    for name in wanted:
        if name.endswith(TAR):
            try:
                names += members(root, name)
            except DepthKitError as error:  # what lies before the damage is read
                rejects.append(Reject(name, str(error)))
        elif is_image_name(name):
            names.append(name)
        elif name.lower().endswith(_PACKED) or split_file is not None:
            what = "an archive that cannot be read from the middle: unpack it" if name.lower().endswith(_PACKED) else "no image"
            rejects.append(Reject(name, f"it is {what}"))
    if not names:
        raise wrong_layout("images, or tars of images,", root)
    return Pool(root, tuple(names), tuple(rejects))


def members(root: Path, archive: str) -> Iterator[str]:
    """List the images in a tar by names that say where they lie; see ``read_named``.

    Raises:
        DepthKitError: it is no tar, or not whole.
    """
    try:
        with tarfile.open(root / archive, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would remember every header it has seen
                if member.isreg() and is_image_name(member.name):
                    yield f"{archive}#{member.offset_data}+{member.size}/{member.name.removeprefix('./')}"
    except (tarfile.TarError, OSError) as error:
        raise DepthKitError(f"expected {root / archive} to be a whole tar; it is not ({error}). Get it again.") from error


def _below(root: Path) -> Iterator[str]:
    for place, folders, files in os.walk(root):
        folders.sort()
        folder = Path(place).relative_to(root).as_posix()
        yield from (file if folder == "." else f"{folder}/{file}" for file in sorted(files))


@dataclass(frozen=True)
class Pool(Sequence[Sample]):
    """Images by name, each read when it is indexed; no more than the names is kept, so there may be millions.

    Attributes:
        root: folder.
        names: of files, or of members of tars.
        rejects: what is there and no image.
        unaltered: pictures are what their files hold, upright.
    """

    root: Path
    names: tuple[str, ...]
    rejects: tuple[Reject, ...] = ()
    kind: LabelKind = UNLABELLED
    unaltered: bool = True

    def __len__(self) -> int:
        return len(self.names)

    def key(self, position: int) -> str:
        """Return the key of a sample without reading it: its name without the ending, shortened by a checksum if it is long."""
        archive, mark, member = self.names[position].partition("#")
        name = f"{archive.removesuffix(TAR)}/{member.partition('/')[2]}" if mark else archive
        key = key_of(os.path.splitext(name)[0])
        return key if len(key.encode()) <= _LONGEST else f"{zlib.crc32(name.encode()):08x}-{key[-12:]}"

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> "Pool": ...
    def __getitem__(self, position: int | slice) -> "Sample | Pool":
        if isinstance(position, slice):
            return replace(self, names=self.names[position])
        name = self.names[position]
        try:
            data = read_named(self.root, name)
        except OSError as error:
            raise DepthKitError(f"expected file {self.root / name}; {error.strerror}. Restore it.") from error
        image = read_image(data, what=str(self.root / name), error=DepthKitError)
        return Sample(self.key(position), image, source={"image": name})

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))


def _pool(name: str, layout: str, source: str, licence: str, total: int | None) -> Dataset:
    return Dataset(
        name=name,
        read=pools,
        layout=layout,
        kind=UNLABELLED,
        unit="no label",
        invalid="no label",
        sky="not marked",
        camera="unknown",
        source=source,
        licence=licence,
        total=total,
        splits="any name will do; nothing is held out",
        test="tests/convert/test_pools.py",
        real=name == "images",
    )


_SIZE = "size as counted by Yang et al. 2024"
DATASETS = (
    _pool("images", "images and tars of images at any depth", "depthkit", "", None),
    _pool("sa_1b", "sa_NNNNNN.tar with sa_N.jpg", f"Kirillov et al. 2023; {_SIZE}", "SA-1B research licence", 11_100_000),
    _pool("open_images", "train/*.jpg or train_N.tar", f"Open Images V7; {_SIZE}", "CC BY 2.0", 7_800_000),
    _pool("bdd100k", "pictures taken from its videos", f"Yu et al. 2020; {_SIZE}", "BDD100K's own, research", 8_200_000),
    _pool("places365", "data_large/LETTER/SCENE/*.jpg", f"Zhou et al. 2017; {_SIZE}", "research only", 6_500_000),
    _pool("lsun", "pictures as the authors' data.py exports them", f"Yu et al. 2015; {_SIZE}", "none stated", 9_800_000),
    _pool("objects365", "train/patchN/*.jpg", f"Shao et al. 2019; {_SIZE}", "CC BY 4.0", 1_700_000),
    _pool("imagenet_21k", "nNNNNNNNN.tar with *.JPEG", f"Ridnik et al. 2021; {_SIZE}", "ImageNet's terms", 13_100_000),
    _pool("google_landmarks", "X/Y/Z/*.jpg or images_NNN.tar", f"Weyand et al. 2020; {_SIZE}", "CC BY, by image", 4_100_000),
)
