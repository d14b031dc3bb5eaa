"""KITTI's published tests: Eigen's images, those of them with improved labels, the depth benchmark, odometry.

The first two and odometry are ``kitti_raw`` with the label of the test and the authors' list of frames. The benchmark's files
are those of the archive ``data_depth_selection``: ``val_selection_cropped`` with ``image``, ``groundtruth_depth`` (16 bit,
1/256 m) and ``intrinsics``, and ``test_depth_prediction_anonymous`` with ``image`` and ``intrinsics``, all 1216 x 352.
"""

from pathlib import Path
from typing import Any

from depthkit.convert import kitti_raw
from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in
from depthkit.convert.records.record import UNLABELLED, Record, Records, check_folder, key_of, wrong_layout
from depthkit.shards import Reject
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation, Views

_FOLDERS = {"val": "val_selection_cropped", "test": "test_depth_prediction_anonymous"}


def kitti_eigen(root: str | Path, split: str = "test", *, split_file: str | Path) -> Records:
    """Read Eigen's images with the laser points of their scan, as the test wants them: how far ahead of the scanner.

    Args:
        root: folder of the dates.
        split: ``test``, or what the list is of.
        split_file: list of 697 lines ``folder frame side``.

    Raises:
        DepthKitError: the list does not read, or nothing of it is there.
    """
    return kitti_raw.kitti_raw(root, split_file, label=kitti_raw.Label.VELODYNE_FORWARD)


def kitti_improved(root: str | Path, split: str = "test", *, split_file: str | Path) -> Records:
    """Read the images of a list that have improved labels: 652 of Eigen's 697; the others are among the rejects.

    Arguments and errors as ``kitti_eigen``.
    """
    return kitti_raw.kitti_raw(root, split_file, label=kitti_raw.Label.ANNOTATED)


def kitti_odometry(
    root: str | Path, split: str = "test", *, split_file: str | Path, views: Views | str = Views.SINGLE
) -> Records:
    """Read images of odometry sequences with their poses, and laser depth if ``sequences/NN/velodyne`` is there.

    Args:
        root: folder of ``sequences`` and ``poses``.
        split: ``train``, ``val`` or ``test``, or what the list is of.
        split_file: list with lines ``sequence frame side``.
        views: further views to read: the frames before and after, the other camera's image.

    Raises:
        DepthKitError: the list does not read, or nothing of it is there.
    """
    scans = any((Path(root) / "sequences").glob("*/velodyne"))
    label = kitti_raw.Label.VELODYNE if scans else kitti_raw.Label.NONE
    return kitti_raw.kitti_raw(root, split_file, label=label, views=views)


def kitti_benchmark(root: str | Path, split: str = "val") -> Records:
    """Read the images of the depth benchmark; labels of its test are on its server alone.

    Args:
        root: ``depth_selection``, or the folder that holds it.
        split: ``val`` or ``test``.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a camera's file is garbled.
    """
    root = Path(root)
    check_folder(root, f"KITTI's depth_selection/{_FOLDERS[split]}")
    root = root / "depth_selection" if (root / "depth_selection").is_dir() else root
    folder, found, rejects = _FOLDERS[split], [], []
    labels = set(names_in(root / folder / "groundtruth_depth"))
    for name in names_in(root / folder / "image"):
        if not name.endswith(".png"):
            continue
        label = name.replace("_sync_image_", "_sync_groundtruth_depth_")
        if split == "val" and label not in labels:
            rejects.append(Reject(name, f"there is no {folder}/groundtruth_depth/{label}"))
            continue
        frame = Record(
            key_of(Path(name).stem),
            f"{folder}/image/{name}",
            f"{folder}/groundtruth_depth/{label}" if split == "val" else None,
            scale=kitti_raw.ANNOTATED_SCALE,
            intrinsics=read_camera(root / folder / f"intrinsics/{Path(name).stem}.txt"),
        )
        found.append(frame)
    if not found:
        raise wrong_layout(f"{folder}/image/NAME.png{' and groundtruth_depth/' * (split == 'val')}", root)
    return Records(root, tuple(found), _KIND if split == "val" else UNLABELLED, tuple(rejects))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
_FACTS: dict[str, Any] = {
    "sky": "without points",
    "licence": "CC BY-NC-SA 3.0",
    "test": "tests/convert/test_kitti_tests.py",
}
DATASETS = (
    Dataset(
        name="kitti_eigen",
        read=kitti_eigen,
        layout="dates with drives as kitti_raw, and a list of frames",
        kind=_KIND,
        unit="laser points [m], how far ahead of the scanner, the nearest in each pixel",
        invalid="pixels without a point",
        camera="the rectified colour cameras of the calibration; pixel centres at integers",
        source="Geiger et al. 2013; Eigen et al. 2014; labels as Monodepth2 exports them",
        published={"test": 697, "val": 4424, "train": 39810},
        splits="by the list, of other drives than its training; val and train as Zhou et al. 2017 list them",
        real=True,
        image_format=ImageFormat.PNG,
        **_FACTS,
    ),
    Dataset(
        name="kitti_improved",
        read=kitti_improved,
        layout="dates with drives as kitti_raw, annotated depth in train/ or val/, and a list of frames",
        kind=_KIND,
        unit="annotated depth in 1/256 m",
        invalid="0",
        camera="the rectified colour cameras of the calibration; pixel centres at integers",
        source="Uhrig et al. 2017 for Eigen's images",
        published={"test": 652, "val": None, "train": 23158},
        splits="by the list; train as Lee et al. 2019 (BTS) list it, which ZoeDepth and Depth Anything train with",
        real=True,
        image_format=ImageFormat.PNG,
        **_FACTS,
    ),
    Dataset(
        name="kitti_benchmark",
        read=kitti_benchmark,
        layout="depth_selection/ with val_selection_cropped/ and test_depth_prediction_anonymous/",
        kind=_KIND,
        unit="annotated depth in 1/256 m",
        invalid="0",
        camera="intrinsics/, one per image, of the cropped image; pixel centres at integers",
        source="Uhrig et al. 2017",
        published={"val": 1000, "test": 500},
        splits="the authors', of other drives than their training",
        image_format=ImageFormat.PNG,
        **_FACTS,
    ),
    Dataset(
        name="kitti_odometry",
        read=kitti_odometry,
        layout="sequences/NN/ with image_2/, image_3/, calib.txt, velodyne/; poses/NN.txt; and a list of frames",
        kind=None,
        unit="laser points [m] if they are there, along the camera's axis; poses [m]",
        invalid="pixels without a point",
        camera="calib.txt; pixel centres at integers",
        source="Geiger et al. 2012; Zhou et al. 2017 and Monodepth2 for the counts: sequences 00 to 08, 09 and 10",
        published={"train": 36671, "val": 4075, "test": 2790},
        splits="by the list, by sequence",
        real=True,
        **_FACTS,
    ),
)
