"""KITTI's raw drives and its odometry sequences (Geiger et al. 2013), by the lists of frames that papers publish.

A list has lines ``folder frame side``: ``2011_09_26/2011_09_26_drive_0001_sync 5 l`` for a raw drive (splits of Eigen, of Zhou
and of the benchmark), ``9 5 l`` for frame 5 of odometry sequence 09; ``l`` and ``r`` are cameras 2 and 3, in colour. The
benchmark's test images are ``image 5``. BTS, ZoeDepth and Depth Anything list files instead, ``picture depth focal_length``,
of which the picture's name says the same. Under the root lie, as the archives unpack,

- ``DATE/DRIVE_sync/image_02/data/NNNNNNNNNN.png`` (or jpg; the same in ``image_03``), ``velodyne_points/data/NNNNNNNNNN.bin``,
  ``oxts/data/NNNNNNNNNN.txt``, and ``DATE/calib_cam_to_cam.txt``, ``calib_velo_to_cam.txt``, ``calib_imu_to_velo.txt``;
- the improved ground truth (Uhrig et al. 2017), ``DRIVE_sync/proj_depth/groundtruth/image_02/NNNNNNNNNN.png`` in the date's
  folder, or in ``train`` or ``val``;
- ``sequences/NN/image_2/NNNNNN.png``, ``velodyne/NNNNNN.bin``, ``calib.txt``, and ``poses/NN.txt``;
- ``image/NNNNNNNNNN.png`` and ``intrinsics/NNNNNNNNNN.txt`` of the benchmark's test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes
from depthkit.convert.records.kitti_calibration import drive_poses, facts, numbered, rigid, sequence_poses, square
from depthkit.convert.records.neighbours import Spacing, Target, with_neighbours
from depthkit.convert.records.record import (
    UNLABELLED,
    Annotation,
    Record,
    Records,
    camera_matrix,
    check_folder,
    key_of,
    read_codes,
    wrong_layout,
)
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.shards import Reject
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation, Views

ANNOTATED_SCALE = 1 / 256
"""Metres per integer of an annotated depth PNG."""
CAMERAS = {"l": 2, "r": 3, "2": 2, "3": 3}
"""Number of the camera that a side means."""


class Label(StrEnum):
    """Which label to read."""

    NONE = "none"
    VELODYNE = "velodyne"
    """Laser points in the image, their depth along the camera's axis."""
    VELODYNE_FORWARD = "velodyne_forward"
    """Laser points in the image, how far ahead of the scanner they are, about 0.27 m more: what the Eigen test is scored on."""
    ANNOTATED = "annotated"
    """The improved ground truth: points of several scans without those that another view contradicts."""


def kitti_raw(
    root: str | Path,
    split_file: str | Path | Sequence[tuple[str, int, int]],
    *,
    label: Label | str = Label.NONE,
    views: Views | str = Views.SINGLE,
    spacing: int = 1,
    max_spacing: int | None = None,
    min_motion: float = 0.0,
) -> Records:
    """Read the frames that a list names, in its order.

    Intrinsics are those of the rectified camera, the stereo partner is the other colour camera at the pose that the
    calibration says (about 0.53 m away). Where a drive has ``oxts``, or a sequence poses, samples know where their camera was
    and how it moved to its neighbours. What is listed and not there, or has no neighbour, is among ``Records.rejects``.

    Args:
        root: folder of the dates, or of ``sequences``.
        split_file: list of frames, or (folder, frame, number of the camera) of each.
        label: none, velodyne, velodyne_forward (as the Eigen test is scored) or annotated.
        views: single; video adds the frames before and after, stereo the other camera, video_stereo both.
        spacing: how many frames away neighbours are.
        max_spacing: where less than min_motion moves, try neighbours up to this many frames away.
        min_motion: leave out images whose neighbours move less, as mean optical flow [px at width 416].

    Raises:
        DepthKitError: the list does not read, or nothing of it is there.
        GeometryError: a drive's calibration is missing or garbled.
    """
    root = Path(root)
    label, views = check_choice("label", label, Label), check_choice("views", views, Views)
    gaps = Spacing.of(views, spacing, max_spacing, min_motion)
    check_folder(root, "KITTI's dates, such as 2011_09_26, or its sequences")
    listed = Path(split_file) if isinstance(split_file, str | Path) else Path("the list")
    lines = _lines(listed) if isinstance(split_file, str | Path) else list(split_file)
    stereo = views in (Views.STEREO, Views.VIDEO_STEREO)
    clips: dict[tuple[str, int], Clip] = {}
    targets, rejects = [], []
    for folder, number, camera in lines:
        for c in (camera, 5 - camera) if stereo else (camera,):
            if (folder, c) not in clips:
                clips[folder, c] = _clip(root, folder, c)
        clip = clips[folder, camera]
        found = _listed(clip, number, clips[folder, 5 - camera] if stereo else None, label)
        if isinstance(found, str):
            rejects.append(Reject(f"{folder} {number} {'lr'[camera - 2]}", found))
        else:
            video = {} if clip.place == folder else clip.frames  # numbers of a selection are no times
            targets.append(Target(found, video, number))
    if not targets and any(clip.frames for clip in clips.values()):
        name, reason = rejects[0]
        raise LabelError(
            f"expected frames of {listed} with views {views} and label {label} under {root}; got none, "
            f"the first, {name}: {reason}. Get what is missing, or ask for less."
        )
    if not targets:
        raise wrong_layout(f"{clips[lines[0][0], lines[0][2]].place} or another drive of {listed.name}", root)
    chosen = tuple(target.frame for target in targets)
    if gaps:
        chosen, alone = with_neighbours(targets, gaps, Records(root, ()).image)
        rejects += alone
    kind = UNLABELLED if label == Label.NONE else LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    reader = partial(_read_depth, forward=label == Label.VELODYNE_FORWARD)
    return Records(root, chosen, kind, tuple(rejects), reader)


def lidar_depth(
    points: np.ndarray, image_from_lidar: np.ndarray, size: tuple[int, ...], *, forward: bool = False
) -> np.ndarray:
    """Return the depth of the nearest laser point in each pixel.

    A point falls into the pixel round(u) - 1, round(v) - 1, as KITTI's tools count pixels from 1; points behind the scanner
    or the camera are left out.

    Args:
        points: x forward, y left, z up [m] of the scanner, ``(N, 3)`` or more columns.
        image_from_lidar: projection ``(3, 4)``.
        size: (height, width) [px].
        forward: whether depth is the scanner's x instead of that along the camera's axis.

    Returns:
        [m], float32 of that size; 0 where there is no point.
    """
    ahead = points[points[:, 0] >= 0, :3].astype(np.float64)
    u, v, z = image_from_lidar[:, :3] @ ahead.T + image_from_lidar[:, 3:]
    front = z > 0
    column, row = np.rint(u[front] / z[front]) - 1, np.rint(v[front] / z[front]) - 1
    value = (ahead[:, 0] if forward else z)[front]
    return nearest_in_pixel(row, column, value, size)


def nearest_in_pixel(row: np.ndarray, column: np.ndarray, depth: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Draw points into a depth map, the nearest one of each pixel.

    Args:
        row: of each point, ``(N,)``, a whole number; points outside the picture are left out.
        column: of each point, ``(N,)``, a whole number.
        depth: of each point, ``(N,)`` [m], above 0.
        size: (height, width) [px].

    Returns:
        [m], float32 of that size; 0 where there is no point.
    """
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    image = np.full(size, np.inf, np.float32)
    pixel = (row[inside] * size[1] + column[inside]).astype(np.intp)
    np.minimum.at(image.reshape(-1), pixel, depth[inside].astype(np.float32))  # 30 times as fast as to sort by depth
    return np.where(np.isinf(image), np.float32(0), image)


@dataclass(frozen=True)
class LidarRecord(Record):
    """A frame whose label is a file of laser points.

    Attributes:
        image_from_lidar: projection ``(3, 4)`` into its image.
    """

    image_from_lidar: np.ndarray | None = None


def _read_depth(root: Path, frame: Record, size: tuple[int, int], forward: bool) -> Annotation:
    assert isinstance(frame, LidarRecord)
    assert frame.label
    if not frame.label.endswith(".bin"):
        return read_codes(root, frame, size)
    assert frame.image_from_lidar is not None
    data = read_bytes(root / frame.label)
    if not data or len(data) % 16:
        raise LabelError(
            f"{root / frame.label}: expected points of four float32 each; got {len(data)} bytes. Get the file again."
        )
    points = np.frombuffer(data, "<f4").reshape(-1, 4)
    depth = lidar_depth(points[np.isfinite(points).all(1)], frame.image_from_lidar, size, forward=forward)
    return Annotation(depth, depth > 0)


class Clip(NamedTuple):
    """What one camera of a drive holds: its folder, its frames by number, how far left of camera 0 it is [m], depth files."""

    place: str
    frames: Mapping[int, Record]
    offset: np.ndarray
    points: Mapping[int, str]
    annotated: Mapping[int, str]


def _listed(clip: Clip, number: int, partner: Clip | None, label: Label) -> Record | str:
    """Return the record of a line with its label and its partner, or what is missing."""
    if not clip.frames:
        return f"there is no {clip.place}"
    if number not in clip.frames:
        return f"{clip.place} has no image of this number"
    frame = clip.frames[number]
    if label != Label.NONE:
        files, sort = (clip.annotated, "annotated depth") if label == Label.ANNOTATED else (clip.points, "laser points")
        if number not in files:
            return f"{clip.place} has no {sort} of this number"
        frame = replace(frame, label=files[number], scale=ANNOTATED_SCALE)
    if partner is None:
        return frame
    if number not in partner.frames:
        return f"{partner.place} has no image of this number"
    other = partner.frames[number]
    assert frame.intrinsics is not None
    assert other.intrinsics is not None
    if not np.allclose(frame.intrinsics, other.intrinsics):
        return "its cameras have different intrinsics"
    pose = np.eye(4)
    pose[:3, 3] = partner.offset - clip.offset
    baseline = float(np.linalg.norm(pose[:3, 3]))
    return replace(frame, views={"stereo": other.image}, views_from_camera={"stereo": pose}, stereo_baseline=baseline)


def _clip(root: Path, folder: str, camera: int) -> Clip:
    """Collect a camera's files with what the calibration says; without frames if the drive is not there."""
    odometry = folder.isdigit()
    if not odometry and "/" not in folder:
        return _selection(root, folder) if camera == 2 else Clip(f"{folder} of camera 3", {}, np.zeros(3), {}, {})
    drive = f"sequences/{int(folder):02d}" if odometry else folder
    place = f"{drive}/image_{camera}" if odometry else f"{drive}/image_{camera:02d}/data"
    images = numbered(root, place, (".png", ".jpg"))
    if not images:
        return Clip(place, {}, np.zeros(3), {}, {})
    if odometry:
        known = facts(root / drive / "calib.txt")
        projection, from_lidar, size = known(f"P{camera}", 12).reshape(3, 4), known("Tr", 12, optional=True), None
        camera_from_lidar = None if from_lidar is None else square(from_lidar.reshape(3, 4))
        poses = sequence_poses(root, int(folder))
    else:
        date = root / Path(folder).parts[0]
        laser, imu = date / "calib_velo_to_cam.txt", date / "calib_imu_to_velo.txt"
        known = facts(date / "calib_cam_to_cam.txt")
        projection, found = known(f"P_rect_{camera:02d}", 12).reshape(3, 4), known(f"S_rect_{camera:02d}", 2, optional=True)
        size = None if found is None else (int(found[1]), int(found[0]))
        camera_from_lidar, poses = None, {}
        if laser.is_file():
            camera_from_lidar = square(known("R_rect_00", 9).reshape(3, 3)) @ rigid(laser)
            if imu.is_file():
                imu_from_camera = np.linalg.inv(camera_from_lidar @ rigid(imu))
                poses = {n: world_from_imu @ imu_from_camera for n, world_from_imu in drive_poses(root, drive).items()}
    lidar = None if camera_from_lidar is None else projection @ camera_from_lidar
    where = f"{root / drive}: camera {camera}"
    matrix = camera_matrix([projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2]], where)
    offset = np.linalg.solve(matrix, projection[:, 3])
    beside = np.eye(4)
    beside[:3, 3] = -offset
    frames: dict[int, Record] = {
        number: LidarRecord(
            key=key_of(Path(drive).name, Path(place).parts[2], Path(file).stem),
            image=file,
            intrinsics=matrix,
            size=size,
            world_from_camera=poses[number] @ beside if number in poses else None,
            image_from_lidar=lidar,
        )
        for number, file in images.items()
    }
    scans = numbered(root, f"{drive}/velodyne" if odometry else f"{drive}/velodyne_points/data", (".bin",))
    truth = f"{Path(drive).name}/proj_depth/groundtruth/image_{camera:02d}"
    annotated = {
        n: file
        for top in (Path(drive).parent, "train", "val")
        for n, file in numbered(root, f"{top}/{truth}", (".png",)).items()
    }
    return Clip(place, frames, offset, {} if lidar is None else scans, annotated)


def _selection(root: Path, folder: str) -> Clip:
    """Collect the images of many drives in one folder, each with intrinsics of its own."""
    frames: dict[int, Record] = {
        number: LidarRecord(key_of(folder, Path(file).stem), file, intrinsics=_own_camera(root, Path(file).stem))
        for number, file in numbered(root, folder, (".png", ".jpg")).items()
    }
    return Clip(folder, frames, np.zeros(3), {}, {})


def _own_camera(root: Path, stem: str) -> np.ndarray:
    file = root / f"intrinsics/{stem}.txt"
    try:
        matrix = np.loadtxt(file).reshape(3, 3)
    except (OSError, ValueError) as error:
        raise GeometryError(f"expected 9 numbers in {file}; it does not read ({error}). Unpack intrinsics/ too.") from error
    return camera_matrix([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]], str(file))


def _lines(file: Path) -> list[tuple[str, int, int]]:
    """Read folder, frame and camera of each line."""
    try:
        lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
        whole = [_of_file(words[0]) or (words if len(words) == 3 or "/" in words[0] else [*words, "l"]) for words in lines]
        found = [(folder.strip("/"), int(frame), CAMERAS[side]) for folder, frame, side in whole]
    except OSError as error:
        raise DepthKitError(f"expected a list of frames at {file}; {error.strerror}. Give the file of the split.") from error
    except (ValueError, KeyError) as error:
        raise DepthKitError(
            f"expected lines 'folder frame side' in {file}, such as 2011_09_26/2011_09_26_drive_0001_sync 5 l; "
            f"a line does not read ({error}). Correct it."
        ) from error
    if not found:
        raise DepthKitError(f"expected lines 'folder frame side' in {file}; it is empty. Give the file of the split.")
    return found


def _of_file(name: str) -> list[str] | None:
    """Return folder, frame and camera of a picture named ``DRIVE_sync/image_02/data/NNNNNNNNNN.png``; None for others."""
    parts = Path(name).parts
    if len(parts) < 4 or not parts[-3].startswith("image_0") or parts[-2] != "data":
        return None
    return [Path(*parts[:-3]).as_posix(), Path(name).stem, parts[-3][-1]]


DATASETS = (
    Dataset(
        name="kitti_raw",
        read=kitti_raw,
        layout="dates with drives, or sequences/; a list of frames says which",
        kind=None,
        unit="laser points [m], or annotated depth in 1/256 m",
        invalid="0: pixels without a point",
        sky="without points",
        camera="the rectified colour cameras of the calibration; pixel centres at integers",
        source="Geiger et al. 2013; Uhrig et al. 2017",
        licence="CC BY-NC-SA 3.0",
        splits="by the list",
        test="tests/convert/test_kitti_raw.py",
        real=True,
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
