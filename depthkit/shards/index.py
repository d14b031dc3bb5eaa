"""``index.json``: which shards a dataset has, what is in them, and how to know that they are unchanged."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from depthkit.errors import DepthKitError, ShardError
from depthkit.shards.files import is_remote, joined, open_url
from depthkit.types import Ambiguity, LabelKind, Representation, Views

SCHEMA = 1
"""Version of the layout; a reader refuses any other."""
INDEX = "index.json"
SPLIT = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*")
SHARD = re.compile(rf"(?P<split>{SPLIT.pattern})-\d{{6}}\.tar")
_LIMIT = 64 * 2**20  # bytes of an index; a million shards need less


class ShardInfo(NamedTuple):
    """One tar file: its name in the index's folder, its samples, its size in bytes and its SHA-256."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitInfo:
    """One split of a dataset.

    Attributes:
        kind: what its labels leave undetermined and what their numbers are.
        views: the views that every sample has.
        intrinsics: whether every sample has them.
        complete: False while it is being written, and after that was cut short.
        shards: in order.
        range: the values below which 5, 50 and 95 % of its labels' pixels lie; None if not known.
        left_out: samples of the source that could not be stored.
    """

    kind: LabelKind
    views: Views
    intrinsics: bool
    complete: bool
    shards: tuple[ShardInfo, ...] = ()
    range: tuple[float, float, float] | None = None
    left_out: int = 0

    @property
    def samples(self) -> int:
        """The number of samples in its shards."""
        return sum(shard.samples for shard in self.shards)

    def entry(self) -> dict[str, Any]:
        """Describe the data in ``index.json``."""
        return {
            "ambiguity": str(self.kind.ambiguity),
            "representation": str(self.kind.representation),
            "views": str(self.views),
            "intrinsics": self.intrinsics,
            "complete": self.complete,
            "samples": self.samples,
            "shards": [shard._asdict() for shard in self.shards],
        }

    @classmethod
    def parse(cls, name: str, entry: Mapping[str, Any]) -> Self:
        """Read the description of the split ``name``.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        if not SPLIT.fullmatch(name):
            raise ValueError(f"split name '{name}'")
        shards = tuple(
            ShardInfo(str(s["name"]), _count(s["samples"]), _count(s["bytes"]), str(s["sha256"])) for s in entry["shards"]
        )
        for shard in shards:
            match = SHARD.fullmatch(shard.name)
            if not match or match["split"] != name or shard.samples < 1:  # no path can pass: no slash, no dots
                raise ValueError(f"shard '{shard.name}' of split '{name}', {shard.samples} samples")
        if len({shard.name for shard in shards}) != len(shards):
            raise ValueError(f"a shard of split '{name}' is listed twice")
        kind = LabelKind(Ambiguity(entry["ambiguity"]), Representation(entry["representation"]))
        low_middle_high = tuple(map(float, entry.get("range") or ()))
        return cls(
            kind,
            Views(entry["views"]),
            bool(entry["intrinsics"]),
            bool(entry["complete"]),
            shards,
            low_middle_high if len(low_middle_high) == 3 and all(map(math.isfinite, low_middle_high)) else None,
            _count(entry.get("left_out", 0)),
        )


@dataclass(frozen=True)
class ShardIndex:
    """What a folder of shards holds.

    Attributes:
        root: folder or URL.
        dataset: name.
        licence: of the data.
        splits: by name.
    """

    root: str
    dataset: str
    licence: str = ""
    splits: Mapping[str, SplitInfo] = field(default_factory=dict)

    @classmethod
    def load(cls, root: str | Path) -> Self:
        """Load the index of a folder, or of a URL that webdataset opens.

        Raises:
            ShardError: there is none, or it is not one of this version.
        """
        address = joined(_root(root), INDEX)
        try:
            with closing(open_url(address)) as stream:
                content = stream.read(_LIMIT + 1)
        except DepthKitError:
            raise
        except FileNotFoundError as error:
            raise ShardError(
                f"expected shards in {root}; there is no {INDEX}. Give the folder that `depthkit shards write` wrote."
            ) from error
        except (OSError, ValueError, ImportError) as error:
            raise ShardError(
                f"expected to read {address}; that failed ({error}). Check the address and the permissions."
            ) from error
        if not content:  # a transfer program that fails says so at the end, and some say nothing
            raise ShardError(f"expected shards in {root}; {INDEX} is missing or empty. Check the address.")
        return cls._parse(content, _root(root))

    @classmethod
    def _parse(cls, content: bytes, root: str) -> Self:
        try:
            raw = json.loads(content)
            if raw["schema"] != SCHEMA:
                raise ShardError(
                    f"expected schema {SCHEMA} in {root}/{INDEX}; got {raw['schema']}. "
                    "Write the shards again or use a matching depthkit."
                )
            splits = {name: SplitInfo.parse(name, entry) for name, entry in raw["splits"].items()}
            return cls(root, str(raw["dataset"]), str(raw["licence"]), splits)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, ShardError):
                raise
            raise ShardError(
                f"expected {root}/{INDEX} to be an index of shards; it is not ({error!r}). Write the shards again."
            ) from error

    def to_json(self) -> str:
        """Return the content of ``index.json``."""
        content = self._content()
        for name, split in self.splits.items():  # what is told beside the data
            told = {"range": split.range, "left_out": split.left_out}
            content["splits"][name] |= {fact: value for fact, value in told.items() if value}
        return json.dumps(content, indent=1) + "\n"

    def _content(self) -> dict[str, Any]:
        splits = {name: split.entry() for name, split in sorted(self.splits.items())}
        return {"schema": SCHEMA, "dataset": self.dataset, "licence": self.licence, "splits": splits}

    def split(self, name: str) -> SplitInfo:
        """Return the facts of a complete split.

        Raises:
            ShardError: there is no such split, or its writing was cut short.
        """
        if name not in self.splits:
            raise ShardError(
                f"expected a split of {self.root}: {', '.join(sorted(self.splits)) or 'it has none'}; got '{name}'."
            )
        if not self.splits[name].complete:
            raise ShardError(
                f"expected split '{name}' of {self.root} to be written to its end; it was cut short. "
                "Repeat the command, in Python with resume=True."
            )
        return self.splits[name]

    def shards(self, split: str) -> tuple[ShardInfo, ...]:
        """List the shards of a split, in order."""
        return self.split(split).shards

    def samples(self, split: str) -> int:
        """Count the samples of a split."""
        return self.split(split).samples

    def kind(self, split: str) -> LabelKind:
        """Return the kind of a split's labels."""
        return self.split(split).kind

    def url(self, shard: ShardInfo) -> str:
        """Where a shard lies: its root and its name, which is never a path."""
        return joined(self.root, shard.name)

    @property
    def digest(self) -> str:
        """SHA-256 over what the index says of the data, shards' hashes included: its identity, wherever it lies."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()


def _count(value: Any) -> int:
    """Return a number of samples or bytes.

    Raises:
        ValueError, TypeError, OverflowError: it is none.
    """
    count = int(value)
    if not 0 <= count < 2**63:
        raise ValueError(f"a count of {str(value)[:20]}")
    return count


def views_in(frames: Iterable[str]) -> Views:
    """Find the kind of views of a sample with further views of these names."""
    names = set(frames)
    return _views(video=bool(names - {"stereo"}), stereo="stereo" in names)


def _views(*, video: bool, stereo: bool) -> Views:
    return {(True, True): Views.VIDEO_STEREO, (True, False): Views.VIDEO, (False, True): Views.STEREO}.get(
        (video, stereo), Views.SINGLE
    )


def shared_views(a: Views, b: Views) -> Views:
    """Return the views that both have."""
    video, stereo = (Views.VIDEO, Views.VIDEO_STEREO), (Views.STEREO, Views.VIDEO_STEREO)
    return _views(video=a in video and b in video, stereo=a in stereo and b in stereo)


def _root(root: str | Path) -> str:
    text = str(root) if is_remote(str(root)) else str(root).rstrip("/") or "/"
    if text.startswith("pipe:"):
        raise ShardError(
            f"expected a folder or URL of shards; got a command, '{root}'. Give an address such as https://host/folder."
        )
    return text
