"""What depth cameras, phones and benchmarks of scenes leave behind."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.convert.layouts.depth_files import Coding
from depthkit.convert.layouts.layout import Layout, images_in, labels_in, one_folder, pose_in, read_json, side_by_side, size_of
from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.files import names_in, read_table
from depthkit.convert.tartanair import AXES
from depthkit.convert.tum import pose_of
from depthkit.errors import GeometryError

FROM_GL = np.diag([1.0, -1, -1, 1])
"""From our camera (y down, z forward) to OpenGL's (y up, z back)."""


def seven_scenes(root: Path) -> Layout | None:
    """Read ``frame-N.color.png``, ``.depth.png`` and ``.pose.txt`` of one sequence, also as ScanNet's own tool exports them."""
    if not any(re.fullmatch(r"frame-\d+\.depth\.(png|pgm)", name) for name in names_in(root)):
        return None
    images, labels = side_by_side(root)
    poses = _poses({stem: root / f"{stem.rsplit('.', 1)[0]}.pose.txt" for stem in images})
    note = "colour and depth of 7-Scenes are of two cameras, which are not registered: edges are off by some pixels"
    own = not any(label.endswith(".pgm") for label in labels.values())
    return Layout(images, labels, poses=poses, name="7-Scenes", shrink=not own, notes=(note,) if own else ())


def scannet(root: Path) -> Layout | None:
    """Read ``color/``, ``depth/``, ``pose/`` and ``intrinsic/`` of one scene; images are shrunk to their depth."""
    file = root / "intrinsic" / "intrinsic_depth.txt"
    if not file.is_file():
        return None
    images = images_in(root, "color")
    labels = labels_in(root, "depth", images)
    matrix = read_camera(file)
    width, height = size_of(root / next(iter(labels.values()))) if labels else (0, 0)
    camera = _facts(matrix, (width, height))
    poses = _poses({stem: root / "pose" / f"{stem}.txt" for stem in images})
    return Layout(images, labels, dict.fromkeys(images, camera), poses, "ScanNet", shrink=True)


def open3d(root: Path) -> Layout | None:
    """Read ``color/``, ``depth/`` and the camera that Open3D's recorders write for RealSense and Azure Kinect."""
    files = [root / name for name in ("camera_intrinsic.json", "intrinsic.json") if (root / name).is_file()]
    folder = one_folder(root, ("color", "rgb", "image"))
    if not files or folder is None:
        return None
    facts = read_json(files[0])
    matrix = _by_columns(facts.get("intrinsic_matrix"), files[0])
    camera = _facts(matrix, (facts.get("width"), facts.get("height")))
    images = images_in(root, folder)
    azure, divisor = files[0].name == "intrinsic.json", facts.get("depth_scale")
    unit = _unit(divisor, files[0]) if divisor is not None else 0.001 if azure else None
    found = labels_in(root, "depth", images)
    return Layout(images, found, dict.fromkeys(images, camera), name="Open3D's recorder", unit=unit)


def record3d(root: Path) -> Layout | None:
    """Read ``rgb/``, ``depth/`` (EXR) and ``metadata.json`` of Record3D's export; images are shrunk to their depth."""
    file = next((root / name for name in ("metadata.json", "metadata") if (root / name).is_file()), None)
    if file is None or not (root / "rgb").is_dir() or "K" not in (facts := read_json(file)):
        return None
    images = images_in(root, "rgb")
    size = (facts.get("w"), facts.get("h"))
    cameras = {stem: _facts(_by_columns(facts["K"], file), size) for stem in images}
    each = facts.get("perFrameIntrinsicCoeffs") or []
    rows = facts.get("poses") or []
    for name, there in (("perFrameIntrinsicCoeffs", each), ("poses", rows)):
        if there and len(there) < len(images):
            raise GeometryError(f"{file}: expected {len(images)} {name}, one per image; got {len(there)}. Export it again.")
    poses = {}
    for position, stem in enumerate(images):
        place = int(stem) if stem.isdigit() and int(stem) < max(len(each), len(rows)) else position
        if each:
            cameras[stem] = dict(zip(("fx", "fy", "cx", "cy"), each[place][:4], strict=True), width=size[0], height=size[1])
        if rows:
            qx, qy, qz, qw, *shift = rows[place]
            poses[stem] = pose_of(np.array([*shift, qx, qy, qz, qw], np.float64)) @ FROM_GL
    return Layout(images, labels_in(root, "depth", images), cameras, poses, "Record3D", shrink=True)


def arkit_scenes(root: Path) -> Layout | None:
    """Read ``lowres_wide/``, ``lowres_depth/`` and their ``.pincam`` files of one video of ARKitScenes."""
    if not (root / "lowres_depth").is_dir():
        return None
    images = images_in(root, "lowres_wide")
    folder, cameras = root / "lowres_wide_intrinsics", {}
    by_time = {_time(Path(name).stem): folder / name for name in names_in(folder) if name.endswith(".pincam")}
    for stem in images:
        file = next((by_time[time] for t in (0, 1, -1) if (time := _time(stem) + t) in by_time), None)
        if file is not None:
            width, height, *numbers = read_table(file, 6)[0].tolist()
            cameras[stem] = dict(zip(("fx", "fy", "cx", "cy"), numbers, strict=True), width=width, height=height)
    return Layout(images, labels_in(root, "lowres_depth", images), cameras, name="ARKitScenes", shrink=True)


def polycam(root: Path) -> Layout | None:
    """Read ``images/``, ``depth/`` and ``cameras/`` of Polycam's raw data, the corrected ones if there are any."""
    base = root / "keyframes" if (root / "keyframes").is_dir() else root
    corrected = "corrected_" if (base / "corrected_images").is_dir() and (base / "corrected_cameras").is_dir() else ""
    folder = base / f"{corrected}cameras"
    if not folder.is_dir() or not (base / "depth").is_dir():
        return None
    start = "keyframes/" if base != root else ""
    images, cameras, poses = images_in(root, f"{start}{corrected}images"), {}, {}
    for stem, image in images.items():
        file = folder / f"{stem}.json"
        facts = read_json(file)
        size = size_of(root / image)
        cameras[stem] = {name: facts.get(name) for name in ("fx", "fy", "cx", "cy")}
        cameras[stem] |= {"width": facts.get("width", size[0]), "height": facts.get("height", size[1])}
        pose = pose_in([[facts.get(f"t_{i}{j}") for j in range(4)] for i in range(3)], str(file))
        if pose is not None:
            poses[stem] = pose @ FROM_GL
    labels = labels_in(root, f"{start}depth", images)
    return Layout(images, labels, cameras, poses, "Polycam", shrink=True)


def bop(root: Path) -> Layout | None:
    """Read ``rgb/`` (or ``gray/``), ``depth/`` and ``scene_camera.json`` of one scene in BOP's format."""
    file = root / "scene_camera.json"
    if not file.is_file():
        return None
    images = images_in(root, "rgb" if (root / "rgb").is_dir() else "gray")
    facts = {int(number): content for number, content in read_json(file).items() if number.isdigit()}
    cameras, poses = {}, {}
    for stem in images:
        here = facts.get(int(stem), {}) if stem.isdigit() else {}
        if "cam_K" not in here:
            raise GeometryError(f"{file}: expected cam_K of image {stem}; got none. Get the scene again.")
        cameras[stem] = {"K": np.reshape(here["cam_K"], (3, 3)).tolist(), "depth_scale": here.get("depth_scale", 1.0) / 1000}
        if "cam_R_w2c" in here:
            shift = np.reshape(here["cam_t_w2c"], (3, 1)) / 1000
            pose = pose_in(np.hstack([np.reshape(here["cam_R_w2c"], (3, 3)), shift]), str(file))
            if pose is not None:
                poses[stem] = np.linalg.inv(pose)
    return Layout(images, labels_in(root, "depth", images), cameras, poses, "BOP")


def replica(root: Path) -> Layout | None:
    """Read ``results/frameN.jpg`` and ``depthN.png``, ``traj.txt`` and ``cam_params.json`` of a scene rendered from Replica."""
    file = next((place / "cam_params.json" for place in (root, root.parent) if (place / "cam_params.json").is_file()), None)
    if file is None or not (root / "results").is_dir():
        return None
    images, labels = side_by_side(root / "results")
    images, labels = ({stem: f"results/{name}" for stem, name in files.items()} for files in (images, labels))
    facts = read_json(file).get("camera", {})
    camera = {name: facts.get(name) for name in ("fx", "fy", "cx", "cy")} | {"width": facts.get("w"), "height": facts.get("h")}
    poses = {}
    if (root / "traj.txt").is_file():
        rows = read_table(root / "traj.txt", 16)
        for stem in images:
            number = int(re.sub(r"\D", "", stem) or -1)
            pose = pose_in(rows[number].reshape(4, 4), str(root / "traj.txt")) if 0 <= number < len(rows) else None
            if pose is not None:
                poses[stem] = pose
    return Layout(images, labels, dict.fromkeys(images, camera), poses, "Replica", unit=_unit(facts.get("scale"), file))


def tartanair_v2(root: Path) -> Layout | None:
    """Read the left front camera of one flight of TartanAir's second version: float32 in the four bytes of PNGs."""
    camera = "lcam_front"
    if not (root / f"image_{camera}").is_dir() or not (root / f"depth_{camera}").is_dir():
        return None
    images = images_in(root, f"image_{camera}")
    depth = {name.split("_")[0]: name for name in names_in(root / f"depth_{camera}")}
    labels = {stem: f"depth_{camera}/{depth[n]}" for stem in images if (n := stem.split("_")[0]) in depth}
    facts = {"fx": 320.0, "fy": 320.0, "cx": 319.5, "cy": 319.5, "width": 640, "height": 640}
    file = root / f"pose_{camera}.txt"
    rows = list(read_table(file, 7)) if file.is_file() else []
    numbers = {stem: int(stem.split("_")[0]) for stem in images if stem.split("_")[0].isdigit()}
    poses = {stem: pose_of(rows[n]) @ AXES for stem, n in numbers.items() if n < len(rows)}
    return Layout(images, labels, dict.fromkeys(images, facts), poses, "TartanAir 2", coding=Coding.FLOAT32)


def _poses(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Read 4 x 4 numbers a file; frames whose tracking was lost have none."""
    found = {}
    for stem, file in files.items():
        if file.is_file():
            words = file.read_text("utf-8", "replace").split()
            rows = np.reshape(words, (4, 4)) if len(words) == 16 else words
            pose = pose_in(rows, str(file))
            if pose is not None:
                found[stem] = pose
    return found


def _facts(matrix: np.ndarray, size: tuple[Any, Any]) -> dict[str, Any]:
    (fx, _, cx), (_, fy, cy) = matrix[:2]
    return {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": size[0], "height": size[1]}


def _by_columns(numbers: Any, file: Path) -> np.ndarray:
    """Make a matrix of nine numbers, column by column.

    Raises:
        GeometryError: they are others, or row by row.
    """
    try:
        matrix = np.array(numbers, np.float64).reshape(3, 3).T
    except (ValueError, TypeError):
        matrix = np.zeros((3, 3))
    if not np.allclose(matrix[2], (0, 0, 1)):
        raise GeometryError(
            f"{file}: expected the nine numbers of the camera's matrix column by column; got {numbers}. Transpose them."
        )
    return matrix


def _unit(divisor: Any, file: Path) -> float:
    """Return metres per integer from integers per metre."""
    if not isinstance(divisor, int | float) or not 0 < divisor < 1e6:
        raise GeometryError(f"{file}: expected the integers per metre of depth; got {divisor!r}. Give --depth_scale.")
    return 1 / divisor


def _time(stem: str) -> int:
    """Return the time [ms] in a name such as ``41069021_305.377``; -10 if there is none."""
    words = re.search(r"(\d+\.\d+)$", stem)
    return round(float(words[1]) * 1000) if words else -10
