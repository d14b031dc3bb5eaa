"""Cases of ``fuzz.py`` that damage data: shards and what lies beside them, images, depth, films, predictions, reports."""

import io
import json
import random
import tarfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from _damage import Case, altered, damaged
from PIL import Image

from depthkit.cli.main import main
from depthkit.convert.folder import folder
from depthkit.errors import DepthKitError
from depthkit.evaluation import compare_reports
from depthkit.images import read_image
from depthkit.inference import Prediction, load_prediction
from depthkit.inference.exr import exr_bytes
from depthkit.inference.film.frames import Footage
from depthkit.shards import ShardIndex, ShardWriter, verify
from depthkit.types import Ambiguity, Representation, Sample


def made(n: int) -> Sample:
    """Make a sample with everything that one can have."""
    rng = np.random.default_rng(n)
    photos = rng.integers(0, 255, (3, 16, 24, 3), np.uint8)
    depth = rng.uniform(1, 9, (16, 24)).astype(np.float32)
    depth[0] = np.inf
    valid = depth > 2
    pose, camera = np.eye(4), np.array([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
    views = {"prev": photos[1], "stereo": photos[2]}
    return Sample(
        f"s{n}", photos[0], depth, valid, Ambiguity.METRIC, sky=np.isinf(depth), intrinsics=camera, world_from_camera=pose,
        stereo_baseline=0.1, frames=views, frames_from_camera=dict.fromkeys(views, pose), source={"image": "a.png"},
    )  # fmt: skip


def shard_cases(root: Path, depth_format: str = "png_log16") -> Case:
    """Damage a tar of samples, or the members in it, and verify the folder."""
    with ShardWriter(root, split="train", dataset="room", samples_per_shard=2, depth_format=depth_format) as writer:
        for n in range(2):
            writer.write(made(n))
    (name,) = (shard.name for shard in ShardIndex.load(root).shards("train"))
    whole = (root / name).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]

    def rebuilt(rng: random.Random) -> bytes:
        parts, position = list(members), rng.randrange(len(members))
        member, data = parts[position]
        way = rng.random()
        if member.endswith(".json") and way < 0.8:
            data = json.dumps(altered(json.loads(data), rng)).encode()
        elif way < 0.8:
            data = damaged(data, rng)
        elif way < 0.9:
            data = rng.choice(members)[1]
        else:
            member = rng.choice((member.upper(), "../x.png", "/x.jpg", rng.choice(members)[0], "room.meta.json", "." * 9))
        parts[position] = member, data
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
            for here, content in parts:
                info = tarfile.TarInfo(here)
                info.size = len(content)
                if rng.random() < 0.02:
                    info.type, info.linkname = rng.choice((tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)), "/etc/passwd"
                tar.addfile(info, io.BytesIO(content))
        return stream.getvalue()

    def case(rng: random.Random) -> None:
        (root / name).write_bytes(damaged(whole, rng) if rng.random() < 0.3 else rebuilt(rng))
        report = verify(root)
        if any("is not the file of the index" not in problem.what for problem in report.problems):
            report.check()

    return case


def index_cases(root: Path) -> Case:
    """Damage index.json and look at what the folder holds."""
    shard_cases(root)
    file = root / "index.json"
    whole = file.read_bytes()

    def case(rng: random.Random) -> None:
        data = damaged(whole, rng) if rng.random() < 0.3 else json.dumps(altered(json.loads(whole), rng)).encode()
        file.write_bytes(data)
        main(["shards", "info", str(root)])
        verify(root, decode=False)

    return case


def _picture(ending: str) -> bytes:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture.save(stream, format=ending, **({} if ending in ("GIF", "BMP") else {"exif": exif}))
    return stream.getvalue()


def image_cases(root: Path) -> Case:
    """Damage photos of all formats and read them."""
    whole = [_picture(ending) for ending in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")]
    return lambda rng: read_image(damaged(rng.choice(whole), rng))


def folder_cases(root: Path) -> Case:
    """Damage depth, photos or descriptions of an RGB-D folder and read it."""
    depth = np.linspace(0.5, 9, 24 * 32, dtype=np.float32).reshape(24, 32)
    codes = (depth * 1000).astype(np.uint16)
    (root / "rgb").mkdir(parents=True)
    (root / "depth").mkdir()
    photo, whole = cv2.imencode(".png", np.full((24, 32, 3), 9, np.uint8))[1].tobytes(), {}
    cv2.imwrite(str(root / "depth/a.png"), codes)
    np.save(root / "depth/b.npy", depth)
    np.savez_compressed(root / "depth/c.npz", depth=depth)
    Image.fromarray(depth).save(root / "depth/d.tiff")
    (root / "depth/e.pfm").write_bytes(b"Pf\n32 24\n-1\n" + depth.tobytes())
    (root / "depth/f.pgm").write_bytes(b"P5 32 24 65535\n" + codes.astype(">u2").tobytes())
    (root / "depth/g.bin").write_bytes(b"32&24&1&" + depth.tobytes())
    for file in (root / "depth").iterdir():
        whole[file] = file.read_bytes()
        cv2.imwrite(str(root / f"rgb/{file.stem}.png"), np.full((24, 32, 3), 9, np.uint8))
    (root / "rgb/a.png").write_bytes(photo)
    whole[root / "rgb/a.png"] = photo
    camera = {"fx": 30, "fy": 31, "cx": 15.5, "cy": 11.5, "width": 32, "height": 24, "depth_scale": 0.001, "per_frame": {}}
    facts = {
        "intrinsics.json": camera | {"per_frame": {"a": {"K": [[30, 0, 15], [0, 30, 11], [0, 0, 1]]}}, "baseline_m": 0.1},
        "transforms.json": {
            "fl_x": 30, "cx": 16, "cy": 12, "w": 32, "h": 24, "k1": 0, "depth_unit_scale_factor": 0.001,
            "frames": [{"file_path": "rgb/a", "depth_file_path": "depth/a.png", "transform_matrix": np.eye(4).tolist()}],
        },
        "metadata.json": {"w": 32, "h": 24, "K": [30, 0, 0, 0, 30, 0, 15, 11, 1], "poses": [[0, 0, 0, 1, 0, 0, 0]] * 9},
        "scene_camera.json": {
            str(n): {"cam_K": [30, 0, 15, 0, 30, 11, 0, 0, 1], "depth_scale": 1, "cam_R_w2c": [1, 0, 0, 0, 1, 0, 0, 0, 1],
                     "cam_t_w2c": [0, 0, 0]} for n in range(9)
        },
        "camera_intrinsic.json": {"width": 32, "height": 24, "intrinsic_matrix": [30, 0, 0, 0, 30, 0, 15, 11, 1]},
        "cam_params.json": {"camera": {"w": 32, "h": 24, "fx": 30, "fy": 30, "cx": 15, "cy": 11, "scale": 5000}},
        "cameras/a.json": {f"t_{i}{j}": float(i == j) for i in range(3) for j in range(4)}
        | {"fx": 30, "fy": 30, "cx": 15, "cy": 11},
    }  # fmt: skip
    (root / "cameras").mkdir()
    (root / "results").mkdir()
    texts = {
        "poses.txt": "1 0 0 0 0 1 0 0 0 0 1 0\n" * 7, "traj.txt": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n", "K.txt": "30 30 15 11",
        "cameras.txt": "1 PINHOLE 32 24 30 30 16 12\n", "images.txt": "1 1 0 0 0 0 0 0 1 a.png\n\n",
    }  # fmt: skip

    def case(rng: random.Random) -> None:
        for name in (*facts, *texts):
            (root / name).unlink(missing_ok=True)
        for file, data in whole.items():
            file.write_bytes(data)
        way = rng.random()
        if way < 0.4:
            file = rng.choice(list(whole))
            file.write_bytes(damaged(whole[file], rng))
        elif way < 0.8:
            name = rng.choice(list(facts))
            content = altered(facts[name], rng)
            data = json.dumps(content).encode()
            (root / name).write_bytes(damaged(data, rng) if rng.random() < 0.2 else data)
        names = ["poses.txt"] if way < 0.9 else ["K.txt"] if way < 0.95 else ["cameras.txt", "images.txt"]
        if way >= 0.8:
            for name in names:
                (root / name).write_bytes(damaged(texts[name].encode(), rng))
        first = None
        for position in range(len(samples := folder(root, depth_scale=rng.choice((None, 0.001))))):
            try:
                samples[position]
            except DepthKitError as error:  # counted and named
                first = first or error
        if first:
            raise first

    return case


def resume_cases(root: Path) -> Case:
    """Damage what says how a split was made, and go on with it."""
    options = {"split": "train", "dataset": "room", "samples_per_shard": 1, "manifest": {"source": "a", "every": 2}}
    with ShardWriter(root, **options) as writer:
        writer.write(made(0))
        writer.write(made(1))
    whole = {file: file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}

    def case(rng: random.Random) -> None:
        for file in sorted(root.rglob("*")):
            if file.is_file() and file not in whole:
                file.unlink()
        for file, data in whole.items():
            file.write_bytes(data)
        file = rng.choice([file for file in whole if file.suffix == ".json"])
        text = json.dumps(altered(json.loads(whole[file]), rng)).encode()
        file.write_bytes(damaged(whole[file], rng) if rng.random() < 0.3 else text)
        with ShardWriter(root, **options, resume=True) as writer:
            writer.write(made(2))

    return case


def exr_cases(root: Path) -> Case:
    """Damage depth in OpenEXR and read it."""
    for name in ("rgb", "depth"):
        (root / name).mkdir(parents=True)
    cv2.imwrite(str(root / "rgb/a.png"), np.full((24, 32, 3), 9, np.uint8))
    depth = np.linspace(0.5, 9, 24 * 32, dtype=np.float32).reshape(24, 32)
    whole = exr_bytes(depth, {"what": "x"})

    def case(rng: random.Random) -> None:
        (root / "depth/a.exr").write_bytes(damaged(whole, rng))
        folder(root, intrinsics=(30, 30, 16, 12))[0]

    return case


def film_cases(root: Path) -> Case:
    """Damage films and read their frames."""
    import av

    root.mkdir(parents=True, exist_ok=True)
    whole = {}
    for ending, codec in ((".mp4", "mpeg4"), (".mkv", "mpeg4"), (".avi", "mjpeg")):
        with av.open(str(root / f"a{ending}"), "w") as film:
            stream = film.add_stream(codec, rate=25)
            stream.width, stream.height, stream.time_base = 64, 48, Fraction(1, 25)
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for n in range(6):
                picture = np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            film.mux(stream.encode())
        whole[root / f"a{ending}"] = (root / f"a{ending}").read_bytes()

    def case(rng: random.Random) -> None:
        file = rng.choice(list(whole))
        file.write_bytes(damaged(whole[file], rng))
        found: list[DepthKitError] = []
        list(Footage(file, on_error=lambda name, error: found.append(error)))
        if found:
            raise found[0]

    return case


def prediction_cases(root: Path) -> Case:
    """Damage stored predictions, or what lies beside them, and read them."""
    root.mkdir(parents=True, exist_ok=True)
    values = np.linspace(0.5, 9, 24 * 32, dtype=np.float32).reshape(24, 32)
    camera = np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]])
    prediction = Prediction(values, Representation.DEPTH, Ambiguity.METRIC, intrinsics=camera, name="a.png")
    for ending in (".png", ".npy"):
        prediction.save(root / f"a{ending}")
    whole = {file: file.read_bytes() for file in sorted(root.iterdir())}

    def case(rng: random.Random) -> None:
        for file, data in whole.items():
            file.write_bytes(data)
        file = rng.choice(list(whole))
        text = file.suffix == ".json" and rng.random() < 0.7
        file.write_bytes(json.dumps(altered(json.loads(whole[file]), rng)).encode() if text else damaged(whole[file], rng))
        found = load_prediction(root / ("a.png" if file.suffix == ".png" else "a.npy"))
        found.save_colour(root / "out" / "a.png")

    return case


def report_cases(root: Path) -> Case:
    """Damage a report of ``evaluate`` and compare it with another."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"key": f"s{n}", "abs_rel": 0.1 + 0.01 * n, "delta1": 0.9, "pixels": 9, "left_out": False} for n in range(4)]
    facts = {"model": "a", "maps": None, "facts": {"protocol": "small_affine"}, "summary": {"abs_rel": 0.1, "delta1": 0.9}}
    whole = {**facts, "per_image": rows}
    (root / "b.json").write_text(json.dumps(whole))

    def case(rng: random.Random) -> None:
        data = json.dumps(whole).encode()
        (root / "a.json").write_bytes(damaged(data, rng) if rng.random() < 0.3 else json.dumps(altered(whole, rng)).encode())
        compare_reports(root / "a.json", root / "b.json")

    return case
