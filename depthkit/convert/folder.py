"""A folder of images and what there is of depth: plain, or as common tools leave it (``depthkit.convert.layouts``).

A plain one holds images, or ``rgb/`` (or color, images), and ``depth/``, ``disparity/``, ``right/`` and the files below. Files
belong together by their stem, but for words such as rgb and depth: ``rgb_0001`` and ``0001.depth`` do. Depth and disparity are
16-bit PNGs in which 0 means "no value", or floating-point .npy, .npz, .tiff, .exr or .pfm in metres. ``intrinsics.json``
holds ``fx fy cx cy width height`` (or ``K``, or a ``P_rect``), for all frames or by stem under ``per_frame``, and for stereo
``baseline_m`` and ``doffs`` (the disparity [px] that points at infinity have less than 0), and ``depth_scale`` (metres per
integer, or if greater than 1 integers per metre); other keys, and lenses that distort, are refused. ``poses.txt`` holds one
line per image in order, camera to world, 3 x 4 row by row, metres, x right, y down, z forward. Images are in the order of the
numbers in their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.layouts.depth_files import Coding, read_depth
from depthkit.convert.layouts.detection import recognise
from depthkit.convert.layouts.layout import DEPTH_FOLDERS, Layout, images_in, labels_in
from depthkit.convert.layouts.plain import CAMERA_FILES, check_numbers, pinhole, plain
from depthkit.convert.layouts.resize import Resize
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in
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
    read_picture,
    wrong_layout,
)
from depthkit.errors import GeometryError, LabelError
from depthkit.shards import Reject
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation, Views

DEPTH_SCALE = 0.001
"""Metres per integer of a depth PNG."""
DISPARITY_SCALE = 1 / 256
"""Pixels per integer of a disparity PNG."""


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
    depth_folder: str | None = None,
    depth_scale: float | None = None,
    depth_coding: Coding | str = Coding.AUTO,
    ray: bool = False,
    shrink: bool | None = None,
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
        depth_folder: name of the folder of depth. Default: depth, or a common tool's.
        depth_scale: metres per number in depth files. Default: what the files say; 1/1000, floats 1.
        depth_coding: of 8-bit PNGs: carla (24 bits), float32 (4 bytes); auto refuses them.
        ray: whether depth is the distance from the camera, not along its axis.
        shrink: whether larger images are shrunk to their depth. Default: if the layout has it so.
        ambiguity: metric, scale or shift_scale, if the files imply another.
        intrinsics: fx, fy, cx, cy [px] of all images, instead of what intrinsics.json says.
        views: single, or video (frames before and after), stereo (right image), video_stereo.
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
    there = recognise(root) or plain(root, depth_folder)
    coding = check_choice("depth_coding", depth_coding, Coding)
    coding = there.coding if coding == Coding.AUTO else coding
    images, stems = there.images, list(there.images)[first:stop]
    if not images:
        raise wrong_layout("images, or rgb/ with images,", root)
    found_label, files = _labels(root, wanted, there, stems)
    if stems and wanted == Label.AUTO and found_label == Label.NONE:
        _check_nothing_to_pair(root, depth_folder)
    cameras = _given(there.cameras, list(images), intrinsics)
    for facts in cameras.values():
        check_numbers(facts, f"the camera of {there.name} in {root}" if there.name else str(root / "intrinsics.json"))
    resize = Resize.of(root, there.shrink if shrink is None else shrink, images, files, coding)
    cameras = {stem: resize.camera(camera, str(root)) for stem, camera in cameras.items()}
    stereo, partners = views in (Views.STEREO, Views.VIDEO_STEREO), images_in(root, "right")
    paired = [stem for stem in stems if (stem in files or found_label == Label.NONE) and (stem in partners or not stereo)]
    if not paired:
        asked = f"a {found_label} label and views {views}" if found_label != Label.NONE else f"views {views}"
        raise LabelError(f"expected images of {root} with {asked}; got none. Check names, or ask for less.")
    asked_for = None if ambiguity is None else check_choice("ambiguity", ambiguity, Ambiguity)
    kind = _kind(found_label, asked_for, there.ambiguity, cameras, paired)
    found = {}
    for stem in stems:
        key, facts = key_of(root.resolve().name, stem), cameras[stem]
        frame = Record(key, images[stem], files.get(stem), world_from_camera=there.poses.get(stem))
        frame = _scaled(_calibrated(frame, facts, root, there), kind, facts, _depth_scale(depth_scale, facts, there))
        found[stem] = _with_partner(frame, partners[stem]) if stereo and stem in partners else frame
    picture = partial(_read_resized, size=resize.size) if resize.size else read_picture
    lacking = "it has no label" if not stereo else "it has no label or no right image"
    rejects = [Reject(found[stem].key, lacking) for stem in stems if stem not in set(paired)]
    here = paired[part(len(paired), split, holdout)]
    taken = every_nth(here, every)
    chosen = tuple(found[stem] for stem in taken)
    if here and gaps:
        times = dict(zip(stems, timeline(stems), strict=True))
        clip = {times[stem]: found[stem] for stem in stems[stems.index(here[0]) : stems.index(here[-1]) + 1]}
        chosen, alone = with_neighbours(
            [Target(found[s], clip, times[s]) for s in taken], gaps, Records(root, (), picture=picture).image
        )
        rejects += alone
    stated = depth_scale is not None or there.floats or "depth_scale" in cameras[paired[0]]
    whole = 1 / DISPARITY_SCALE if found_label == Label.DISPARITY else 1.0 if stated else 1 / (there.unit or DEPTH_SCALE)
    reader = partial(read_depth, coding=coding, whole=whole, ray=ray)
    return Records(root, chosen, kind, tuple(rejects), reader, picture, _notes(root, there, found_label))


def _read_resized(root: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """Read an image at the size of its depth, each pixel the mean of those it covers."""
    return cv2.resize(read_picture(root, name), size[::-1], interpolation=cv2.INTER_AREA)


def _labels(root: Path, label: Label, there: Layout, stems: list[str]) -> tuple[Label, Mapping[str, str]]:
    """Choose which label is read, and list its files by stem."""
    disparity = labels_in(root, "disparity", there.images)
    found: dict[Label, Mapping[str, str]] = {Label.DEPTH: there.labels, Label.DISPARITY: disparity, Label.NONE: {}}
    if label != Label.AUTO:
        return label, found[label]
    counts = {kind: len(files.keys() & set(stems)) for kind, files in found.items()}
    best = max(counts, key=lambda kind: counts[kind])  # the first of equals
    return (best, found[best]) if counts[best] else (Label.NONE, {})


def _check_nothing_to_pair(root: Path, depth_folder: str | None) -> None:
    """Refuse folders of labels none of which belongs to an image: their images would be stored without labels."""
    known = {*DEPTH_FOLDERS, "disparity", *([depth_folder] if depth_folder else [])}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name.lower() in known):
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        if files:
            raise LabelError(
                f"expected depth with the stems of the images (16-bit PNG, .npy, .npz, .tiff, .exr, .pfm); got {len(files)} "
                f"files in {folder} that belong to no image, such as {files[0].name}. Rename or convert them, or give label "
                "none to leave them out."
            )


def _notes(root: Path, there: Layout, label: Label) -> tuple[str, ...]:
    """Say which layout was found, and what of the folder was not read."""
    named = [f"read as {there.name}"] if there.name else []
    if there.name:
        return (*named, *there.notes)
    used = {Path(file).parts[0] for file in (*there.images.values(), *there.labels.values())}
    known = {"intrinsics.json", "poses.txt", "disparity", "right", "README.md", *CAMERA_FILES}
    left = [name for name in names_in(root) if name not in used | known and not name.startswith(".")]
    shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    return (*there.notes, f"not read: {shown}") if left and label != Label.NONE else tuple(there.notes)


def _depth_scale(given: float | None, facts: Mapping[str, Any], there: Layout) -> float:
    """Return metres per integer of a depth PNG: the given value, else what intrinsics.json or the layout says."""
    if given is not None:
        return given
    if facts.get("depth_scale") is None:
        if there.unit is None and there.labels:
            raise LabelError(
                f"expected the unit of depth, which {there.name} does not record; got none. Give --depth_scale: 0.001 for a "
                "RealSense D400, 0.00025 for an L515, 0.000125 for an SR300, 0.0001 for a D405."
            )
        return there.unit or DEPTH_SCALE
    scale = float(facts["depth_scale"])
    if not np.isfinite(scale) or scale <= 0:
        raise GeometryError(f"expected depth_scale in intrinsics.json to be greater than 0; got {scale}. Correct it.")
    return scale if scale <= 1 else 1 / scale


def _given(
    cameras: Mapping[str, Mapping[str, Any]], stems: list[str], intrinsics: Sequence[float] | None
) -> dict[str, Mapping[str, Any]]:
    """Put given intrinsics in place of those of the files, which are of the images as they are."""
    given: dict[str, Any] = {}
    if intrinsics is not None:  # of the images as they are, whatever size the file speaks of
        camera_matrix(intrinsics, "intrinsics")
        given = {**dict(zip(("fx", "fy", "cx", "cy"), intrinsics, strict=True)), "width": None, "height": None}
    return {stem: {**cameras.get(stem, {}), **given} for stem in stems}


def _kind(
    label: Label, ambiguity: Ambiguity | None, usual: Ambiguity, cameras: Mapping[str, Mapping[str, Any]], stems: list[str]
) -> LabelKind:
    if label == Label.NONE:
        return UNLABELLED
    if label == Label.DEPTH:
        return LabelKind(ambiguity or usual, Representation.DEPTH)
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


def _calibrated(frame: Record, camera: Mapping[str, Any], root: Path, there: Layout) -> Record:
    """Give the record its camera's facts: intrinsics, the size they are for, the baseline."""
    where = f"the camera of {there.name} in {root}" if there.name else str(root / "intrinsics.json")
    numbers = pinhole(camera, where)
    if numbers is None:
        return frame
    try:
        size = (int(camera["height"]), int(camera["width"])) if camera.get("height") and camera.get("width") else None
        baseline = float(camera["baseline_m"]) if "baseline_m" in camera else None
    except (TypeError, ValueError, OverflowError) as error:
        raise GeometryError(f"expected numbers width, height, baseline_m in {where}; got {error!r}. Correct it.") from error
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
        layout="images, or rgb/ with depth/, disparity/, right/, intrinsics.json, poses.txt; or what common tools leave",
        kind=None,
        unit="integers: depth in millimetres, disparity in 1/256 px, unless the files say otherwise; floats: metres, pixels",
        invalid="0, 65535, NaN, infinity",
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
