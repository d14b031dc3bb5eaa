"""One sample as named members of a tar, and back."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from depthkit.errors import DepthKitError, LabelError, ShapeError, ShardError
from depthkit.shards.images import EXTENSIONS, ImageFormat, decode_image, decode_mask, encode_image, encode_pixels
from depthkit.shards.label import CodedLabel, DepthFormat, at_infinity, decode_coded, decode_label, encode_label
from depthkit.shards.reading import MEMBER_LIMIT
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

VIEW = re.compile(r"prev|next|stereo|frame-\d+")
"""Names of further views."""
_KEY = re.compile(r"[^./\\\s\0][^.\\\s\0]*")
_LONGEST_KEY = 80  # bytes; with the longest member name it still fits a plain tar header
_MEMBERS = (
    "image.jpg|png|webp, depth.png|npy, valid.png, sky.png, edges.png, pairs.json, meta.json and views "
    "prev, next, stereo, frame-N (.jpg|png|webp)"
)

_LABELS = ("depth.png", "depth.npy", "valid.png", "sky.png", "edges.png", "pairs.json", "meta.json")


def encode_sample(
    sample: Sample,
    *,
    depth_format: DepthFormat | str = DepthFormat.PNG_LOG16,
    image_format: ImageFormat | str = ImageFormat.JPG,
    originals: Mapping[str, bytes] | None = None,
    unaltered: bool = False,
) -> dict[str, bytes]:
    """Encode a sample to members by name, ready for a tar.

    Args:
        sample: what to store.
        depth_format: how to store a dense label.
        image_format: how to store images that have no JPEG or WebP file of their own.
        originals: the files the images came from, ``image`` and views by name. A JPEG or WebP that holds exactly the
            sample's pixels is stored unchanged; others are encoded in ``image_format``.
        unaltered: whether all images are known to be what these files decode to upright, so that this need not be tried.

    Raises:
        DepthKitError: the sample contradicts itself: sizes, label without values, sky outside of the label.

    Example:
        >>> image, depth = np.zeros((2, 3, 3), np.uint8), np.full((2, 3), 1.5, np.float32)
        >>> sample = Sample("a", image, depth, depth > 0, Ambiguity.METRIC)
        >>> members = encode_sample(sample, depth_format="png_linear16")
        >>> sorted(members)
        ['depth.png', 'image.jpg', 'meta.json']
        >>> bool((decode_sample("a", members, where="train-000000.tar").label == depth).all())
        True
    """
    check_key(sample.key)
    originals, members = originals or {}, {}
    for name, image in {"image": sample.image, **sample.frames}.items():
        if name != "image" and not VIEW.fullmatch(name):
            raise ShapeError(f"sample '{sample.key}': expected views named prev, next, stereo or frame-N; got '{name}'.")
        extension, members_bytes = encode_image(image, ImageFormat(image_format), originals.get(name), unaltered=unaltered)
        _same_size(f"sample '{sample.key}': {name}", image.shape[:2], sample.size, ShapeError)
        members[f"{name}.{extension}"] = members_bytes
    meta: dict[str, Any] = {"ambiguity": str(sample.ambiguity), "representation": str(sample.representation)}
    stored = None
    if sample.label is not None:
        stored = _encode_dense(sample, DepthFormat(depth_format), members, meta)
    if sample.sky is not None and not (stored is not None and stored.any() and np.array_equal(sample.sky, stored)):
        _same_size(f"sample '{sample.key}': sky", sample.sky.shape, sample.size, ShapeError)
        members["sky.png"] = encode_pixels(sample.sky.astype(np.uint8) * 255, ".png")
    if sample.edges is not None:
        _same_size(f"sample '{sample.key}': edges", sample.edges.shape, sample.size, ShapeError)
        members["edges.png"] = encode_pixels(sample.edges.astype(np.uint8) * 255, ".png")
    if sample.pairs is not None:
        members["pairs.json"] = json.dumps(_pairs(sample.pairs, sample.size, f"sample '{sample.key}'").tolist()).encode()
    _check_label(sample.ambiguity, sample.label, sample.pairs, f"sample '{sample.key}'", LabelError)
    meta |= _encode_camera(sample)
    members["meta.json"] = json.dumps(meta, allow_nan=False, sort_keys=True).encode()
    return members


def _encode_dense(
    sample: Sample, depth_format: DepthFormat, members: dict[str, bytes], meta: dict[str, Any]
) -> np.ndarray | None:
    """Add the label's member and facts; return where what was stored is at infinity, which needs no sky.png."""
    where = f"sample '{sample.key}'"
    label, valid = sample.label, sample.valid
    if label is None or valid is None or label.shape != sample.size or valid.shape != sample.size or valid.dtype != bool:
        shapes = [None if x is None else (str(x.dtype), x.shape) for x in (label, valid)]
        raise ShapeError(
            f"{where}: expected label and bool valid of the image's size {sample.size}; got {shapes}. Resize the image."
        )
    if sample.sky is not None and sample.sky.shape == sample.size and (sample.sky & ~valid).any():
        raise LabelError(f"{where}: expected sky to be a valid label (depth inf, disparity 0); got sky where valid is False.")
    try:
        name, members_bytes, facts = encode_label(label, valid, sample.kind, depth_format)
    except LabelError as error:
        raise LabelError(f"{where}: {error}") from error
    members[name], meta["depth"] = members_bytes, facts
    return at_infinity(label, valid, sample.kind)


def _encode_camera(sample: Sample) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, shape in (("intrinsics", (3, 3)), ("world_from_camera", (4, 4))):
        matrix = getattr(sample, name)
        if matrix is not None:
            facts[name] = _matrix(matrix, shape, f"sample '{sample.key}': {name}", ShapeError).tolist()
    if sample.frames_from_camera:
        facts["frames_from_camera"] = {
            name: _matrix(pose, (4, 4), f"sample '{sample.key}': pose {name}", ShapeError).tolist()
            for name, pose in sample.frames_from_camera.items()
        }
    if sample.stereo_baseline is not None:
        facts["stereo_baseline"] = float(sample.stereo_baseline)
    if sample.source:
        facts["source"] = dict(sample.source)
    return facts


class Stored(NamedTuple):
    """A sample whose dense label may still be in codes: what moves pixels moves those, two bytes each and no mask.

    Attributes:
        sample: everything else; with ``coded``, its label holds codes and it has no ``valid``.
        coded: how to look codes up; None if the label is read.
    """

    sample: Sample
    coded: CodedLabel | None

    def read(self, moved: Sample | None = None) -> Sample:
        """Return the sample with its label's values; with those of ``moved``, which was made of it by moving pixels."""
        sample = self.sample if moved is None else moved
        if self.coded is None:
            return sample
        dense = self.coded.read(sample.label)
        sky = dense.infinite if sample.sky is None else sample.sky & dense.valid
        return sample.replace(label=dense.value, valid=dense.valid, sky=sky)


def decode_sample(key: str, members: Mapping[str, bytes], *, where: str) -> Sample:
    """Decode members to a sample.

    Members whose name starts with ``__`` are not looked at, and a view that was not read is simply not there.

    Args:
        key: its name.
        members: bytes by member name.
        where: the shard, for messages.

    Raises:
        ShardError: naming shard and key: a member is missing, unknown, too large, truncated, or not what its name says;
            image and label differ in size; a label has no valid pixel; meta.json does not fit its members.
    """
    return decode_stored(key, members, where=where).read()


def decode_stored(key: str, members: Mapping[str, bytes], *, where: str) -> Stored:
    """Decode members as ``decode_sample`` does, up to the values of a label that is stored in codes."""
    where = f"{where}, sample '{key}'"
    images: dict[str, np.ndarray] = {}
    for name, data in members.items():
        view, _, extension = name.rpartition(".")
        if len(data) > MEMBER_LIMIT:
            raise ShardError(
                f"{where}: {name} has {len(data)} bytes, more than the {MEMBER_LIMIT} allowed. Store a smaller one."
            )
        if extension in EXTENSIONS and (view == "image" or VIEW.fullmatch(view)):
            if view in images:
                raise ShardError(f"{where}: expected one file of view '{view}'; got several. Keep one.")
            images[view] = decode_image(data, f"{where}: {name}")
        elif name not in _LABELS and name[:2] != "__":
            raise ShardError(
                f"{where}: expected members {_MEMBERS}; got '{name}', which is not read. Remove it from the shard."
            )
    if "image" not in images or "meta.json" not in members:
        missing = "meta.json" if "image" in images else "image.jpg, .png or .webp"
        raise ShardError(f"{where}: expected members image and meta.json; {missing} is missing. Write the shard again.")
    image = images.pop("image")
    size = image.shape[:2]
    for name, frame in images.items():
        _same_size(f"{where}: {name}", frame.shape[:2], size, ShardError)
    meta = _json(members["meta.json"], f"{where}: meta.json", dict)
    try:
        kind = LabelKind(Ambiguity(meta["ambiguity"]), Representation(meta["representation"]))
    except (KeyError, ValueError) as error:
        raise ShardError(f"{where}: expected meta.json to name an ambiguity and a representation; {error} does not.") from error
    coded, parts = _decode_dense(members, meta, kind, size, where)
    pairs = edges = None
    if "edges.png" in members:
        edges = decode_mask(members["edges.png"], f"{where}: edges.png")
        _same_size(f"{where}: edges.png", edges.shape, size, ShardError)
    if "pairs.json" in members:
        pairs = _pairs(_json(members["pairs.json"], f"{where}: pairs.json", list), size, where)
    _check_label(kind.ambiguity, parts.get("label"), pairs, where, ShardError)
    sample = Sample(
        key=key,
        image=image,
        ambiguity=kind.ambiguity,
        representation=kind.representation,
        frames=images,
        pairs=pairs,
        label=parts.get("label"),
        valid=parts.get("valid"),
        sky=parts.get("sky"),
        edges=edges,
        **_decode_camera(meta, where),
    )
    return Stored(sample, coded)


def _decode_dense(
    members: Mapping[str, bytes], meta: Mapping[str, Any], kind: LabelKind, size: tuple[int, int], where: str
) -> tuple[CodedLabel | None, dict[str, np.ndarray | None]]:
    """Return how to look the label's codes up, if that is still to be done, and the sample's label, valid and sky."""
    names = [name for name in ("depth.png", "depth.npy") if name in members]
    masks = {
        name: decode_mask(members[f"{name}.png"], f"{where}: {name}.png")
        for name in ("valid", "sky")
        if f"{name}.png" in members
    }
    for name, mask in masks.items():
        _same_size(f"{where}: {name}.png", mask.shape, size, ShardError)
    sky = masks.get("sky")
    if not names:
        return None, {"sky": sky}
    if len(names) > 1:
        raise ShardError(f"{where}: expected one label; got depth.png and depth.npy. Remove one.")
    name, what = names[0], f"{where}: {names[0]}"
    facts = meta["depth"] if isinstance(meta.get("depth"), dict) else {}
    if name == "depth.png" and "valid" not in masks:
        coded = decode_coded(members[name], facts, kind, what)
        _same_size(what, coded.codes.shape, size, ShardError)
        _some_valid(coded.codes, where, name)
        return coded, {"label": coded.codes, "sky": sky}
    dense = decode_label(name, members[name], facts, kind, what)
    _same_size(what, dense.value.shape, size, ShardError)
    valid = dense.valid & masks["valid"] if "valid" in masks else dense.valid
    _some_valid(valid, where, name)
    sky = dense.infinite if sky is None else sky
    return None, {"label": dense.value, "valid": valid, "sky": None if sky is None else sky & valid}


def _some_valid(valid: np.ndarray, where: str, name: str) -> None:
    if not valid.any():
        raise ShardError(f"{where}: expected a label with valid pixels; all of {name} is invalid. Leave the sample out.")


def _decode_camera(meta: Mapping[str, Any], where: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, shape in (("intrinsics", (3, 3)), ("world_from_camera", (4, 4))):
        if meta.get(name) is not None:
            facts[name] = _matrix(meta[name], shape, f"{where}: {name} in meta.json", ShardError)
    try:
        facts["frames_from_camera"] = {
            name: _matrix(pose, (4, 4), f"{where}: pose {name} in meta.json", ShardError)
            for name, pose in meta.get("frames_from_camera", {}).items()
        }
        baseline = None if meta.get("stereo_baseline") is None else float(meta["stereo_baseline"])
        if baseline is not None and not 0 < baseline < math.inf:
            raise ValueError(f"stereo_baseline {baseline}")
        facts["stereo_baseline"] = baseline
        facts["source"] = {str(name): str(text) for name, text in meta.get("source", {}).items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(
            f"{where}: expected poses, source and stereo_baseline in meta.json as written; got {error}."
        ) from error
    return facts


def check_key(key: str) -> None:
    """Check that a key can name a sample inside a tar.

    Raises:
        ShardError: it has a dot (where the member's name would start), a blank, a backslash or a leading slash, or is too long.
    """
    if not _KEY.fullmatch(key) or len(key.encode()) > _LONGEST_KEY:
        raise ShardError(
            f"expected a key without dots, blanks and backslashes, of 1 to {_LONGEST_KEY} bytes, not starting with a slash; "
            f"got '{key}'. Name the sample otherwise, for example scene01/000123."
        )


def _check_label(ambiguity: Ambiguity, dense: object, pairs: object, where: str, error: type[DepthKitError]) -> None:
    """Check that there is a dense or ordinal label exactly if the ambiguity asks for it."""
    needs = {Ambiguity.ORDINAL: (False, True), Ambiguity.UNLABELLED: (False, False)}.get(ambiguity, (True, pairs is not None))
    if needs != (dense is not None, pairs is not None):
        got = [name for name, part in (("a dense label", dense), ("ordinal pairs", pairs)) if part is not None]
        raise error(
            f"{where}: expected the label of ambiguity '{ambiguity}'; got {' and '.join(got) or 'none'}. Correct either."
        )


def _same_size(what: str, got: tuple[int, ...], size: tuple[int, int], error: type[DepthKitError]) -> None:
    if tuple(got) != tuple(size):
        raise error(
            f"{what}: expected the image's size {tuple(size)} (height, width); got {tuple(got)}. Resize the image to its label."
        )


def _matrix(value: Any, shape: tuple[int, int], what: str, error: type[DepthKitError]) -> np.ndarray:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise error(f"{what}: expected finite numbers of shape {shape}; got {value}.")
    return matrix


def _pairs(value: Any, size: tuple[int, int], where: str) -> np.ndarray:
    try:
        pairs = np.asarray(value, np.int32).reshape(len(value), 5)
    except (TypeError, ValueError, OverflowError):
        pairs = np.full((1, 5), -2, np.int32)
    inside = (pairs[:, :4] >= 0) & (pairs[:, :4] < np.array([*size, *size]))
    if not inside.all() or not np.isin(pairs[:, 4], (-1, 0, 1)).all():
        raise ShardError(
            f"{where}: expected pairs as rows (row a, column a, row b, column b, order) inside the image {size}, "
            "order -1, 0 or 1. Correct pairs.json."
        )
    return pairs


def _json(data: bytes, what: str, kind: type) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{what}: expected JSON; it does not parse ({error}). Write the shard again.") from error
    if not isinstance(value, kind):
        raise ShardError(f"{what}: expected a JSON {kind.__name__}; got {type(value).__name__}. Write the shard again.")
    return value
