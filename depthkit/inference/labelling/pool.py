"""Pools of images to label, in pieces: the images of one piece become one shard of labels."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from depthkit.errors import DepthKitError, ShardError
from depthkit.images import find_images, read_image
from depthkit.shards import ShardIndex
from depthkit.shards.codec import VIEW, check_key
from depthkit.shards.images import EXTENSIONS, ImageFormat, encode_image, stored_extension
from depthkit.shards.reading import read_shard
from depthkit.types import Views
from depthkit.writing import unfinished

_CAMERA = ("intrinsics", "world_from_camera", "frames_from_camera", "stereo_baseline", "source")
_LONGEST_KEY = 64


class Piece(NamedTuple):
    """The images of one shard of labels.

    Attributes:
        shard: name of the tar to write.
        images: number of images.
        source: URL of the shard to read; None for files.
        files: paths of files; empty for a shard.
    """

    shard: str
    images: int
    source: str | None
    files: tuple[Path, ...] = ()


class PoolImage(NamedTuple):
    """One image as it will be stored, without its label.

    Attributes:
        key: name of the sample.
        members: bytes of image and views by member name, unchanged.
        facts: camera and source for meta.json.
    """

    key: str
    members: dict[str, bytes]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """A set of images to label.

    Attributes:
        name: of the dataset.
        licence: of the images.
        split: name of the split to write.
        views: views of every image.
        intrinsics: whether every image has intrinsics.
        pieces: pieces in order.
        root: folder of the files; None for shards.
        digest: digest of the pool's content.
    """

    name: str
    licence: str
    split: str
    views: Views
    intrinsics: bool
    pieces: tuple[Piece, ...]
    digest: str
    root: Path | None = None

    @property
    def count(self) -> int:
        """Number of images in all pieces."""
        return sum(piece.images for piece in self.pieces)

    def read(self, piece: Piece) -> Iterator[tuple[str, PoolImage | DepthKitError]]:
        """Read a piece: key, and the image or the reason why it cannot be read, one by one.

        Raises:
            ShardError: the shard is missing or is not a tar.
        """
        if piece.source is None:
            assert self.root is not None
            yield from ((key, _from_file(key, file, self.root)) for key, file in _keys(piece.files, self.root))
            return
        for raw in read_shard(piece.source, 0, piece.images, total=piece.images, wanted=_wanted):
            if raw.problem:
                yield raw.key, ShardError(f"{piece.source}, sample '{raw.key}': {raw.problem}")
            else:
                yield raw.key, _from_members(raw.key, raw.members, f"{piece.source}, sample '{raw.key}'")


def open_pool(
    root: str | Path, *, split: str | None = None, images_per_shard: int = 1000, listing: str | Path | None = None
) -> Pool:
    """Open the pool of a folder or URL of shards, or of a plain folder of images and the folders in it.

    Args:
        root: folder or URL. Labels in its shards are not read.
        split: split of the shards, needed if there are several; for a folder the name of the split to write, default train.
        images_per_shard: for a plain folder; shards are labelled one to one.
        listing: folder in which the first of several jobs leaves the list of a plain folder's files for the others.

    Raises:
        ShardError: there is no image, no such split, or the split is not complete.
    """
    if "://" in str(root) or (Path(root) / "index.json").exists():
        return _shards(ShardIndex.load(root), split)
    folder = Path(root)
    if not folder.is_dir():
        raise ShardError(f"expected a folder of images or shards at {root}; there is none. Check the path.")
    if images_per_shard < 1:
        raise ShardError(f"expected images_per_shard >= 1; got {images_per_shard}.")
    split, digest = split or "train", hashlib.sha256()
    sizes = _listed(folder, None if listing is None else Path(listing) / f".{split}.listing.json")
    for name, size in sizes.items():
        digest.update(f"{name}\0{size}\n".encode())
    digest.update(f"{images_per_shard}".encode())
    files = [folder / name for name in sizes]
    pieces = tuple(
        Piece(f"{split}-{number:06d}.tar", len(part), None, part)
        for number, first in enumerate(range(0, len(files), images_per_shard))
        if (part := tuple(files[first : first + images_per_shard]))
    )
    return Pool(folder.resolve().name, "", split, Views.SINGLE, False, pieces, digest.hexdigest(), folder)


def _listed(folder: Path, kept: Path | None) -> dict[str, int]:
    """List the images of a folder with their sizes in bytes, or read the list that another job of the same folder made."""
    about = os.path.abspath(folder)
    if kept is not None and kept.exists():
        found = json.loads(kept.read_text())
        if found["pool"] == about:
            return dict(found["files"])
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in find_images(folder, error=ShardError)}
    if kept is not None:
        with unfinished(kept) as whole:
            whole.write_text(json.dumps({"pool": about, "files": sizes}))
            whole.replace(kept)
    return sizes


def _shards(index: ShardIndex, split: str | None) -> Pool:
    if split is None and len(index.splits) != 1:
        known = ", ".join(sorted(index.splits)) or "none"
        raise ShardError(f"expected one split to label in {index.root}; it has {known}. Give --split.")
    split = split or next(iter(index.splits))
    info = index.split(split)
    pieces = tuple(Piece(shard.name, shard.samples, index.url(shard)) for shard in info.shards)
    if not pieces:
        raise ShardError(f"expected images in split '{split}' of {index.root}; its index lists no shard. Write it again.")
    digest = hashlib.sha256(json.dumps([shard._asdict() for shard in info.shards]).encode()).hexdigest()
    return Pool(index.dataset, index.licence, split, info.views, info.intrinsics, pieces, digest)


def _wanted(member: str) -> bool:
    """Tell whether a member is an image or a view, not a label."""
    view, _, extension = member.rpartition(".")
    return member == "meta.json" or (extension in EXTENSIONS and (view == "image" or VIEW.fullmatch(view) is not None))


def _from_members(key: str, members: dict[str, bytes], where: str) -> PoolImage | ShardError:
    try:
        meta = json.loads(members.pop("meta.json", b"{}"))
        facts = {name: meta[name] for name in _CAMERA if name in meta}
    except (ValueError, TypeError, RecursionError) as error:
        return ShardError(f"{where}: expected meta.json to be JSON; it does not parse ({error}).")
    if sum(name.startswith("image.") for name in members) != 1:
        return ShardError(f"{where}: expected one image; got members {', '.join(members) or 'none'}.")
    return PoolImage(key, members, facts)


def _from_file(key: str, file: Path, root: Path) -> PoolImage | DepthKitError:
    """Return the bytes of a file unchanged if shards can hold them upright, else its image encoded again."""
    try:
        check_key(key)
        data = file.read_bytes()
        extension = stored_extension(data)
        if extension is None:
            image = read_image(data, what=str(file), photo=True, error=ShardError)
            extension, data = encode_image(image, ImageFormat.JPG if data[:2] == b"\xff\xd8" else ImageFormat.PNG)
    except DepthKitError as error:
        return error
    except OSError as error:
        return ShardError(f"{file}: expected an image; it cannot be read ({error.strerror}). Check its permissions.")
    return PoolImage(key, {f"image.{extension}": data}, {"source": {"image": file.relative_to(root).as_posix()}})


def _keys(files: tuple[Path, ...], root: Path) -> Iterator[tuple[str, Path]]:
    """Make a key for each file from its path alone, so that it does not depend on the other files."""
    for file in files:
        name = file.relative_to(root).as_posix()
        plain = "".join(c if (c.isascii() and c.isalnum()) or c in "-_/" else "_" for c in name)
        if len(plain) > _LONGEST_KEY or plain.rpartition("_")[0] != name.rpartition(".")[0]:
            plain = f"{plain[-_LONGEST_KEY + 13 :].lstrip('/')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        yield plain, file
