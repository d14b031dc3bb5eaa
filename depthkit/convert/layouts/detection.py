"""Which layout a folder has: the first whose files are there; one with a reader of its own, or none, is said by name."""

from pathlib import Path

from depthkit.checks import garbled
from depthkit.convert.layouts.captures import (
    arkit_scenes,
    bop,
    open3d,
    polycam,
    record3d,
    replica,
    scannet,
    seven_scenes,
    tartanair_v2,
)
from depthkit.convert.layouts.layout import Layout
from depthkit.convert.layouts.reconstructions import colmap, nerfstudio
from depthkit.errors import DepthKitError, GeometryError

_READERS = (
    seven_scenes, scannet, tartanair_v2, record3d, arkit_scenes, polycam, bop, replica, nerfstudio, open3d, colmap,
)  # fmt: skip
_CONVERTERS = {
    "tum": (("rgb.txt", "depth.txt"),),
    "kitti_depth": (("*/*/proj_depth",), ("*/proj_depth",), ("proj_depth",)),
    "kitti_raw": (("*/*_sync/image_02",), ("*_sync/image_02",), ("image_02/data",)),
    "tartanair": (("image_left", "depth_left"),),
    "hypersim": (("images/scene_cam_*_hdf5",), ("*/images/scene_cam_*_hdf5",)),
    "virtual_kitti": (("*/frames/rgb/Camera_0",), ("frames/rgb/Camera_0",)),
    "diode": (("scan_*/*_depth.npy",), ("scene_*/scan_*/*_depth.npy",), ("*_depth_mask.npy",)),
    "ddad": (("scene_dataset_v*.json",), ("scene_*.json", "point_cloud")),
    "eth3d": (("ground_truth_depth",), ("*/ground_truth_depth",)),
    "nyuv2": (("nyu_depth_v2_labeled.mat",),),
}
"""Datasets that have a converter, by the files that tell them, relative to a folder that a user might give."""
_REFUSED = {
    ("*.r3d",): "a capture of Record3D, whose depth is packed. Export it as EXR + JPG",
    ("*.sens",): "a capture of ScanNet, packed. Export its color, depth, pose and intrinsic",
    ("*.bag",): "a recording in one file. Export its frames to color/ and depth/",
    ("*.mkv",): "a recording in one file. Export its frames to color/ and depth/",
    ("rgb.mp4", "depth"): "a capture of Stray Scanner. Export the frames of rgb.mp4 to rgb/, with the stems of depth/",
    (
        "*_Depth.raw",
    ): "a snapshot of RealSense's viewer, whose depth is of another camera than its colour. Record frames aligned to colour",
    (
        "*_Depth*.png",
        "*_metadata*.csv",
    ): "a snapshot of RealSense's viewer, whose *_Depth.png is a picture of depth. Record frames aligned to colour",
    (
        "im0.png",
        "disp0.pfm",
    ): "a pair of Middlebury. Put im0.png into rgb/, disp0.pfm into disparity/ with the same stem, and fx, "
    "fy, cx, cy, baseline_m and doffs of calib.txt into intrinsics.json",
    ("seq-*/frame-*.color.png",): "several sequences of 7-Scenes. Give one of them, such as seq-01",
    ("scene*_*/color", "scene*_*/intrinsic"): "several scenes of ScanNet. Give one of them, or use the dataset scannet",
    ("data/nyu2_train.csv",): "NYU as DenseDepth packs it, with depth of 8 bits. Get nyu_depth_v2_labeled.mat",
}
"""What is told from its files and not read, and what to do."""


def recognise(root: Path) -> Layout | None:
    """Find the layout of a folder by the files that name it; None for a plain one.

    Raises:
        DepthKitError: it is a layout that another dataset reads, or none does; the message says what to do.
    """
    if (root / "intrinsics.json").is_file():
        return None
    for name, ways in _CONVERTERS.items():
        if any(all(any(root.glob(pattern)) for pattern in patterns) for patterns in ways):
            raise DepthKitError(
                f"expected images and depth of one sequence at {root}; found the dataset {name}. Run `depthkit shards write "
                f"{name} ROOT OUT`; `depthkit shards write {name} --help` says which folder it wants."
            )
    for patterns, what in _REFUSED.items():
        if all(any(root.glob(pattern)) for pattern in patterns):
            raise DepthKitError(f"expected images and depth of one sequence at {root}; found {what}.")
    for read in _READERS:
        with garbled(f"{root} to hold what {read.__name__} writes", GeometryError, "Export it again."):
            layout = read(root)
        if layout is not None:
            return layout
    return None
