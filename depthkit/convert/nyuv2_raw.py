"""NYU Depth V2's videos (Silberman et al. 2012), as recorded and as synchronised by Lee et al. 2019 (BTS).

Recorded: below the root, a folder per scene with ``r-TIME-COUNT.ppm`` (colour), ``d-TIME-COUNT.pgm`` (the Kinect's codes) and
``a-TIME-COUNT.dump`` (acceleration, not read), with TIME in seconds. A picture belongs to the depth nearest in time. As in the
authors' toolbox both cameras' distortion is taken out, and the depth is seen from the colour camera.

Synchronised: ``SCENE/rgb_NNNNN.jpg`` and ``SCENE/sync_depth_NNNNN.png`` in millimetres, by a list with a line
``picture depth focal_length`` for each sample.
"""

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthkit.convert.kitti_raw import nearest_in_pixel
from depthkit.convert.nyuv2 import CAMERA, SIZE, room, tested_rooms
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes, read_pnm
from depthkit.convert.records.record import (
    Annotation,
    Record,
    Records,
    camera_matrix,
    check_folder,
    every_nth,
    held_out,
    key_of,
    wrong_layout,
)
from depthkit.convert.tum import associate
from depthkit.errors import DepthKitError, LabelError
from depthkit.shards import DepthFormat, Reject
from depthkit.types import Ambiguity, LabelKind, Representation

MILLIMETRE = 0.001
FARTHEST = 10.0
"""What the Kinect measures at most [m]."""
CODES = (351.3, 1092.5)
"""Depth is 351.3 / (1092.5 - code) [m]."""
DEPTH_CAMERA = (582.62448167737955, 582.69103270988637, 313.04475870804731, 238.44389626620386)
_COLOUR_DISTORTION = np.array([2.0796615318809061e-01, -5.8613825163911781e-01, 7.2231363135888329e-04])
_COLOUR_DISTORTION = np.append(_COLOUR_DISTORTION, [1.0479627195765181e-03, 4.9856986684705107e-01])
_DEPTH_DISTORTION = np.array([-9.9897236553084481e-02, 3.9065324602765344e-01, 1.9290592870229277e-03])
_DEPTH_DISTORTION = np.append(_DEPTH_DISTORTION, [-1.9422022475975055e-03, -5.1031725053400578e-01])
_TURN = np.linalg.inv(
    np.array(
        [
            [9.9997798940829263e-01, 5.0518419386157446e-03, 4.3011152014118693e-03],
            [-5.0359919480810989e-03, 9.9998051861143999e-01, -3.6879781309514218e-03],
            [-4.3196624923060242e-03, 3.6662365748484798e-03, 9.9998394948385538e-01],
        ]
    )
)
_SHIFT = -np.array([2.5031875059141302e-02, -2.9342312935846411e-04, 6.6238747008330102e-04])
_NO_CODE = 2047  # the Kinect's word for "nothing"
_LEAST_CODE = 600  # below, codes come from noise


def nyuv2_raw(
    root: str | Path, split: str, *, labelled: str | Path, holdout: float = 0.05, every: int = 1, tolerance: float = 0.05
) -> Records:
    """Read the pictures of recorded scenes, by scene and time, with the depth nearest in time.

    Args:
        root: folder of the scenes.
        split: ``train`` or ``val``.
        labelled: folder of the labelled files, see ``nyuv2``: the rooms of its test are left out here, for the recordings hold
            them, too. ``all`` keeps every room; then no test on NYU Depth V2 is one of unseen rooms.
        holdout: share of the scenes that are for validation; see ``held_out``.
        every: use each n-th picture of a scene only.
        tolerance: largest difference of time [s] between a picture and its depth.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, "NYU Depth V2's scenes, such as basement_0001a,")
    found: list[Record] = []
    rejects: list[Reject] = []
    scenes = [scene for scene in names_in(root) if (root / scene).is_dir()]
    recorded = {scene: _recorded(names_in(root / scene)) for scene in scenes}
    if not any(pictures for pictures, _ in recorded.values()):
        raise wrong_layout("SCENE/r-TIME-COUNT.ppm and d-TIME-COUNT.pgm", root)
    tested: frozenset[str] = frozenset() if str(labelled) == "all" else tested_rooms(labelled)
    scenes = [scene for scene in scenes if room(scene) not in tested]
    for scene in (scene for scene in scenes if held_out(scene, holdout) == (split == "val")):
        pictures, depths = recorded[scene]
        depth_of = dict(associate([time for time, _ in pictures], [time for time, _ in depths], tolerance))
        for i in every_nth(range(len(pictures)), every):
            key = key_of(scene, Path(pictures[i][1]).stem)
            if i in depth_of:
                label = f"{scene}/{depths[depth_of[i]][1]}"
                found.append(Record(key, f"{scene}/{pictures[i][1]}", label, intrinsics=_COLOUR, size=SIZE))
            else:
                rejects.append(Reject(key, f"there is no depth within {tolerance:g} s"))
    return Records(root, tuple(found), _KIND, tuple(rejects), _read_codes, _picture)


def nyuv2_sync(root: str | Path, *, split_file: str | Path) -> Records:
    """Read the samples that a list of the synchronised version names.

    Args:
        root: folder of the scenes (``sync``, or ``official_splits/test``).
        split_file: lines ``picture depth focal_length``, such as nyudepthv2_train_files_with_gt.txt.

    Raises:
        DepthKitError: the list does not read, or nothing of it is there.
    """
    root, file = Path(root), Path(split_file)
    check_folder(root, "the scenes of NYU Depth V2, synchronised,")
    lines = [line.split() for line in read_bytes(file).decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines or any(len(line) != 3 for line in lines):
        raise DepthKitError(f"expected lines 'picture depth focal_length' in {file}; got others, or none. Give another list.")
    found: list[Record] = []
    rejects: list[Reject] = []
    there: dict[str, set[str]] = {}
    for picture, depth, _ in ((a.lstrip("/"), b.lstrip("/"), c) for a, b, c in lines):
        key = key_of(*Path(picture).with_suffix("").parts)
        for folder in {str(Path(name).parent) for name in (picture, depth)} - there.keys():
            there[folder] = set(names_in(root / folder))
        missing = [name for name in (picture, depth) if Path(name).name not in there[str(Path(name).parent)]]
        if missing:
            rejects.append(Reject(key, f"there is no {missing[0]}"))
        else:
            found.append(Record(key, picture, depth, scale=MILLIMETRE, intrinsics=_COLOUR, size=SIZE))
    if not found:
        raise wrong_layout(lines[0][0].lstrip("/"), root)
    return Records(root, tuple(found), _KIND, tuple(rejects))


def project(codes: np.ndarray) -> np.ndarray:
    """Turn the Kinect's codes into depth seen from the colour camera, with both cameras' distortion taken out.

    The authors' toolbox interpolates codes when it takes out the distortion, which puts points into the air at edges; here each
    pixel takes the nearest code.

    Args:
        codes: 0 to 2047, uint16 ``(480, 640)``.

    Returns:
        [m], float32 of that size; 0 where nothing was measured.
    """
    straight = cv2.remap(codes, *_straightening(of_depth=True), cv2.INTER_NEAREST, borderValue=_NO_CODE)
    depth = _depth_of_codes()[np.minimum(straight, _NO_CODE)].ravel()
    measured = np.flatnonzero(depth)
    shift = (_COLOUR @ _SHIFT).astype(np.float32)
    x, y, z = (ray[measured] * depth[measured] + by for ray, by in zip(_rays(), shift, strict=True))
    return nearest_in_pixel(np.rint(y / z), np.rint(x / z), z, SIZE)


@cache
def _depth_of_codes() -> np.ndarray:
    """Return depth [m] by code, 0 for codes that mean nothing, float32 ``(2048,)``."""
    codes = np.arange(_NO_CODE + 1)
    measured = (codes >= _LEAST_CODE) & (codes < CODES[1] - CODES[0] / FARTHEST)
    return np.where(measured, CODES[0] / (CODES[1] - codes), 0).astype(np.float32)


@cache
def _rays() -> np.ndarray:
    """Return where a point 1 m before each pixel is in the colour picture without ``_SHIFT``, float32 ``(3, N)``."""
    row, column = np.indices(SIZE).reshape(2, -1)
    pixels = np.stack([column, row, np.ones_like(row)])
    return (_COLOUR @ _TURN @ np.linalg.inv(_DEPTH) @ pixels).astype(np.float32)


@cache
def _straightening(*, of_depth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Make the maps that take a camera's distortion out, of depth to the nearest pixel."""
    camera, distortion = (_DEPTH, _DEPTH_DISTORTION) if of_depth else (_COLOUR, _COLOUR_DISTORTION)
    x, y = cv2.initUndistortRectifyMap(camera, distortion, None, camera, SIZE[::-1], cv2.CV_32FC1)
    return cv2.convertMaps(x, y, cv2.CV_16SC2, nninterpolation=of_depth)


def _recorded(files: list[str]) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """List time and name of a scene's pictures and of its depth maps, ascending."""
    kinds: dict[str, list[tuple[float, str]]] = {"r": [], "d": []}
    for file in files:
        words = file.split("-")
        if file.endswith((".ppm", ".pgm")) and words[0] in kinds and len(words) == 3:
            kinds[words[0]].append((float(words[1]), file))
    return sorted(kinds["r"]), sorted(kinds["d"])


def _picture(root: Path, name: str) -> np.ndarray:
    image = read_pnm(root / name)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise LabelError(f"{root / name}: expected a colour picture of 8 bits; got {image.dtype} {image.shape}.")
    if image.shape[:2] != SIZE:
        raise LabelError(f"{root / name}: expected a picture of {SIZE} (height, width); got {image.shape[:2]}. Leave it out.")
    return cv2.remap(image, *_straightening(of_depth=False), cv2.INTER_LINEAR)


def _read_codes(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    codes = read_pnm(root / frame.label)
    if codes.shape != SIZE or codes.dtype.itemsize != 2:
        raise LabelError(f"{root / frame.label}: expected {SIZE} codes of 16 bits; got {codes.dtype} {codes.shape}.")
    depth = project(codes.astype(np.uint16).byteswap())  # the files have the lower byte first, against the rule
    return Annotation(depth, depth > 0)


_COLOUR, _DEPTH = (camera_matrix(numbers, "NYU Depth V2") for numbers in (CAMERA, DEPTH_CAMERA))
_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
_FACTS: dict[str, Any] = {
    "kind": _KIND,
    "sky": "indoors",
    "camera": "the toolbox's colour camera, as in nyuv2",
    "licence": "research only; the authors state none",
    "test": "tests/convert/test_nyuv2_raw.py",
}
DATASETS = (
    Dataset(
        name="nyuv2_raw",
        read=nyuv2_raw,
        layout="SCENE/ with r-TIME-COUNT.ppm and d-TIME-COUNT.pgm",
        unit="the Kinect's codes, 351.3 / (1092.5 - code) metres, seen from the colour camera",
        invalid="codes of 2047, below 600 and of 10 m and more; pixels that no point falls into",
        source="Silberman et al. 2012; 407,024 frames by its page",
        published={"train": None, "val": None},
        total=407_024,
        splits="none are published; rooms of the labelled test left out, 5 % of the scenes for validation",
        **_FACTS,
    ),
    Dataset(
        name="nyuv2_sync",
        read=nyuv2_sync,
        layout="SCENE/rgb_NNNNN.jpg and sync_depth_NNNNN.png, and a list",
        unit="depth in millimetres, holes filled in",
        invalid="0 and 65535",
        source="Lee et al. 2019 (BTS); the list that ZoeDepth and Depth Anything train with",
        total=24_231,
        splits="by the list",
        depth_format=DepthFormat.PNG_LINEAR16,
        **_FACTS,
    ),
)
