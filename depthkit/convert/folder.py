"""A plain folder: images, or ``rgb/`` and what there is of ``depth/``, ``disparity/``, ``right/`` and the files below.

Files belong together by their stem. Depth and disparity are 16-bit PNGs in which 0 means "no value". ``intrinsics.json``
holds ``fx fy cx cy width height`` (or ``K``, or a ``P_rect``), for all frames or by stem under ``per_frame``, and for stereo
``baseline_m`` and ``doffs`` (the disparity [px] that points at infinity have less than 0), and ``depth_scale`` (metres per
integer, or if greater than 1 integers per metre); other keys, and lenses that distort, are refused. ``poses.txt`` holds one
line per image in order, camera to world, 3 x 4 row by row, metres, x right, y down, z forward. Images are in the order of the
numbers in their names.
"""

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.neighbours import Spacing, Target, timeline, with_neighbours
from depthkit.convert.records.record import (
    UNLABELLED,
    Record,
    Records,
    camera_matrix,
    check_folder,
    every_nth,
    key_of,
    part,
    wrong_layout,
)
from depthkit.errors import GeometryError, LabelError
from depthkit.images import is_image_name
from depthkit.shards import Reject
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation, Views

DEPTH_SCALE = 0.001
"""Metres per integer of a depth PNG."""
DISPARITY_SCALE = 1 / 256
"""Pixels per integer of a disparity PNG."""
_FACTS = re.compile(
    "fx|fy|cx|cy|width|height|K|per_frame|baseline_m|baseline_units|doffs|depth_scale|metric|pose_scale|depth_unit|"
    "disparity_unit|camera|name|model|registered_here|P_rect.*|R_rect.*|Tr_.*"
)
_DISTORTION = re.compile("k[1-6]|p[12]|D|dist.*", re.IGNORECASE)


class Label(StrEnum):
    """Which label to read."""

    AUTO = "auto"
    """The one that more images have; depth if both have as many; none if there is none."""
    DEPTH = "depth"
    DISPARITY = "disparity"
    NONE = "none"


def folder(
    root: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.0,
    label: Label | str = Label.AUTO,
    depth_folder: str = "depth",
    depth_scale: float | None = None,
    ambiguity: Ambiguity | str | None = None,
    intrinsics: Sequence[float] | None = None,
    views: Views | str = Views.SINGLE,
    spacing: int = 1,
    max_spacing: int | None = None,
    min_motion: float = 0.0,
    every: int = 1,
    first: int = 0,
    stop: int | None = None,
) -> Records:
    """Read a folder of images with their depth or disparity.

    Depth is metric. Disparity is metric (1/m) if focal length and baseline are known for every frame, and otherwise in pixels,
    known up to scale and shift, which is true of every rectified pair.

    Args:
        root: the folder.
        split: None for all frames, ``train`` or ``test`` for those before or in the held-out end of the sequence.
        holdout: fraction of the frames, at the end, that are for testing.
        label: auto, depth, disparity or none; auto reads the one that more images have.
        depth_folder: name of the folder of depth PNGs.
        depth_scale: metres per integer of a depth PNG; by default what intrinsics.json says, or 1/1000.
        ambiguity: metric, scale or shift_scale, if the files imply another.
        intrinsics: fx, fy, cx, cy [px] of all images, instead of what intrinsics.json says.
        views: single; video adds the frames before and after, stereo the right image, video_stereo both.
        spacing: how many frames away neighbours are, by the numbers in their names.
        max_spacing: where less than min_motion moves, try neighbours up to this many frames away.
        min_motion: leave out images whose neighbours move less, as mean optical flow [px at width 416].
        every: use each n-th image only; those between may still be neighbours.
        first: position of the first image to use.
        stop: position after the last.

    Raises:
        DepthKitError: the folder is not laid out like this; the message names the file.
    """
    root, wanted, views = Path(root), check_choice("label", label, Label), check_choice("views", views, Views)
    gaps = Spacing.of(views, spacing, max_spacing, min_motion)
    check_folder(root, "images, or rgb/")
    images = _files(root, "rgb") if (root / "rgb").is_dir() else _files(root)
    if not images:
        raise wrong_layout("images, or rgb/ with images,", root)
    cameras = _cameras(root, list(images), intrinsics)
    poses = _poses(root, images, cameras[next(iter(images))])
    stems = list(images)[first:stop]
    found_label, files = _labels(root, wanted, depth_folder, stems)
    if wanted == Label.AUTO and found_label == Label.NONE:
        _check_nothing_to_pair(root, {depth_folder, "disparity"}, images.keys())
    stereo, partners = views in (Views.STEREO, Views.VIDEO_STEREO), _files(root, "right")
    paired = [stem for stem in stems if (stem in files or found_label == Label.NONE) and (stem in partners or not stereo)]
    if not paired:
        asked = f"a {found_label} label and views {views}" if found_label != Label.NONE else f"views {views}"
        raise LabelError(f"expected images of {root} with {asked}; got none. Check names, or ask for less.")
    kind = _kind(found_label, None if ambiguity is None else check_choice("ambiguity", ambiguity, Ambiguity), cameras, paired)
    found = {}
    for stem in stems:
        frame = Record(key_of(root.resolve().name, stem), images[stem], files.get(stem), world_from_camera=poses.get(stem))
        frame = _scaled(_calibrated(frame, cameras[stem], root), kind, cameras[stem], _depth_scale(depth_scale, cameras[stem]))
        found[stem] = _with_partner(frame, partners[stem]) if stereo and stem in partners else frame
    lacking = "it has no label" if not stereo else "it has no label or no right image"
    rejects = [Reject(found[stem].key, lacking) for stem in stems if stem not in set(paired)]
    here = paired[part(len(paired), split, holdout)]
    taken = every_nth(here, every)
    chosen = tuple(found[stem] for stem in taken)
    if here and gaps:
        times = dict(zip(stems, timeline(stems), strict=True))
        clip = {times[stem]: found[stem] for stem in stems[stems.index(here[0]) : stems.index(here[-1]) + 1]}
        chosen, alone = with_neighbours([Target(found[s], clip, times[s]) for s in taken], gaps, Records(root, ()).image)
        rejects += alone
    return Records(root, chosen, kind, tuple(rejects))


def _files(root: Path, name: str = "") -> dict[str, str]:
    """List the image files of a folder by stem, in the order of the numbers in their names, relative to the root."""
    folder = root / name
    if not folder.is_dir():
        return {}
    files = sorted((file for file in folder.iterdir() if is_image_name(file.name) and not file.is_dir()), key=_in_order)
    return {file.stem: f"{name}/{file.name}" if name else file.name for file in files}


def _in_order(file: Path) -> list[tuple[str, int]]:
    """Cut the name into words and numbers, so that f2 comes before f10."""
    words = re.split(r"(\d+)", file.stem, flags=re.ASCII)
    return [(text, int(number or 0)) for text, number in zip(words[::2], [*words[1::2], "0"], strict=True)]


def _labels(root: Path, label: Label, depth_folder: str, stems: list[str]) -> tuple[Label, dict[str, str]]:
    """Choose which label is read, and list its files by stem."""
    found = {Label.DEPTH: _files(root, depth_folder), Label.DISPARITY: _files(root, "disparity"), Label.NONE: {}}
    if label != Label.AUTO:
        return label, found[label]
    counts = {kind: len(files.keys() & set(stems)) for kind, files in found.items()}
    best = max(counts, key=lambda kind: counts[kind])  # the first of equals
    return (best, found[best]) if counts[best] else (Label.NONE, {})


def _check_nothing_to_pair(root: Path, names: Set[str], stems: Set[str]) -> None:
    """Refuse folders of labels none of which belongs to an image: their images would be stored without labels."""
    known = {name.lower() for name in names}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name.lower() in known):
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        paired = folder.name in names and not stems.isdisjoint(_files(root, folder.name))
        if files and not paired:
            raise LabelError(
                f"expected 16-bit PNGs with the stems of the images in a folder named {' or '.join(sorted(names))}; got "
                f"{len(files)} files in {folder} that belong to no image, such as {files[0].name}. Rename or convert them, "
                "or give label none to leave them out."
            )


def _check_facts(facts: Mapping[str, Any], file: Path) -> None:
    """Refuse distortion, and keys that would be ignored."""
    for key, value in facts.items():
        if _FACTS.fullmatch(key) and not (key == "model" and value not in ("PINHOLE", "SIMPLE_PINHOLE")):
            continue
        if not _DISTORTION.fullmatch(key):
            raise GeometryError(
                f"expected keys such as fx, K, baseline_m or depth_scale in {file}; got {key}: {value!r}. Remove it, or say it "
                "by one of these."
            )
        if np.any(np.asarray(value, np.float64)):
            raise GeometryError(
                f"expected a pinhole camera in {file}; got distortion {key}: {value}. Undistort the images first."
            )


def _depth_scale(given: float | None, facts: Mapping[str, Any]) -> float:
    """Return metres per integer of a depth PNG: the given value, else what intrinsics.json says."""
    if given is not None or facts.get("depth_scale") is None:
        return DEPTH_SCALE if given is None else given
    scale = float(facts["depth_scale"])
    if not np.isfinite(scale) or scale <= 0:
        raise GeometryError(f"expected depth_scale in intrinsics.json to be greater than 0; got {scale}. Correct it.")
    return scale if scale <= 1 else 1 / scale


def _cameras(root: Path, stems: list[str], intrinsics: Sequence[float] | None) -> dict[str, Mapping[str, Any]]:
    """Return what is known of each image's camera: the given intrinsics, else what intrinsics.json says."""
    given: dict[str, Any] = {}
    if intrinsics is not None:  # of the images as they are, whatever size the file speaks of
        camera_matrix(intrinsics, "intrinsics")
        given = {**dict(zip(("fx", "fy", "cx", "cy"), intrinsics, strict=True)), "width": None, "height": None}
    file = root / "intrinsics.json"
    try:
        facts = json.loads(file.read_bytes()) if file.exists() else {}
        per_frame = facts.get("per_frame", {})
        for group in (facts, *per_frame.values()):
            _check_facts(group, file)
        return {stem: {**facts, **per_frame.get(stem, {}), **given} for stem in stems}
    except GeometryError:
        raise
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise GeometryError(
            f"expected {file} to be JSON with fx, fy, cx, cy; it does not read ({error}). Correct it."
        ) from error


def _poses(root: Path, images: dict[str, str], facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read ``world_from_camera`` by stem; return none without poses.txt, or if its unit is said not to be the metre."""
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


def _kind(label: Label, ambiguity: Ambiguity | None, cameras: Mapping[str, Mapping[str, Any]], stems: list[str]) -> LabelKind:
    if label == Label.NONE:
        return UNLABELLED
    if label == Label.DEPTH:
        return LabelKind(ambiguity or Ambiguity.METRIC, Representation.DEPTH)
    metric = all({"fx", "baseline_m"} <= cameras[stem].keys() and cameras[stem].get("metric", True) for stem in stems)
    return LabelKind(ambiguity or (Ambiguity.METRIC if metric else Ambiguity.SHIFT_SCALE), Representation.DISPARITY)


def _units(kind: LabelKind, camera: Mapping[str, Any]) -> tuple[float, float]:
    """Return scale and shift from a disparity PNG's integers to 1/m if metric, to pixels if not."""
    if kind.ambiguity != Ambiguity.METRIC:
        return DISPARITY_SCALE, 0.0
    if not {"fx", "baseline_m"} <= camera.keys():
        raise GeometryError(
            "expected fx and baseline_m in intrinsics.json to make a metric disparity of pixels; one is missing. "
            "Add it, or leave out ambiguity."
        )
    pixels = float(camera["fx"]) * float(camera["baseline_m"])
    return DISPARITY_SCALE / pixels, float(camera.get("doffs", 0.0)) / pixels


def _scaled(frame: Record, kind: LabelKind, camera: Mapping[str, Any], depth_scale: float) -> Record:
    """Give the record the unit of its label's integers."""
    if not frame.label:
        return frame
    scale, shift = _units(kind, camera) if kind.representation == Representation.DISPARITY else (depth_scale, 0.0)
    return replace(frame, scale=scale, shift=shift)


def _calibrated(frame: Record, camera: Mapping[str, Any], root: Path) -> Record:
    """Give the record its camera's facts: intrinsics, the size they are for, the baseline."""
    where = str(root / "intrinsics.json")
    rectified = [value for name, value in sorted(camera.items()) if name.startswith("P_rect")]
    try:
        if "fx" in camera:
            numbers = [float(camera[name]) for name in ("fx", "fy", "cx", "cy")]
        elif "K" in camera or rectified:
            matrix = np.array(camera.get("K", rectified[0] if rectified else None), np.float64)[:3, :3].reshape(3, 3)
            if "K" in camera and not np.allclose(matrix[2], (0, 0, 1)):
                raise GeometryError(
                    f"expected the last row of K in {where} to be 0, 0, 1; got {matrix[2].tolist()}. Transpose it."
                )
            numbers = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
        else:
            return frame
        size = (int(camera["height"]), int(camera["width"])) if camera.get("height") and camera.get("width") else None
        baseline = float(camera["baseline_m"]) if "baseline_m" in camera else None
    except GeometryError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise GeometryError(f"expected numbers fx, fy, cx, cy in {where}; got {error!r}. Correct it.") from error
    return replace(frame, intrinsics=camera_matrix(numbers, where), size=size, stereo_baseline=baseline)


def _with_partner(frame: Record, partner: str) -> Record:
    """Give the record the right image of its pair, whose camera sits one baseline to the right."""
    poses = {}
    if frame.stereo_baseline is not None:
        poses["stereo"] = np.eye(4)
        poses["stereo"][0, 3] = -frame.stereo_baseline
    return replace(frame, views={"stereo": partner}, views_from_camera=poses)


DATASETS = (
    Dataset(
        name="folder",
        read=folder,
        layout="images, or rgb/ with depth/, disparity/, right/, intrinsics.json, poses.txt",
        kind=None,
        unit="depth in millimetres, disparity in 1/256 px, unless intrinsics.json says otherwise",
        invalid="0 and 65535",
        sky="not marked",
        camera="intrinsics.json, pixel centres at integers",
        source="depthkit",
        licence="",
        splits="the end of the sequence is held out",
        test="tests/convert/test_folder.py",
        real=True,
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
