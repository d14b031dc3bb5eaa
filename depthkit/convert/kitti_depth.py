"""KITTI's annotated depth (Uhrig et al. 2017): points of several scans, without those that another view contradicts.

Under the root lie ``train`` and ``val`` with ``DRIVE_sync/proj_depth/groundtruth/image_02`` and ``image_03``, as the archive
unpacks, and beside them the raw drives, ``DATE/DRIVE_sync/image_02/data`` and ``DATE/calib_cam_to_cam.txt``.
"""

from pathlib import Path

from depthkit.convert import kitti_raw
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in
from depthkit.convert.records.record import Records, check_folder, wrong_layout
from depthkit.types import Ambiguity, LabelKind, Representation, Views


def kitti_depth(root: str | Path, split: str, *, views: Views | str = Views.SINGLE, spacing: int = 1) -> Records:
    """Read the annotated images of a split, by drive, camera and number.

    Args:
        root: folder of ``train``, ``val`` and the dates.
        split: ``train`` or ``val``.
        views: single; video adds the frames before and after, stereo the other camera, video_stereo both.
        spacing: how many frames away neighbours are.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a drive's calibration is missing or garbled.
    """
    root = Path(root)
    check_folder(root, "KITTI's train, val and its dates, such as 2011_09_26,")
    lines = [
        (f"{drive[:10]}/{drive}", int(file[:-4]), camera)
        for drive in names_in(root / split)
        for camera in (2, 3)
        for file in names_in(root / split / drive / f"proj_depth/groundtruth/image_{camera:02d}")
        if file.endswith(".png")
    ]
    if not lines:
        raise wrong_layout(f"{split}/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02 and other drives", root)
    return kitti_raw.kitti_raw(root, lines, label=kitti_raw.Label.ANNOTATED, views=views, spacing=spacing)


DATASETS = (
    Dataset(
        name="kitti_depth",
        read=kitti_depth,
        layout="train|val/DRIVE_sync/proj_depth/groundtruth/image_0C, and the raw drives beside them",
        kind=LabelKind(Ambiguity.METRIC, Representation.DEPTH),
        unit="depth along the axis in 1/256 m",
        invalid="0: pixels without a point",
        sky="without points",
        camera="the rectified colour cameras of the calibration; pixel centres at integers",
        source="Uhrig et al. 2017",
        licence="CC BY-NC-SA 3.0",
        published={"train": 85898, "val": 6852},
        splits="the authors' by drive",
        test="tests/convert/test_kitti_depth.py",
    ),
)
