"""Files whose headers claim more than they hold are refused before memory is asked for: within 300 MB, each in one sentence."""

import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from depthkit.errors import ShapeError
from depthkit.images import pixel_limit

SIDE = 100_000


def png(width: int, height: int, bits: int = 8, colour: int = 2, more: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """300 MB of text in a chunk, compressed."""
    body = b"Comment\0\0" + zlib.compress(bytes(300_000_000))
    return struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))


def jpeg(width: int, height: int, exif: bytes = b"") -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    scan = b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" + bytes(64) + b"\xff\xd9"
    return b"\xff\xd8" + exif + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + scan


def exif_of(count: int) -> bytes:
    """An EXIF segment with one entry that claims to have ``count`` values."""
    body = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x0112, 4, count, 26) + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body


def webp(width: int, height: int) -> bytes:
    frame = b"\x9d\x01\x2a" + struct.pack("<HH", width, height)
    body = b"\x30\1\0" + frame + bytes(30)
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8 " + struct.pack("<I", len(body)) + body


def gif(width: int, height: int, frames: int = 1) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6) + frame * frames + b";"


def tiff(width: int, height: int, bits: int = 16) -> bytes:
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 2**31)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def npy(shape: tuple[int, ...], version: tuple[int, int] = (1, 0), dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + bytes(64)


def npz(file: Path, content: bytes, claimed: int | None = None) -> bytes:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", content)
    data = file.read_bytes()
    if claimed is not None:  # in both headers of the member
        data = data.replace(struct.pack("<I", len(content)), struct.pack("<I", claimed))
    return data


def exr(width: int, height: int, channels: int = 1) -> bytes:
    def attribute(name: bytes, kind: bytes, value: bytes) -> bytes:
        return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value

    listed = b"".join(b"c%d\0" % n + struct.pack("<iIii", 2, 0, 1, 1) for n in range(channels)) + b"\0"
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    head = [
        (b"channels", b"chlist", listed.replace(b"c0\0", b"Y\0")), (b"compression", b"compression", b"\0"),
        (b"dataWindow", b"box2i", window), (b"displayWindow", b"box2i", window), (b"lineOrder", b"lineOrder", b"\0"),
        (b"pixelAspectRatio", b"float", struct.pack("<f", 1)), (b"screenWindowCenter", b"v2f", bytes(8)),
        (b"screenWindowWidth", b"float", struct.pack("<f", 1)),
    ]  # fmt: skip
    return b"\x76\x2f\x31\x01\x02\0\0\0" + b"".join(attribute(*item) for item in head) + b"\0" + bytes(800)


def avif(width: int, height: int, folder: Path) -> bytes:
    """A small picture whose ``ispe`` box says that it is larger."""
    from PIL import Image

    Image.new("RGB", (16, 16)).save(folder / "small.avif")
    data = (folder / "small.avif").read_bytes()
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", width, height) + data[place + 8 :]


READ = """
import resource, sys, warnings
from pathlib import Path
import numpy as np
from depthkit.convert.layouts.depth_files import _READERS
from depthkit.errors import DepthKitError
from depthkit.images import image_size, read_image
from depthkit.shards.images import decode_codes, decode_image, is_turned

def read_depth(file):
    _READERS[file.suffix](file)

ways = {
    "image": (
        read_image,
        lambda file: decode_image(file.read_bytes(), "it"),
        lambda file: image_size(file.read_bytes(), what="it"),
    ),
    "depth": (read_depth,),
    "codes": (lambda file: decode_codes(file.read_bytes(), "it"),),
    "turned": (lambda file: is_turned(file.read_bytes()),),
}
warnings.simplefilter("error")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
for line in sys.stdin:
    kind, name = line.split()
    for way in ways[kind]:
        try:
            way(Path(name))
            print(Path(name).name, kind, "read")
        except DepthKitError as error:
            text = str(error)
            print(Path(name).name, kind, "refused:", text if "\\n" not in text and len(text) < 600 else "A LONG TEXT")
        except BaseException as error:
            print(Path(name).name, kind, "FAILED:", type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    root = tmp_path_factory.mktemp("bombs")
    some = np.ones((8, 8), np.float32)
    files: list[tuple[str, str, bytes]] = [
        ("image", "sides.png", png(SIDE, SIDE)),
        ("image", "payload.png", png(16_000, 16_000)),
        ("image", "sixteen.png", png(SIDE, SIDE, 16, 0)),
        ("image", "sides.jpg", jpeg(65_500, 65_500)),
        ("image", "payload.jpg", jpeg(16_000, 16_000)),
        ("image", "sides.gif", gif(65_535, 65_535)),
        ("image", "sides.tif", tiff(SIDE, SIDE)),
        ("image", "sides.avif", avif(SIDE, SIDE, root)),
        ("image", "payload.webp", webp(16_383, 16_383)),
        ("depth", "sides16.png", png(SIDE, SIDE, 16, 0)),
        ("depth", "payload16.png", png(16_000, 16_000, 16, 0)),
        ("codes", "codes.png", png(16_000, 16_000, 16, 0)),
        ("depth", "depth.tif", tiff(SIDE, SIDE)),
        ("depth", "strips.tif", tiff(16_000, 16_000)),
        ("depth", "sides.exr", exr(SIDE, SIDE)),
        ("depth", "channels.exr", exr(16_000, 16_000, 40)),
        ("depth", "shape.npy", npy((SIDE, SIDE))),
        ("depth", "endless.npy", npy((2**40, 2**40))),
        ("depth", "less.npy", npy((-4, -4))),
        ("depth", "second.npy", npy((SIDE, SIDE), (2, 0))),
        ("depth", "objects.npy", npy((4, 4), dtype="|O")),
        ("depth", "shape.npz", npz(root / "a.zip", npy((SIDE, SIDE)))),
        ("depth", "claim.npz", npz(root / "b.zip", npy((SIDE, SIDE)), 2**32 - 1)),
        ("depth", "sides.pfm", b"Pf\n100000 100000\n-1.0\n" + some.tobytes()),
        ("depth", "sides.pgm", b"P5\n100000 100000\n65535\n" + some.tobytes()),
        ("depth", "sides.bin", b"100000&100000&1&" + some.tobytes()),
        ("turned", "exif.jpg", jpeg(64, 64, exif_of(2**30))),
        ("image", "text.png", png(8, 8, more=text_bomb())),
        ("image", "frames.gif", gif(64, 64, frames=100_000)),
    ]
    for _, name, data in files:
        (root / name).write_bytes(data)
    asked = "".join(f"{kind} {root / name}\n" for kind, name, _ in files)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", READ], input=asked, capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[tuple[str, str], list[str]] = {}
    for line in done.stdout.splitlines():
        name, kind, answer = line.split(" ", 2)
        found.setdefault((name, kind), []).append(answer)
    assert len(found) == len(files)
    return found


def test_no_claim_is_believed(answers: dict[tuple[str, str], list[str]]) -> None:
    """But that a small picture is read whose text or further frames are large."""
    for (name, kind), found in answers.items():
        for answer in found[: 2 if kind == "image" else None]:
            if name in ("text.png", "frames.gif", "exif.jpg"):
                assert not answer.startswith("FAILED"), (name, answer)
            else:
                assert answer.startswith("refused: "), (name, answer)


def test_the_size_of_the_header_is_told(answers: dict[tuple[str, str], list[str]]) -> None:
    assert "header says 100000x100000" in answers["sides.png", "image"][0]
    assert "10000000000" in answers["sides16.png", "depth"][0]
    assert "bytes cannot" in answers["payload.jpg", "image"][1]
    assert "header says 10000000000" in answers["sides.exr", "depth"][0]
    assert "(100000, 100000), 40000000000 bytes; there are 64" in answers["shape.npy", "depth"][0]


def test_the_limit_is_of_the_environment() -> None:
    assert pixel_limit({}) == 2**28
    assert pixel_limit({"DEPTHKIT_MAX_PIXELS": "1000"}) == 1000
    for wrong in ("", "0", "-5", "many", "1e9"):
        with pytest.raises(ShapeError, match="DEPTHKIT_MAX_PIXELS, of the environment, as a number of pixels; got"):
            pixel_limit({"DEPTHKIT_MAX_PIXELS": wrong})
