"""ScanNet (Dai et al. 2017), unpacked frame by frame, by a list such as the 800 that Marigold is tested on.

Under the root lie ``sceneNNNN_NN`` with ``color/FRAME.jpg``, ``depth/FRAME.png`` (16 bit, millimetres), and, as far as they
were unpacked, ``pose/FRAME.txt`` and ``intrinsic/intrinsic_depth.txt`` (or ``intrinsics_depth.txt``). A list has lines
``sceneNNNN_NN/color/FRAME.jpg sceneNNNN_NN/depth/FRAME.png``. Colour images are larger than depth: they are shrunk to it.
"""

from pathlib import Path

import cv2
import numpy as np

from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes, read_table
from depthkit.convert.records.record import Record, Records, check_folder, key_of, read_picture, wrong_layout
from depthkit.errors import LabelError
from depthkit.shards import Reject
from depthkit.shards.images import ImageFormat
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation

SIZE = (480, 640)
"""Height and width [px] of depth, to which images are shrunk."""
MILLIMETRE = 0.001


def scannet(root: str | Path, split: str = "val", *, split_file: str | Path) -> Records:
    """Read the frames of a list, in its order. A frame whose pose the authors could not find has none.

    Args:
        root: folder of the scenes.
        split: what the list is of; ``val`` or ``train``.
        split_file: the list.

    Raises:
        DepthKitError: the list does not read, or nothing of it is there.
        GeometryError: a scene's camera or a pose is garbled.
    """
    root, split_file = Path(root), Path(split_file)
    check_folder(root, "ScanNet's scenes, such as scene0011_00,")
    lines = [line.split() for line in read_bytes(split_file).decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines or any(len(words) < 2 for words in lines):
        raise LabelError(
            f"{split_file}: expected lines 'sceneNNNN_NN/color/FRAME.jpg sceneNNNN_NN/depth/FRAME.png'; got "
            f"'{' '.join(next((words for words in lines if len(words) < 2), []))}'. Give the file of the split."
        )
    cameras: dict[str, np.ndarray | None] = {}
    found: list[Record] = []
    rejects: list[Reject] = []
    for image, label, *_ in lines:
        if missing := [name for name in (image, label) if not (root / name).is_file()]:
            rejects.append(Reject(image, f"there is no {missing[0]}"))
            continue
        scene = image.split("/", maxsplit=1)[0]
        if scene not in cameras:
            cameras[scene] = _camera(root / scene)
        pose = _pose(root / scene / f"pose/{Path(image).stem}.txt")
        key = key_of(str(Path(image).with_suffix("")).replace("/color", ""))
        found.append(Record(key, image, label, MILLIMETRE, intrinsics=cameras[scene], size=SIZE, world_from_camera=pose))
    if not found:
        raise wrong_layout(f"{lines[0][0]} or another image of {split_file.name}", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), picture=read_shrunk)


def read_shrunk(root: Path, name: str) -> np.ndarray:
    """Read a colour image at the size of the depth, each pixel the mean of those it covers."""
    image = read_picture(root, name)
    return image if image.shape[:2] == SIZE else cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)


def _camera(scene: Path) -> np.ndarray | None:
    """Read the intrinsics of the depth camera, which those of the shrunk image nearly are; None if they were not unpacked."""
    for file in (scene / "intrinsic/intrinsic_depth.txt", scene / "intrinsics_depth.txt"):
        if file.is_file():
            return read_camera(file)
    return None


def _pose(file: Path) -> np.ndarray | None:
    """Read where the camera was; None if the authors' tracking failed, where the file holds -inf."""
    if not file.is_file() or b"inf" in read_bytes(file):
        return None
    return read_table(file, 4)


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="scannet",
        read=scannet,
        layout="sceneNNNN_NN/ with color/, depth/, pose/, intrinsic/; a list of frames says which",
        kind=_KIND,
        unit="depth in millimetres",
        invalid="0",
        sky="indoors",
        camera="intrinsic_depth.txt, as it is; images are shrunk to 640 x 480",
        source="Dai et al. 2017; Marigold's list for the count of val",
        licence="ScanNet terms of use",
        published={"val": 800, "train": None},
        splits="by the list; the authors divide by scene",
        test="tests/convert/test_scannet.py",
        image_format=ImageFormat.PNG,
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
