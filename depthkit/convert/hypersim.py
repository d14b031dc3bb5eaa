"""Hypersim (Roberts et al. 2021): 461 rendered rooms.

Under the root lie, as the archives of the scenes unpack,

- ``ai_VVV_NNN/images/scene_cam_CC_final_hdf5/frame.FFFF.color.hdf5``, radiance without an upper bound,
- ``ai_VVV_NNN/images/scene_cam_CC_geometry_hdf5/frame.FFFF.depth_meters.hdf5`` and ``.render_entity_id.hdf5``,

and ``metadata_images_split_scene_v1.csv`` of the authors' repository, which says what is published and divides the scenes.
"""

import csv
import io
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes, read_h5
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, key_of, wrong_layout
from depthkit.errors import DepthKitError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

SIZE = (768, 1024)
FOCAL = 886.81
"""Focal length [px], of a view 60 degrees wide."""
SPLIT_FILE = "metadata_images_split_scene_v1.csv"
BRIGHT, BRIGHTEST, GAMMA = 90.0, 0.8, 2.2
"""The brightness below which 90 % of the pixels lie becomes 0.8, after a gamma of 2.2."""


def hypersim(root: str | Path, split: str, *, split_file: str | Path | None = None) -> Records:
    """Read the published images of a split, in the order of the authors' list.

    Radiance becomes a picture as the authors' tools do it (``tone_map``), the distance of each point from the camera becomes
    its depth along the axis (``planar_depth``). The published cameras of some scenes are tilted or shifted; their images are
    read with the common camera, as everybody does who trains with the focal length above.

    Args:
        root: folder of the scenes.
        split: ``train``, ``val`` or ``test``.
        split_file: the authors' list, if it is not in the root.

    Raises:
        DepthKitError: the folder is not laid out like this, or h5py is not installed.
    """
    root = Path(root)
    own = [SPLIT_FILE] if split_file is None else []
    check_folder(root, f"Hypersim's scenes, such as ai_001_001, and {SPLIT_FILE}", *own)
    rows = _listed(root / SPLIT_FILE if split_file is None else Path(split_file), split)
    if not any((root / scene).is_dir() for scene, *_ in rows):
        raise wrong_layout(f"{rows[0][0] if rows else 'ai_001_001'} and other scenes", root)
    found: list[Record] = []
    rejects: list[Reject] = []
    there: dict[str, set[str]] = {}
    camera = camera_matrix((FOCAL, FOCAL, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2), "Hypersim")
    for scene, name, number in rows:
        colour, geometry = (f"{scene}/images/scene_{name}_{what}_hdf5" for what in ("final", "geometry"))
        files = [f"{colour}/frame.{number}.color.hdf5"]
        files += [f"{geometry}/frame.{number}.{what}.hdf5" for what in ("depth_meters", "render_entity_id")]
        for place in (colour, geometry):
            if place not in there:
                there[place] = {f"{place}/{file}" for file in names_in(root / place)}
        missing = [file for file in files if file not in there[colour] | there[geometry]]
        key = key_of(scene, name, number)
        if missing:
            rejects.append(Reject(key, f"there is no {missing[0]}"))
        else:
            parts = {"entities": files[2]}
            found.append(Record(key, files[0], files[1], parts=parts, intrinsics=camera, size=SIZE))
    return Records(root, tuple(found), _KIND, tuple(rejects), _read_depth, _picture)


def tone_map(radiance: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Turn unbounded radiance into a picture: exposed by its bright pixels, gamma, clipped.

    Args:
        radiance: float, ``(H, W, 3)``.
        valid: bool, ``(H, W)``, where something was rendered; elsewhere there is a background that must not count, nor does
            what is not finite.

    Returns:
        uint8, ``(H, W, 3)``.
    """
    brightness = radiance @ np.array([0.3, 0.59, 0.11], radiance.dtype)
    seen = brightness[valid & np.isfinite(brightness)]
    bright = float(np.percentile(seen, BRIGHT)) if seen.size else 1.0
    exposure = BRIGHTEST**GAMMA / bright if bright > 1e-4 else 0.0  # a black picture stays black
    picture = cv2.pow(np.clip(exposure * radiance, 0, 1), 1 / GAMMA)
    return np.rint(255 * picture, out=picture).astype(np.uint8)


def planar_depth(distance: np.ndarray, focal: float) -> np.ndarray:
    """Return depth along the optical axis of points at a distance from the camera, whose axis meets the image's middle.

    Args:
        distance: [m], ``(H, W)``.
        focal: [px].

    >>> planar_depth(np.full((1, 3), 5.0), focal=1.0).round(3).tolist()
    [[3.536, 5.0, 3.536]]
    """
    return distance * _cosine(distance.shape, focal)


@lru_cache(maxsize=4)
def _cosine(size: tuple[int, int], focal: float) -> np.ndarray:
    """Return the cosine of the angle between each pixel's ray and the axis."""
    y, x = (np.arange(length) - (length - 1) / 2 for length in size)
    return (focal / np.sqrt(x[None] ** 2 + y[:, None] ** 2 + focal**2)).astype(np.float32)


def _listed(file: Path, split: str) -> list[tuple[str, str, str]]:
    """List scene, camera and number of the published images of a split."""
    rows = csv.DictReader(io.StringIO(read_bytes(file).decode("utf-8-sig", "replace")))
    wanted = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
    if not set(wanted) <= set(rows.fieldnames or ()):
        raise DepthKitError(
            f"expected columns {', '.join(wanted)} in {file}; found {', '.join(rows.fieldnames or ()) or 'none'}. "
            "Get it from the folder evermotion_dataset/analysis of the authors' repository."
        )
    return [
        (row["scene_name"], row["camera_name"], f"{int(row['frame_id']):04d}")
        for row in rows
        if row["included_in_public_release"].strip().lower() == "true" and row["split_partition_name"] == split
    ]


def _picture(root: Path, name: str) -> np.ndarray:
    radiance = read_h5(root / name, "dataset").astype(np.float32)
    entities = name.replace("_final_hdf5", "_geometry_hdf5").replace(".color.", ".render_entity_id.")
    return tone_map(radiance, read_h5(root / entities, "dataset") != -1)


def _read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    depth = planar_depth(read_h5(root / frame.label, "dataset").astype(np.float32), FOCAL)
    return Annotation(depth, np.isfinite(depth) & (depth > 0))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
DATASETS = (
    Dataset(
        name="hypersim",
        read=hypersim,
        layout=f"ai_VVV_NNN/images/scene_cam_CC_final_hdf5 and _geometry_hdf5; {SPLIT_FILE}",
        kind=_KIND,
        unit="distance from the camera in metres, made into depth along the axis with f = 886.81",
        invalid="NaN: nothing was rendered there",
        sky="seen through windows as nothing: invalid",
        camera="fx = fy = 886.81, the middle of 1024 x 768 pixels (511.5, 383.5 from pixel centres)",
        source="Roberts et al. 2021; Marigold trains on 53,885 of them, by a filter of its own",
        licence="CC BY-SA 3.0",
        published={"train": 59543, "val": 7386, "test": 7690},
        splits="the authors' by scene",
        test="tests/convert/test_hypersim.py",
    ),
)
