"""A plain folder: ``rgb/``, and where there are any ``depth/``, ``disparity/``, ``right/``, ``intrinsics.json``, ``poses.txt``.

Files belong together by their stem. Depth and disparity are 16-bit PNGs in which 0 means "no value". ``intrinsics.json``
holds ``fx fy cx cy width height`` (or ``K``, or a ``P_rect``), for all frames or by stem under ``per_frame``, and for stereo
``baseline_m`` and ``doffs`` (the disparity [px] that points at infinity have less than 0). ``poses.txt`` holds one line
per image in order, camera to world, 3 x 4 row by row, metres, x right, y down, z forward.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.data.convert.frames import UNLABELLED, Frame, Frames, key_of, part, with_neighbours
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.types import Ambiguity, LabelKind, Representation, Sample, Views

DEPTH_SCALE = 0.001
"""Metres per integer of a depth PNG."""
DISPARITY_SCALE = 1 / 256
"""Pixels per integer of a disparity PNG."""
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class Label(StrEnum):
    """Which label to read."""

    AUTO = "auto"
    """The one that more images have; depth if both have as many; none if there is none."""
    DEPTH = "depth"
    DISPARITY = "disparity"
    NONE = "none"


def samples(root: str | Path, split: str | None = None, **options: Any) -> Iterator[Sample]:
    """The samples of such a folder one by one; arguments and errors are those of ``frames``."""
    return iter(frames(root, split, **options))


def frames(
    root: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.2,
    label: Label | str = Label.AUTO,
    depth_folder: str = "depth",
    depth_scale: float = DEPTH_SCALE,
    ambiguity: Ambiguity | str | None = None,
    views: Views | str = Views.SINGLE,
    first: int = 0,
    stop: int | None = None,
) -> Frames:
    """The samples of such a folder as a sequence.

    Depth is metric. Disparity is metric (1/m) if focal length and baseline are known for every frame, and otherwise in pixels,
    known up to scale and shift, which is true of every rectified pair.

    Args:
        root: the folder.
        split: None for all frames, ``train`` or ``test`` for those before or in the held-out end of the sequence.
        holdout: fraction of the frames, at the end, that are for testing.
        label: which label to read.
        depth_folder: name of the folder of depth PNGs.
        depth_scale: metres per integer of a depth PNG.
        ambiguity: what labels leave undetermined, if it is not as said above.
        views: further views to read: the frames before and after (with poses, if there are any), the right image of a pair.
        first: position of the first image to use.
        stop: position after the last.

    Raises:
        DepthKitError: the folder is not laid out like this; the message names the file.
    """
    root, wanted, views = Path(root), _member(Label, label, "label"), _member(Views, views, "views")
    images = _files(root / "rgb")
    if not images:
        raise DepthKitError(f"expected images in {root / 'rgb'}; got none. Give the folder that holds rgb/.")
    cameras = _cameras(root, list(images))
    poses = _poses(root, images, cameras[next(iter(images))])
    stems = list(images)[first:stop]
    found_label, files = _labels(root, wanted, depth_folder, stems)
    stereo, partners = views in (Views.STEREO, Views.VIDEO_STEREO), _files(root / "right")
    paired = [stem for stem in stems if (stem in files or found_label == Label.NONE) and (stem in partners or not stereo)]
    if not paired:
        asked = f"a {found_label} label and views {views}" if found_label != Label.NONE else f"views {views}"
        raise LabelError(f"expected images of {root / 'rgb'} with {asked}; got none. Check names, or ask for less.")
    known = [cameras[stem] for stem in paired]
    kind = _kind(found_label, None if ambiguity is None else _member(Ambiguity, ambiguity, "ambiguity"), known)
    found = []
    for stem, camera in zip(paired, known, strict=True):
        frame = Frame(key_of(root.resolve().name, stem), images[stem], files.get(stem), world_from_camera=poses.get(stem))
        frame = _calibrated(frame, camera, root)
        if frame.label:
            scale, shift = _units(kind, camera) if kind.representation == Representation.DISPARITY else (depth_scale, 0.0)
            frame = replace(frame, scale=scale, shift=shift)
        found.append(_with_partner(frame, partners[stem]) if stereo else frame)
    chosen: tuple[Frame, ...] = tuple(found[part(len(found), split, holdout)])
    if views in (Views.VIDEO, Views.VIDEO_STEREO):
        chosen = with_neighbours(chosen)
    return Frames(root, chosen, kind, tuple(stem for stem in stems if stem not in set(paired)))


def _member(kind: Any, value: str, name: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise LabelError(f"expected {name} among {', '.join(kind)}; got '{value}'. Choose one of them.") from error


def _files(folder: Path) -> dict[str, str]:
    """Image files by stem, in order of their names, relative to the folder's parent."""
    if not folder.is_dir():
        return {}
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _IMAGES)
    return {file.stem: f"{folder.name}/{file.name}" for file in files}


def _labels(root: Path, label: Label, depth_folder: str, stems: list[str]) -> tuple[Label, dict[str, str]]:
    """Which label is read, and its files by stem."""
    found = {Label.DEPTH: _files(root / depth_folder), Label.DISPARITY: _files(root / "disparity"), Label.NONE: {}}
    if label != Label.AUTO:
        return label, found[label]
    counts = {kind: len(files.keys() & set(stems)) for kind, files in found.items()}
    best = max(counts, key=lambda kind: counts[kind])  # the first of equals
    return (best, found[best]) if counts[best] else (Label.NONE, {})


def _cameras(root: Path, stems: list[str]) -> dict[str, Mapping[str, Any]]:
    """What intrinsics.json says of each image; nothing if there is no such file."""
    file = root / "intrinsics.json"
    try:
        facts = json.loads(file.read_bytes()) if file.exists() else {}
        per_frame = facts.get("per_frame", {})
        return {stem: {**facts, **per_frame.get(stem, {})} for stem in stems}
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise GeometryError(
            f"expected {file} to be JSON with fx, fy, cx, cy; it does not read ({error}). Correct it."
        ) from error


def _poses(root: Path, images: dict[str, str], facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """``world_from_camera`` by stem; empty without poses.txt, or if its unit is said not to be the metre."""
    file = root / "poses.txt"
    if not file.exists() or "pose_scale" in facts:
        return {}
    try:
        rows = np.loadtxt(file, ndmin=2)
    except ValueError as error:
        raise GeometryError(f"expected 12 numbers per line in {file}; it does not read ({error}). Correct it.") from error
    if rows.shape != (len(images), 12) or not np.isfinite(rows).all():
        raise GeometryError(
            f"expected a line of 12 finite numbers in {file} for each of the {len(images)} images; "
            f"got {rows.shape}. Correct it."
        )
    bottom = np.array([[0.0, 0, 0, 1]])
    return {stem: np.vstack([row.reshape(3, 4), bottom]) for stem, row in zip(images, rows, strict=True)}


def _kind(label: Label, ambiguity: Ambiguity | None, cameras: list[Mapping[str, Any]]) -> LabelKind:
    if label == Label.NONE:
        return UNLABELLED
    if label == Label.DEPTH:
        return LabelKind(ambiguity or Ambiguity.METRIC, Representation.DEPTH)
    metric = all({"fx", "baseline_m"} <= camera.keys() and camera.get("metric", True) for camera in cameras)
    return LabelKind(ambiguity or (Ambiguity.METRIC if metric else Ambiguity.SHIFT_SCALE), Representation.DISPARITY)


def _units(kind: LabelKind, camera: Mapping[str, Any]) -> tuple[float, float]:
    """Scale and shift from a disparity PNG's integers to 1/m if metric, to pixels if not."""
    if kind.ambiguity != Ambiguity.METRIC:
        return DISPARITY_SCALE, 0.0
    if not {"fx", "baseline_m"} <= camera.keys():
        raise GeometryError(
            "expected fx and baseline_m in intrinsics.json to make a metric disparity of pixels; one is missing. "
            "Add it, or leave out ambiguity."
        )
    pixels = float(camera["fx"]) * float(camera["baseline_m"])
    return DISPARITY_SCALE / pixels, float(camera.get("doffs", 0.0)) / pixels


def _calibrated(frame: Frame, camera: Mapping[str, Any], root: Path) -> Frame:
    """The frame with what its camera's facts give: intrinsics, the size they are for, the baseline."""
    rectified = [value for name, value in sorted(camera.items()) if name.startswith("P_rect")]
    try:
        if "fx" in camera:
            fx, fy, cx, cy = (float(camera[name]) for name in ("fx", "fy", "cx", "cy"))
            matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        elif "K" in camera or rectified:
            matrix = np.array(camera.get("K", rectified[0] if rectified else None), np.float64)[:3, :3].reshape(3, 3)
        else:
            return frame
        size = (int(camera["height"]), int(camera["width"])) if {"height", "width"} <= camera.keys() else None
        baseline = float(camera["baseline_m"]) if "baseline_m" in camera else None
    except (KeyError, TypeError, ValueError) as error:
        raise GeometryError(
            f"expected numbers fx, fy, cx, cy in {root / 'intrinsics.json'}; got {error!r}. Correct it."
        ) from error
    return replace(frame, intrinsics=matrix, size=size, stereo_baseline=baseline)


def _with_partner(frame: Frame, partner: str) -> Frame:
    """The frame with the right image of its pair, whose camera sits one baseline to the right."""
    poses = {}
    if frame.stereo_baseline is not None:
        poses["stereo"] = np.eye(4)
        poses["stereo"][0, 3] = -frame.stereo_baseline
    return replace(frame, views={"stereo": partner}, views_from_camera=poses)
