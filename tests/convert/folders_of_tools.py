"""Write small RGB-D folders as tools and datasets leave them, all of the same picture, depth, camera and pose."""

import json
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

RNG = np.random.default_rng(0)
METRES = np.round(RNG.uniform(0.5, 9.0, (12, 16)), 2).astype(np.float32)
METRES[0, 0] = 0  # no value
CODES = np.round(METRES * 1000).astype(np.uint16)
POSE = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
GL = POSE @ np.diag([1.0, -1, -1, 1])
K = [20.0, 21.0, 7.5, 5.5]
MATRIX = np.array([[20.0, 0, 7.5], [0, 21, 5.5], [0, 0, 1]])
QUATERNION = [0.0, 0.0, 0.5**0.5, 0.5**0.5]  # of POSE, x y z w


def photo(root, name, size=(12, 16)):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / name), np.full((*size, 3), 90, np.uint8))


def depth(root, name, values=CODES):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, values)
    elif file.suffix == ".npz":
        np.savez_compressed(file, depth=values, mask=values > 0)
    elif file.suffix in (".tiff", ".tif"):
        Image.fromarray(values).save(file)
    elif file.suffix == ".pgm":
        file.write_bytes(b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes())
    elif file.suffix == ".bin":
        file.write_bytes(b"%d&%d&1&" % values.shape[::-1] + values.astype("<f4").tobytes())
    elif file.suffix == ".exr":
        openexr = pytest.importorskip("OpenEXR")
        openexr.File({"type": openexr.scanlineimage}, {"Z": values}).write(str(file))
    else:
        cv2.imwrite(str(file), values)


def text(root, name, content):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


def numbers(matrix):
    return "\n".join(" ".join(map(str, row)) for row in np.asarray(matrix))


def seven_scenes(root):
    for n in range(2):
        photo(root, f"frame-{n:06d}.color.png")
        depth(root, f"frame-{n:06d}.depth.png")
        text(root, f"frame-{n:06d}.pose.txt", numbers(POSE))


def scannet(root):
    for n in (0, 10, 2):
        photo(root, f"color/{n}.jpg", (24, 32))
        depth(root, f"depth/{n}.png")
        text(root, f"pose/{n}.txt", numbers(POSE))
    matrix = np.eye(4)
    matrix[:3, :3] = MATRIX
    text(root, "intrinsic/intrinsic_depth.txt", numbers(matrix))


def scannet_by_its_own_tool(root):
    photo(root, "frame-000000.color.jpg", (24, 32))
    depth(root, "frame-000000.depth.pgm")
    text(root, "frame-000000.pose.txt", numbers(POSE))


def nerfstudio(root):
    facts = {"fl_x": 20, "fl_y": 21, "cx": 8, "cy": 6, "w": 16, "h": 12, "k1": 0, "camera_model": "OPENCV", "frames": []}
    for n in range(2):
        photo(root, f"images/f_{n}.png")
        depth(root, f"depths/f_{n}.png")
        facts["frames"] += [
            {"file_path": f"images/f_{n}.png", "depth_file_path": f"depths/f_{n}.png", "transform_matrix": GL.tolist()}
        ]
    text(root, "transforms.json", facts)


def instant_ngp(root):
    photo(root, "images/0.png")
    depth(root, "depth/0.png", CODES // 10)
    angle = 2 * np.arctan(16 / 2 / 20)
    frame = {"file_path": "./images/0", "depth_path": "depth/0.png", "transform_matrix": GL.tolist()}
    text(root, "transforms.json", {"camera_angle_x": angle, "fl_y": 21, "integer_depth_scale": 0.01, "frames": [frame]})


def colmap(root):
    photo(root, "images/a.jpg")
    depth(root, "stereo/depth_maps/a.jpg.geometric.bin", METRES)
    text(root, "sparse/cameras.txt", "# remark\n1 PINHOLE 16 12 20 21 8 6\n")
    text(root, "sparse/images.txt", "# remark\n1 1 0 0 0 0 0 0 1 a.jpg\n1.5 2.5 -1\n")


def colmap_binary(root):
    colmap(root)
    lens = struct.pack("<QiiQQ8d", 1, 7, 4, 16, 12, 20, 21, 8, 6, 0, 0, 0, 0)
    (root / "sparse/cameras.bin").write_bytes(lens)
    view = struct.pack("<QI7dI", 1, 3, 1, 0, 0, 0, 0, 0, 0, 7) + b"a.jpg\0" + struct.pack("<Q", 1) + bytes(24)
    (root / "sparse/images.bin").write_bytes(view)
    (root / "sparse/cameras.txt").write_text("1 FOV 1 1 1\n")  # the binary goes before it


def record3d(root):
    for n in range(2):
        photo(root, f"rgb/{n}.jpg", (24, 32))
        depth(root, f"depth/{n}.exr", METRES)
    matrix = MATRIX.copy()
    matrix[:2] *= 2
    matrix[:2, 2] += 0.5
    facts = {"w": 32, "h": 24, "K": matrix.T.ravel().tolist(), "poses": [[*_gl_quaternion(), 1, 2, 3]] * 2}
    text(root, "metadata.json", facts)


def _gl_quaternion():
    x, y, z, w = QUATERNION  # of our camera; times half a turn about x
    return [w, z, -y, -x]


def arkit_scenes(root):
    photo(root, "lowres_wide/4106_305.377.png")
    depth(root, "lowres_depth/4106_305.377.png")
    text(root, "lowres_wide_intrinsics/4106_305.378.pincam", "16 12 20 21 7.5 5.5")


def polycam(root):
    for stem in ("11", "22"):
        photo(root, f"keyframes/images/{stem}.jpg", (24, 32))
        depth(root, f"keyframes/depth/{stem}.png")
        facts = {f"t_{i}{j}": GL[i, j] for i in range(3) for j in range(4)}
        facts |= {"fx": 40, "fy": 42, "cx": 15.5, "cy": 11.5, "width": 32, "height": 24}
        text(root, f"keyframes/cameras/{stem}.json", facts)


def realsense(root):
    photo(root, "color/000000.jpg")
    depth(root, "depth/000000.png")
    text(root, "camera_intrinsic.json", {"width": 16, "height": 12, "intrinsic_matrix": MATRIX.T.ravel().tolist()})


def azure(root):
    photo(root, "color/00000.jpg")
    depth(root, "depth/00000.png")
    text(root, "intrinsic.json", {"width": 16, "height": 12, "intrinsic_matrix": MATRIX.T.ravel().tolist()})


def carla(root):
    photo(root, "rgb/0.png")
    codes = np.round(METRES / 1000 * (2**24 - 1)).astype(np.uint32)
    channels = [codes >> 16 & 255, codes >> 8 & 255, codes & 255, np.full_like(codes, 255)]  # blue, green, red, alpha
    depth(root, "depth/0.png", np.stack(channels, -1).astype(np.uint8))


def tartanair_v2(root):
    photo(root, "image_lcam_front/000000_lcam_front.png", (640, 640))
    values = np.zeros((640, 640), "<f4")
    values[:12, :16] = METRES
    depth(root, "depth_lcam_front/000000_lcam_front_depth.png", values[..., None].view(np.uint8))
    text(root, "pose_lcam_front.txt", "1 2 3 0 0 0 1\n")


def bop(root):
    photo(root, "rgb/000003.png")
    depth(root, "depth/000003.png", CODES * 2)
    w2c = np.linalg.inv(POSE)
    camera = {"cam_K": MATRIX.ravel().tolist(), "depth_scale": 0.5}
    text(
        root,
        "scene_camera.json",
        {"3": camera | {"cam_R_w2c": w2c[:3, :3].ravel().tolist(), "cam_t_w2c": (1000 * w2c[:3, 3]).tolist()}},
    )


def replica(root):
    photo(root, "results/frame000001.jpg")
    depth(root, "results/depth000001.png", (METRES * 5000).round().astype(np.uint16))
    text(root, "traj.txt", "\n".join(" ".join(map(str, p.ravel())) for p in (np.eye(4), POSE)))
    text(root, "cam_params.json", {"camera": {"w": 16, "h": 12, "fx": 20, "fy": 21, "cx": 7.5, "cy": 5.5, "scale": 5000}})
