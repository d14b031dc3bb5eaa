"""Writes shards so that whatever stops it, every file that looks finished is."""

import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from depthkit import __version__
from depthkit.errors import ShardError
from depthkit.shards.codec import VIEW, encode_sample
from depthkit.shards.files import PARTIAL, PartialTar, alone, replace_text, writing
from depthkit.shards.images import ImageFormat
from depthkit.shards.index import INDEX, SCHEMA, SPLIT, ShardIndex, ShardInfo, SplitInfo, shared_views, views_in
from depthkit.shards.label import DepthFormat
from depthkit.shards.manifest import agree, manifest_file
from depthkit.shards.reading import read_named, read_shard
from depthkit.types import LabelKind, Sample, Views


class Encoded(NamedTuple):
    """A sample as members, with what the index wants to know about it."""

    key: str
    kind: LabelKind
    views: Views
    intrinsics: bool
    members: dict[str, bytes]


@dataclass(frozen=True)
class Encoder:
    """How samples become members; it travels to worker processes.

    Attributes:
        depth_format: how dense labels are stored.
        image_format: how images without a JPEG or WebP file of their own are stored.
        originals: the folder to which the file names in ``Sample.source`` (by view: ``image``, ``prev``, ...) are relative.
            JPEG and WebP files found there are stored as they are.
    """

    depth_format: DepthFormat = DepthFormat.PNG_LOG16
    image_format: ImageFormat = ImageFormat.JPG
    originals: Path | None = None

    def __call__(self, sample: Sample, *, unaltered: bool = False) -> Encoded:
        """The sample's members.

        Args:
            sample: what to encode.
            unaltered: whether its images are known to be what their files decode to upright.

        Raises:
            DepthKitError: the sample contradicts itself.
        """
        originals = self._read(sample.source) if self.originals else {}
        formats = {"depth_format": self.depth_format, "image_format": self.image_format}
        members = encode_sample(sample, **formats, originals=originals, unaltered=unaltered)
        return Encoded(sample.key, sample.kind, views_in(sample.frames), sample.intrinsics is not None, members)

    def _read(self, source: Mapping[str, str]) -> dict[str, bytes]:
        assert self.originals is not None
        found = {}
        for view, name in source.items():
            picture = view == "image" or VIEW.fullmatch(view)  # other files may be labels, whatever their names end in
            if picture and name.lower().endswith((".jpg", ".jpeg", ".webp", ".thumb")):
                with suppress(OSError):  # a name that is no file of its own
                    found[view] = read_named(self.originals, name)
        return found


class ShardWriter:
    """Writes one split of a dataset as ``<split>-000000.tar``, ... and keeps ``index.json`` up to date after each of them.

    A shard is written under a temporary name and gets its own when it is complete and on the disk. The split counts as
    complete when the ``with`` block ends without an exception; after anything else its finished shards stay, and
    ``resume=True`` continues behind them. Equal samples give equal bytes, interrupted or not.

    Args:
        root: folder; created if need be. It may hold other splits of the same dataset.
        split: name, such as train or test.
        dataset: name.
        licence: of the data, free text.
        samples_per_shard: at most so many.
        bytes_per_shard: a shard is closed before it grows larger (a single larger sample gets a shard of its own).
        depth_format: ``png_log16``, ``png_linear16`` or ``npy``; see ``DepthFormat``.
        image_format: ``jpg`` or ``png``, for images without a JPEG or WebP file of their own; see ``ImageFormat``.
        originals: folder to which the file names in ``Sample.source`` are relative; JPEG and WebP files of exactly the
            sample's pixels found there are stored unchanged.
        manifest: whatever else shapes the samples, such as a converter and its options; with the formats and the licence it
            is kept beside the shards, and nothing made otherwise is added to them.
        overwrite: replace what the split holds.
        resume: continue a split that was cut short; ``keys`` names the samples that it has.

    Raises:
        ShardError: the split exists and neither ``overwrite`` nor ``resume`` is given, another process writes it, the
            folder holds another dataset, or the disk refuses.

    Example:
        >>> with ShardWriter(root, split="train", dataset="room") as writer:  # doctest: +SKIP
        ...     for sample in samples:
        ...         writer.write(sample)
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        dataset: str,
        licence: str = "",
        samples_per_shard: int = 1000,
        bytes_per_shard: int = 2**30,
        depth_format: DepthFormat | str = DepthFormat.PNG_LOG16,
        image_format: ImageFormat | str = ImageFormat.JPG,
        originals: str | Path | None = None,
        manifest: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.root, self.split, self.dataset, self.licence = Path(root), split, dataset, licence
        self._limits = samples_per_shard, bytes_per_shard
        if not SPLIT.fullmatch(split):
            raise ShardError(
                f"expected a split name of letters, digits, '_' and '-'; got '{split}'. Name it train, val or test."
            )
        if samples_per_shard < 1 or (overwrite and resume):
            raise ShardError("expected samples_per_shard >= 1, and not both overwrite and resume. Choose one of them.")
        try:
            formats = DepthFormat(depth_format), ImageFormat(image_format)
        except ValueError as error:
            known = ", ".join([*DepthFormat, *ImageFormat])
            raise ShardError(f"expected depth_format and image_format among {known}; {error}. Choose from these.") from error
        self.encode = Encoder(*formats, None if originals is None else Path(originals))
        self.manifest = split_manifest(
            manifest or {}, dataset=dataset, licence=licence, depth_format=formats[0], image_format=formats[1],
            samples_per_shard=samples_per_shard, bytes_per_shard=bytes_per_shard,
        )  # fmt: skip
        self.keys: set[str] = set()
        self._info: SplitInfo | None = None
        self._tar: PartialTar | None = None
        self._replacing, self._closed, self._held = overwrite, False, ExitStack()
        with self._held, writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            busy = f"another process is writing split '{split}' of {root}. Wait for it, or write to another folder."
            self._held.enter_context(alone(self.root / f".{split}.lock", busy))
            present = _index(self.root, self.dataset, self.licence).splits.get(split)
            if (present or self._files()) and not (overwrite or resume):
                count = sum(shard.samples for shard in present.shards) if present else "some"
                go_on = "" if present and present.complete else "resume=True to continue it, "
                raise ShardError(
                    f"expected no split '{split}' in {root}; it has {count} samples. "
                    f"Give {go_on}overwrite=True to replace it, or choose another split or folder."
                )
            if resume and present:
                agree(manifest_file(self.root, split), self.manifest, begun=bool(present.shards))
                self._info = replace(present, complete=False)
                self.keys = stored_keys(self.root, present)
            self._held = self._held.pop_all()

    def __enter__(self) -> Self:
        return self

    def write(self, sample: Sample) -> None:
        """Add a sample.

        Raises:
            DepthKitError: the sample contradicts itself, its key is taken, or its label is of another kind than the split's.
                Nothing of it is stored, and writing may go on.
            ShardError: the disk refuses. The shard at hand is removed and the writer has ended; finished shards stay.
        """
        self.add(self.encode(sample))

    def check(self, sample: Encoded) -> None:
        """The sample fits into this split: its key is new and its label of the split's kind.

        Raises:
            ShardError: it does not.
        """
        if sample.key in self.keys:
            raise ShardError(
                f"expected every key once in split '{self.split}'; got '{sample.key}' again. Name the samples apart."
            )
        if self._info and sample.kind != self._info.kind:
            raise ShardError(
                f"expected labels of one kind in split '{self.split}', {self._info.kind} as the first; "
                f"sample '{sample.key}' has {sample.kind}. Write it to another split or dataset."
            )

    def add(self, sample: Encoded) -> None:
        """Add a sample that is encoded already, by ``encode``; raises as ``write`` does."""
        self.check(sample)
        if self._closed:
            raise ShardError(
                f"expected to write split '{self.split}' of {self.root}; this writer has ended. Open one with resume=True."
            )
        try:
            with writing(self.root):
                self._store(sample)
        except BaseException:  # half a sample may be in the tar: it must not grow, nor get its name
            self._discard()
            raise
        info = self._info or SplitInfo(sample.kind, sample.views, sample.intrinsics, complete=False)
        views = shared_views(info.views, sample.views)
        self._info = replace(info, views=views, intrinsics=info.intrinsics and sample.intrinsics)
        self.keys.add(sample.key)

    def _store(self, sample: Encoded) -> None:
        if self._tar and (self._tar.samples >= self._limits[0] or self._tar.size_with(sample.members) > self._limits[1]):
            self._finish_shard()
        if self._tar is None:
            self._clear()
            agree(manifest_file(self.root, self.split), self.manifest)
            self._tar = PartialTar(self.root / f"{self.split}-{len(self.shards):06d}.tar")
        self._tar.add(sample.key, sample.members)

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The finished shards."""
        return self._info.shards if self._info else ()

    def close(self) -> None:
        """Finish the last shard and declare the split complete. The end of a ``with`` block does this.

        Raises:
            ShardError: there is no sample, or the disk refuses.
        """
        with self._held:
            if self._info is None or self._closed:
                raise ShardError(f"expected samples for split '{self.split}' of {self.root}; got none. Check the source.")
            try:
                with writing(self.root):
                    self._finish_shard(complete=True)
            finally:
                self._discard()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and not self._closed:
            self.close()
        with self._held:
            self._discard()

    def _discard(self) -> None:
        self._closed = True
        if self._tar:
            self._tar.discard()
            self._tar = None

    def _finish_shard(self, complete: bool = False) -> None:
        assert self._info is not None
        if self._tar:
            digest = self._tar.finish()
            shard = ShardInfo(self._tar.path.name, self._tar.samples, self._tar.bytes, digest)
            self._tar, self._info = None, replace(self._info, shards=(*self._info.shards, shard))
        self._info = replace(self._info, complete=complete)
        publish(self.root, self.dataset, self.licence, self.split, self._info)

    def _clear(self) -> None:
        """Before the first shard of an overwritten split: forget it, then delete it."""
        if self._replacing:
            self._replacing = False
            publish(self.root, self.dataset, self.licence, self.split, None)
            for file in self._files():
                file.unlink()
            manifest_file(self.root, self.split).unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Whatever bears the name of a shard of this split, finished or not."""
        pattern = re.compile(rf"{re.escape(self.split)}-\d{{6}}\.tar({re.escape(PARTIAL)})?")
        return sorted(file for file in self.root.iterdir() if pattern.fullmatch(file.name))


def split_manifest(options: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Collect what shapes the samples of a split: the options they are made with, and how they are stored."""
    return {"options": dict(options), **facts, "format": SCHEMA, "depthkit": __version__}


def stored_keys(root: Path, split: SplitInfo) -> set[str]:
    """The keys of a split's samples, in the headers of its shards.

    Raises:
        ShardError: a shard does not read.
    """
    shards = ((str(root / shard.name), shard.samples) for shard in split.shards)
    return {raw.key for url, samples in shards for raw in read_shard(url, 0, samples, total=samples, wanted=_none)}


def publish(root: Path, dataset: str, licence: str, split: str, info: SplitInfo | None) -> None:
    """Put a split into a folder's index, or take it out; other writers may be at work on other splits.

    Raises:
        ShardError: the folder holds another dataset.
    """
    with alone(root / ".index.lock"):
        index = _index(root, dataset, licence)
        splits = {name: other for name, other in index.splits.items() if name != split} | ({split: info} if info else {})
        replace_text(root / INDEX, replace(index, splits=splits, licence=licence or index.licence).to_json())


def _index(root: Path, dataset: str, licence: str) -> ShardIndex:
    """The index of a folder, or an empty one."""
    if not (root / INDEX).exists():
        return ShardIndex(str(root), dataset, licence)
    index = ShardIndex.load(root)
    if index.dataset != dataset:
        raise ShardError(f"expected dataset '{dataset}' in {root}; it holds '{index.dataset}'. Choose another folder.")
    return index


def _none(member: str) -> bool:
    return False
