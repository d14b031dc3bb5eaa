"""Layouts without authors: a folder, a video file, recordings in TUM's and KITTI's manner."""

from depthkit.convert import folder, kitti_raw, tum, video
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.frames import UNLABELLED
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation

DATASETS = (
    Dataset(
        name="folder",
        frames=folder.frames,
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
    Dataset(
        name="video",
        frames=video.frames,
        layout="a video file",
        kind=UNLABELLED,
        unit="no label",
        invalid="no label",
        sky="not marked",
        camera="as given",
        source="depthkit",
        licence="",
        splits="the end of the film is held out",
        test="tests/convert/test_video.py",
        real=True,
    ),
    Dataset(
        name="tum",
        frames=tum.frames,
        layout="rgb.txt, depth.txt and groundtruth.txt with time stamps",
        kind=LabelKind(Ambiguity.METRIC, Representation.DEPTH),
        unit="depth in 1/5000 m",
        invalid="0 and 65535",
        sky="indoors",
        camera="the published colour cameras of freiburg1, 2, 3; pixel centres at integers",
        source="Sturm et al. 2012",
        licence="CC BY 4.0",
        splits="the end of the sequence is held out",
        test="tests/convert/test_tum.py",
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
    Dataset(
        name="kitti_raw",
        frames=kitti_raw.frames,
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
