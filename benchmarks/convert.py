"""Converters against a bare loop over the same files: read, decode, encode again, write; both in samples per second of a core.

For each kind of file that datasets come in, a folder in the published layout is made of pictures about as hard to code as
photographs. The bare loop decodes a picture and its label, encodes the label as a 16-bit PNG by the same options and the
picture as JPEG (or keeps its JPEG as it is), and appends both to a file. It checks nothing, knows no cameras, no sky, no
index and no digests: what the converter loses against it is the price of all that. Of Hypersim it reads no entities and takes
the mean for an exposure; NYU's depth is projected into the colour camera in both, but its picture straightened only by ours.

    python benchmarks/convert.py --samples 24
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from _command import installed, parsed

from depthkit.convert.catalogue import find
from depthkit.convert.nyuv2_raw import project
from depthkit.shards import write_shards
from depthkit.shards.images import encode_codes

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
Label = Callable[[Path], np.ndarray]

if HDF5 := installed("h5py", "megadepth and hypersim are left out"):
    import h5py


class Case(NamedTuple):
    """A dataset, its folder, the split, its pictures, and for the bare loop each one's label and how to read that."""

    dataset: str
    files: str
    root: Path
    split: str
    pictures: list[Path]
    label: Callable[[Path], Path] | None
    codes: Label | None
    pixels: Label | None = None


def photograph(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 ``(H, W, 3)``, and a depth map [m], float32 ``(H, W)``: smooth with some fine texture."""
    rng = np.random.default_rng(seed)

    def smooth(cells: int, channels: int) -> np.ndarray:
        noise = rng.random((cells * height // width + 1, cells, channels), dtype=np.float32)
        return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)

    picture = 255 * np.clip(0.6 * smooth(8, 3) + 0.3 * smooth(80, 3) + 0.1 * smooth(320, 3), 0, 1)
    return picture.astype(np.uint8), np.clip(1 + 9 * smooth(6, 1) + 0.2 * smooth(60, 1), 0.5, 12)[..., 0]


def virtual_kitti(root: Path, count: int) -> Case:
    """JPEG and 16-bit PNG."""
    place = root / "Scene01/clone"
    for what in ("rgb", "depth"):
        (place / f"frames/{what}/Camera_0").mkdir(parents=True)
    rows: dict[str, list[str]] = {"intrinsic": ["frame"], "extrinsic": ["frame"]}
    for n in range(count):
        picture, depth = photograph(n, 375, 1242)
        cv2.imwrite(str(place / f"frames/rgb/Camera_0/rgb_{n:05d}.jpg"), picture)
        cv2.imwrite(str(place / f"frames/depth/Camera_0/depth_{n:05d}.png"), (100 * depth).astype(np.uint16))
        rows["intrinsic"].append(f"{n} 0 725 725 620.5 187")
        rows["extrinsic"].append(f"{n} 0 " + " ".join(map(str, np.eye(4).ravel())))
    for name, lines in rows.items():
        (place / f"{name}.txt").write_text("\n".join(lines))
    pictures = sorted((place / "frames/rgb/Camera_0").iterdir())
    return Case("virtual_kitti", "jpg, png16", root, "val", pictures, _vkitti_label, _png)


def _vkitti_label(picture: Path) -> Path:
    return Path(str(picture).replace("rgb", "depth")).with_suffix(".png")


def _png(file: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def tartanair(root: Path, count: int) -> Case:
    """PNG and npy."""
    place = root / "office/Easy/P000"
    for folder in ("image_left", "depth_left"):
        (place / folder).mkdir(parents=True)
    for n in range(count):
        picture, depth = photograph(n, 480, 640)
        cv2.imwrite(str(place / f"image_left/{n:06d}_left.png"), picture)
        np.save(place / f"depth_left/{n:06d}_left_depth.npy", depth)
    np.savetxt(place / "pose_left.txt", [[0, 0, 0, 0, 0, 0, 1]] * count)
    label = lambda p: place / f"depth_left/{p.stem}_depth.npy"  # noqa: E731
    return Case("tartanair", "png, npy", root, "train", sorted((place / "image_left").iterdir()), label, _npy)


def _npy(file: Path) -> np.ndarray:
    return (1000 * np.load(file)).astype(np.uint16)


def blendedmvs(root: Path, count: int) -> Case:
    """JPEG and PFM."""
    place = root / "58eaf1513353456af3a1682a"
    for folder in ("blended_images", "cams", "rendered_depth_maps"):
        (place / folder).mkdir(parents=True)
    for n in range(count):
        picture, depth = photograph(n, 576, 768)
        cv2.imwrite(str(place / f"blended_images/{n:08d}.jpg"), picture)
        header = f"Pf\n{depth.shape[1]} {depth.shape[0]}\n-1\n".encode()
        (place / f"rendered_depth_maps/{n:08d}.pfm").write_bytes(header + depth[::-1].tobytes())
        (place / f"cams/{n:08d}_cam.txt").write_text("extrinsic\n\nintrinsic\n600 0 384 0 600 288 0 0 1\n\n1 1\n")
    label = lambda p: place / f"rendered_depth_maps/{p.stem}.pfm"  # noqa: E731
    return Case("blendedmvs", "jpg, pfm", root, "train", sorted((place / "blended_images").iterdir()), label, _pfm)


def _pfm(file: Path) -> np.ndarray:
    with file.open("rb") as stream:
        stream.readline()
        width, height = map(int, stream.readline().split())
        stream.readline()
        return (1000 * np.frombuffer(stream.read(), "<f4").reshape(height, width)[::-1]).astype(np.uint16)


def megadepth(root: Path, count: int) -> Case:
    """JPEG and HDF5."""
    place = root / "0000/dense0"
    for folder in ("imgs", "depths"):
        (place / folder).mkdir(parents=True)
    for n in range(count):
        picture, depth = photograph(n, 1067, 1600)
        cv2.imwrite(str(place / f"imgs/{n}.jpg"), picture)
        with h5py.File(place / f"depths/{n}.h5", "w") as content:
            content["depth"] = depth
    label = lambda p: place / f"depths/{p.stem}.h5"  # noqa: E731
    return Case("megadepth", "jpg, h5", root, "train", sorted((place / "imgs").iterdir()), label, _h5)


def _h5(file: Path) -> np.ndarray:
    with h5py.File(file) as content:
        return (1000 * content["depth"][()]).astype(np.uint16)


def hypersim(root: Path, count: int) -> Case:
    """HDF5 of radiance and of depth, in half precision."""
    place = root / "ai_001_001/images"
    rows = ["scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"]
    for folder in ("final", "geometry"):
        (place / f"scene_cam_00_{folder}_hdf5").mkdir(parents=True)
    for n in range(count):
        picture, depth = photograph(n, 768, 1024)
        entities = np.where(depth > 0, 7, -1).astype(np.int32)
        for folder, name, data in (
            ("final", "color", (picture / np.float32(100)).astype(np.float16)),
            ("geometry", "depth_meters", depth.astype(np.float16)),
            ("geometry", "render_entity_id", entities),
        ):
            with h5py.File(place / f"scene_cam_00_{folder}_hdf5/frame.{n:04d}.{name}.hdf5", "w") as content:
                content.create_dataset("dataset", data=data, compression="gzip", compression_opts=1)
        rows.append(f"ai_001_001,cam_00,{n},True,,train")
    (root / "metadata_images_split_scene_v1.csv").write_text("\n".join(rows) + "\n")
    pictures = sorted((place / "scene_cam_00_final_hdf5").iterdir())
    return Case("hypersim", "h5, h5", root, "train", pictures, _hypersim_label, _hypersim_codes, _hypersim_picture)


def _hypersim_label(picture: Path) -> Path:
    return Path(str(picture).replace("_final_", "_geometry_").replace(".color.", ".depth_meters."))


def _hypersim_picture(file: Path) -> np.ndarray:
    """Radiance as a picture, the shortest way: exposed by its mean, gamma."""
    with h5py.File(file) as content:
        radiance = content["dataset"][()].astype(np.float32)
    return (255 * np.clip(radiance / (2 * radiance.mean()), 0, 1) ** (1 / 2.2)).astype(np.uint8)


def _hypersim_codes(file: Path) -> np.ndarray:
    with h5py.File(file) as content:
        return (1000 * content["dataset"][()].astype(np.float32)).astype(np.uint16)


def nyuv2_raw(root: Path, count: int) -> Case:
    """PPM, and PGM of the Kinect's codes."""
    place = root / "study_0001"
    place.mkdir()
    for n in range(count):
        picture, depth = photograph(n, 480, 640)
        codes = np.rint(1092.5 - 351.3 / np.clip(depth, 0.8, 9.5)).astype("<u2")
        (place / f"r-{n}.0-{n}.ppm").write_bytes(b"P6\n640 480\n255\n" + picture.tobytes())
        (place / f"d-{n}.0-{n}.pgm").write_bytes(b"P5\n640 480\n65535\n" + codes.tobytes())
    label = lambda p: place / p.name.replace("r-", "d-").replace("ppm", "pgm")  # noqa: E731
    return Case("nyuv2_raw", "ppm, pgm", root, "train", sorted(place.glob("*.ppm")), label, _kinect)


def _kinect(file: Path) -> np.ndarray:
    """Depth where the colour camera sees it: what is encoded must be the same map, holes and all."""
    codes = np.frombuffer(file.read_bytes()[-2 * 480 * 640 :], "<u2").reshape(480, 640)
    return (1000 * project(codes.astype(np.uint16))).astype(np.uint16)


def images(root: Path, count: int) -> Case:
    """JPEG without labels."""
    for n in range(count):
        cv2.imwrite(str(root / f"{n}.jpg"), photograph(n, 1067, 1600)[0])
    return Case("images", "jpg", root, "train", sorted(root.iterdir()), None, None)


def bare(case: Case, out: Path) -> int:
    """Read, decode, encode, write."""
    with out.open("wb") as stream:
        for picture in case.pictures:
            data = picture.read_bytes() if case.pixels is None else b""
            pixels = case.pixels(picture) if case.pixels else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            stream.write(data if picture.suffix == ".jpg" else cv2.imencode(".jpg", pixels, JPEG)[1].tobytes())
            if case.label and case.codes:
                stream.write(encode_codes(case.codes(case.label(picture))))
    return len(case.pictures)


def convert(case: Case, out: Path) -> int:
    """The same by ``write_shards``, as the command does it."""
    entry = find(case.dataset)
    options = {"megadepth": {"holdout": 0}, "nyuv2_raw": {"holdout": 0, "labelled": "all"}}
    source = entry.open(str(case.root), case.split, options.get(case.dataset, {}))
    how = {"depth_format": entry.depth_format, "originals": case.root}
    return write_shards(source, out, split=case.split, dataset=case.dataset, licence=entry.licence, **how).samples


def rate(run: Callable[[Case, Path], int], case: Case) -> float:
    """Samples per second of a core's work, from a start with an empty folder; what other programs take does not count."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        return run(case, Path(folder) / "out") / (time.process_time() - start)


def main() -> None:
    """Measure in turn, so that other load on the machine hits both alike, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24, help="pictures of each dataset")
    parser.add_argument("--repeat", type=int, default=5, help="measurements of which the median is shown")
    options = parsed(parser, samples=2, repeat=1)
    cv2.setNumThreads(1)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used; OpenCV {cv2.__version__}\n")
    print("| dataset | files | size | bare /s | converter /s | converter / bare |\n| --- | --- | --- | --: | --: | --: |")
    hdf5 = (megadepth, hypersim) if HDF5 else ()
    for make in (virtual_kitti, tartanair, blendedmvs, *hdf5, nyuv2_raw, images):
        with tempfile.TemporaryDirectory() as folder:
            case = make(Path(folder), options.samples)
            shape = (case.pixels or _png)(case.pictures[0]).shape
            pairs = [(rate(bare, case), rate(convert, case)) for _ in range(options.repeat)]
        ours, theirs = statistics.median(b for _, b in pairs), statistics.median(a for a, _ in pairs)
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"| {case.dataset} | {case.files} | {shape[0]} x {shape[1]} | {theirs:.1f} | {ours:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
