"""BlendedMVS and its extension BlendedMVG (Yao et al. 2020): images blended with renderings of reconstructed meshes.

Under the root lie, for each project, ``PID/blended_images/NNNNNNNN.jpg`` (and ``_masked.jpg``, which are not read),
``PID/rendered_depth_maps/NNNNNNNN.pfm`` and ``PID/cams/NNNNNNNN_cam.txt`` in the format of MVSNet.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import folders_with, read_bytes, read_pfm
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, paired, wrong_layout
from depthkit.errors import GeometryError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

VALIDATION = frozenset(
    {
        "59817e4a1bd4b175e7038d19",
        "59d2657f82ca7774b1ec081d",
        "5a6400933d809f1d8200af15",
        "5b7a3890fc8fcf6781e2593a",
        "5b950c71608de421b1e7318f",
        "5ba19a8a360c7c30c1c169df",
        "5c189f2326173c3a09ed7ef3",
    }
)
"""The projects of the authors' validation_list.txt."""


def blendedmvs(root: str | Path, split: str) -> Records:
    """Read the images of a split, by project.

    Poses are left out: their unit is that of the depth, which nobody knows.

    Args:
        root: folder of the projects.
        split: ``train`` or ``val``.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, "BlendedMVS's projects, such as 5b7a3890fc8fcf6781e2593a,")
    places = folders_with(root, "blended_images")
    if not places:
        raise wrong_layout("PID/blended_images and rendered_depth_maps", root)
    found: list[Record] = []
    rejects: list[Reject] = []
    for place in places:
        project = place.rpartition("/")[2]
        if (project in VALIDATION) == (split == "val"):
            images, labels = f"{place}/blended_images", f"{place}/rendered_depth_maps"
            here, alone = paired(root, images, labels, _depth_name, project)
            cameras = f"{place}/cams"
            found += [replace(frame, parts={"camera": f"{cameras}/{Path(frame.image).stem}_cam.txt"}) for frame in here]
            rejects += alone
    return Records(root, tuple(found), _KIND, tuple(rejects), _read_depth)


def _depth_name(stem: str) -> str | None:
    return None if stem.endswith("_masked") else f"{stem}.pfm"


def _read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    depth, file = read_pfm(root / frame.label), root / frame.parts["camera"]
    words = read_bytes(file).decode("utf-8", "replace").split()
    try:
        start = words.index("intrinsic") + 1
        matrix = np.array(words[start : start + 9], np.float64).reshape(3, 3)
    except ValueError as error:
        raise GeometryError(f"{file}: expected intrinsic and 9 numbers; got others ({error}). Get it again.") from error
    camera = camera_matrix([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]], str(file))
    return Annotation(depth, np.isfinite(depth) & (depth > 0), intrinsics=camera)


_KIND = LabelKind(Ambiguity.SCALE, Representation.DEPTH)
DATASETS = (
    Dataset(
        name="blendedmvs",
        read=blendedmvs,
        layout="PID/ with blended_images/, rendered_depth_maps/ and cams/",
        kind=_KIND,
        unit="depth along the axis, in a unit of its own in every project",
        invalid="0: the mesh has a hole there",
        sky="0: invalid",
        camera="cams/, pixel centres as given (MVSNet does not say where it counts from)",
        source="Yao et al. 2020; 106 and 7 projects. 115K of BlendedMVG as counted by Yang et al. 2024",
        licence="CC BY 4.0",
        published={"train": 16904, "val": 914},
        splits="the authors' by project",
        test="tests/convert/test_blendedmvs.py",
    ),
)
