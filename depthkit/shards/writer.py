"""Writes the samples that a program hands over one by one."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from depthkit import __version__
from depthkit.errors import ShardError
from depthkit.shards.codec import VIEW, encode_sample
from depthkit.shards.images import ImageFormat
from depthkit.shards.index import SCHEMA, ShardInfo, views_in
from depthkit.shards.label import DepthFormat, count_values
from depthkit.shards.open_shard import OpenShard
from depthkit.shards.reading import read_named, read_shard
from depthkit.shards.records import Encoded, SplitFolder, shard_name
from depthkit.types import LabelKind, Sample


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
        """Encode the sample to members.

        Args:
            sample: what to encode.
            unaltered: whether its images are known to be what their files decode to upright.

        Raises:
            DepthKitError: the sample contradicts itself.
        """
        originals = self._read(sample.source) if self.originals else {}
        formats = {"depth_format": self.depth_format, "image_format": self.image_format}
        members = encode_sample(sample, **formats, originals=originals, unaltered=unaltered)
        values = {} if sample.label is None or sample.valid is None else count_values(sample.label, sample.valid)
        return Encoded(sample.key, sample.kind, views_in(sample.frames), sample.intrinsics is not None, members, values)

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
    ``resume=True`` continues behind them. Equal samples give equal bytes, interrupted or not. ``write_shards`` writes whatever
    can be iterated over or indexed, in several processes.

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
        if samples_per_shard < 1 or (overwrite and resume):
            raise ShardError("expected samples_per_shard >= 1, and not both overwrite and resume. Choose one of them.")
        try:
            formats = DepthFormat(depth_format), ImageFormat(image_format)
        except ValueError as error:
            known = ", ".join([*DepthFormat, *ImageFormat])
            raise ShardError(f"expected depth_format and image_format among {known}; {error}. Choose from these.") from error
        facts = {
            "options": dict(manifest or {}),
            "dataset": dataset,
            "licence": licence,
            "depth_format": formats[0],
            "image_format": formats[1],
            "samples_per_shard": samples_per_shard,
            "bytes_per_shard": bytes_per_shard,
            "format": SCHEMA,
            "depthkit": __version__,
        }
        how: dict[str, Any] = {"manifest": facts, "overwrite": overwrite, "resume": resume}
        self.folder = SplitFolder(root, split=split, dataset=dataset, licence=licence, **how)
        self.encode = Encoder(*formats, None if originals is None else Path(originals))
        self.samples_per_shard, self.bytes_per_shard = samples_per_shard, bytes_per_shard
        self._shard: OpenShard | None = None
        self._kind: LabelKind | None = next((r.stored.kind for r in self.folder.records.values() if r.stored), None)
        self._closed = False

    @cached_property
    def keys(self) -> set[str]:
        """The keys of the samples that the split has, read from the headers of its shards at first.

        Raises:
            ShardError: a shard does not read.
        """
        shards = [shard for record in self.folder.records.values() if record.stored for shard in record.stored.shards]
        urls = [(str(self.folder.root / shard.name), shard.samples) for shard in shards]
        return {raw.key for url, samples in urls for raw in read_shard(url, 0, samples, total=samples, wanted=_none)}

    def __enter__(self) -> Self:
        self._open()
        return self

    def write(self, sample: Sample) -> None:
        """Add a sample.

        Raises:
            DepthKitError: the sample contradicts itself, its key is taken, or its label is of another kind than the split's.
                Nothing of it is stored, and writing may go on.
            ShardError: the disk refuses. The shard at hand is removed and the writer has ended; finished shards stay.
        """
        encoded = self.encode(sample)
        check_kind(encoded, self._kind, self.folder.split)
        if sample.key in self.keys:
            raise key_taken(sample.key, self.folder.split)
        try:
            shard = self._open()
            if shard.samples == self.samples_per_shard or shard.size_with(encoded) > self.bytes_per_shard:
                self._finish_shard()
                shard = self._open()
            shard.put(shard.samples, encoded)
        except BaseException:  # half a sample may be in the tar: it must not grow, nor get its name
            self._discard()
            raise
        self._kind = encoded.kind
        self.keys.add(sample.key)

    def _open(self) -> OpenShard:
        if self._closed:
            raise ShardError(
                f"expected to write split '{self.folder.split}' of {self.folder.root}; this writer has ended. "
                "Open one with resume=True."
            )
        if self._shard is None:
            number = max((int(name[-10:-4]) + 1 for name in self.folder.records), default=0)
            self._shard = OpenShard(self.folder, shard_name(self.folder.split, number))
        return self._shard

    def _finish_shard(self) -> None:
        if self._shard and self._shard.samples:
            self._shard.finish()
            self._shard = None

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The finished shards."""
        records = sorted(self.folder.records.items())
        return tuple(shard for _, record in records if record.stored for shard in record.stored.shards)

    def close(self) -> None:
        """Finish the last shard and declare the split complete. The end of a ``with`` block does this.

        Raises:
            ShardError: there is no sample, or the disk refuses.
        """
        try:
            if self._kind is None or self._closed:
                raise ShardError(
                    f"expected samples for split '{self.folder.split}' of {self.folder.root}; got none. Check the source."
                )
            self._finish_shard()
            self.folder.planned = sorted(self.folder.records)
            self.folder.publish()
        finally:
            self._discard()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and not self._closed:
            self.close()
        self._discard()

    def _discard(self) -> None:
        self._closed = True
        if self._shard:
            self._shard.discard()
            self._shard = None


def check_kind(sample: Encoded, kind: LabelKind | None, split: str) -> None:
    """Check that a sample's label is of the split's kind, if that is known.

    Raises:
        ShardError: it is not.
    """
    if kind and sample.kind != kind:
        raise ShardError(
            f"expected labels of one kind in split '{split}', {kind} as the first; "
            f"sample '{sample.key}' has {sample.kind}. Write it to another split or dataset."
        )


def key_taken(key: str, split: str) -> ShardError:
    """Say that a key comes twice."""
    return ShardError(f"expected every key once in split '{split}'; got '{key}' again. Name the samples apart.")


def _none(member: str) -> bool:
    return False
