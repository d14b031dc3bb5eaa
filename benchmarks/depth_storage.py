"""How to store depth: bytes per pixel, time to encode and to decode, and the worst error, of codecs that keep 16 bits or more.

Three kinds of maps: rendered scenes (`SyntheticScenes`), their disparity blurred as networks' maps are, and real depth where
a folder of samples is given (`--samples`, folders with depth/NNNNNN.png in millimetres). Every 16-bit codec gets the same
codes, those of `png_log16` or `png_linear16`, and must return them exactly; the step from float32 to codes and back is the
same for all of them and is given apart. Times are of one core, processor time, the best of several. Codecs that are not
installed are left out: `pip install imagecodecs` for JPEG XL, JPEG-LS, WebP, ZFP, LERC and zstd.

    OMP_NUM_THREADS=1 python benchmarks/depth_storage.py --samples SAMPLES
"""

import argparse
import io
import platform
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from _command import parsed

from depthkit.shards.label import decode_label, encode_label
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation

METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
AFFINE = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)


class Map(NamedTuple):
    """A label: float32 ``(H, W)``, bool ``(H, W)``, and what it is."""

    value: np.ndarray
    valid: np.ndarray
    kind: LabelKind


class Codec(NamedTuple):
    """From an array to bytes and back: of uint16 codes, or of float32 with NaN where nothing is known."""

    name: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, tuple[int, int]], np.ndarray]


def rendered(count: int, size: tuple[int, int]) -> list[Map]:
    """Rooms and streets."""
    scenes = SyntheticScenes(count, size=size)
    return [Map(s.label, s.valid & np.isfinite(s.label), METRIC) for s in scenes if s.label is not None and s.valid is not None]


def predicted(maps: list[Map]) -> list[Map]:
    """Disparity in [0, 1] with soft edges and a little noise: what a network returns."""
    found = []
    for n, depth in enumerate(maps):
        disparity = np.where(depth.valid, 1 / depth.value.clip(1e-3), 0).astype(np.float32)
        soft = cv2.GaussianBlur(disparity, (0, 0), 1.5)
        soft += np.random.default_rng(n).normal(0, 2e-4, soft.shape).astype(np.float32) * soft.max()
        soft = cv2.GaussianBlur(soft, (0, 0), 1.0)
        found.append(Map((soft - soft.min()) / np.ptp(soft), np.ones(soft.shape, bool), AFFINE))
    return found


def recorded(folder: Path, count: int) -> list[Map]:
    """Depth in millimetres as a camera or a laser scanner gave it."""
    files = sorted(folder.glob("depth/*.png"))
    codes = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files[:: max(1, len(files) // count)][:count]]
    return [Map((c * 0.001).astype(np.float32), (c > 0) & (c < 65535), METRIC) for c in codes if (c > 0).any()]


def png(level: int) -> Codec:
    """OpenCV's PNG, which by default looks for runs only, made to look for repetitions."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return Codec(f"PNG level {level}", lambda x: cv2.imencode(".png", x, options)[1].tobytes(), _read_png)


def _read_png(data: bytes, size: tuple[int, int]) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _deltas(codes: np.ndarray) -> bytes:
    """Differences along rows, high bytes before low bytes: what general compressors like."""
    rows = np.diff(codes, axis=1, prepend=codes.dtype.type(0)).astype("<u2")
    return np.ascontiguousarray(rows.view(np.uint8).reshape(*rows.shape, 2).transpose(2, 0, 1)).tobytes()


def _undo(data: bytes, size: tuple[int, int]) -> np.ndarray:
    high = np.frombuffer(data, np.uint8).reshape(2, *size).transpose(1, 2, 0)
    return np.cumsum(np.ascontiguousarray(high).view("<u2")[..., 0], axis=1, dtype=np.uint16)


def codecs16() -> list[Codec]:
    """Lossless codecs of uint16 ``(H, W)``."""
    default = Codec("PNG of runs (OpenCV's default)", lambda x: cv2.imencode(".png", x)[1].tobytes(), _read_png)
    found = [default, *map(png, (1, 2, 3, 6, 9))]
    found.append(
        Codec("zlib 6 of differences", lambda x: zlib.compress(_deltas(x), 6), lambda d, s: _undo(zlib.decompress(d), s))
    )
    try:
        import imagecodecs as ic
    except ImportError:
        return found

    def split(x: np.ndarray) -> np.ndarray:
        return np.dstack([x >> 8, x & 255, np.zeros_like(x)]).astype(np.uint8)

    def join(x: np.ndarray) -> np.ndarray:
        return x[..., 0].astype(np.uint16) << 8 | x[..., 1]

    found += [
        Codec("zstd 3 of differences", lambda x: ic.zstd_encode(_deltas(x), 3), lambda d, s: _undo(ic.zstd_decode(d), s)),
        Codec("zstd 19 of differences", lambda x: ic.zstd_encode(_deltas(x), 19), lambda d, s: _undo(ic.zstd_decode(d), s)),
        Codec("WebP lossless, two bytes as two channels", lambda x: ic.webp_encode(split(x), lossless=True),
              lambda d, s: join(ic.webp_decode(d))),
        Codec("JPEG-LS", ic.jpegls_encode, lambda d, s: ic.jpegls_decode(d)),
        Codec("LERC lossless", lambda x: ic.lerc_encode(x, level=0), lambda d, s: ic.lerc_decode(d)),
    ]  # fmt: skip
    for effort in (1, 3, 7):
        found.append(
            Codec(f"JPEG XL lossless, effort {effort}", _jxl(ic, effort), lambda d, s: np.squeeze(ic.jpegxl_decode(d)))
        )
    return found


def _jxl(ic: Any, effort: int) -> Callable[[np.ndarray], bytes]:
    return lambda x: ic.jpegxl_encode(x, lossless=True, effort=effort, numthreads=1)


def codecs32() -> list[Codec]:
    """Codecs of float32 ``(H, W)``."""

    def npy(x: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, x)
        return stream.getvalue()

    def load(data: bytes, size: tuple[int, int]) -> np.ndarray:
        return np.load(io.BytesIO(data)).astype(np.float32)

    found = [
        Codec("npy float32", npy, load),
        Codec("npy float32, zlib 6", lambda x: zlib.compress(npy(x), 6), lambda d, s: load(zlib.decompress(d), s)),
        Codec(
            "npy float16, zlib 6",
            lambda x: zlib.compress(npy(x.astype(np.float16)), 6),
            lambda d, s: load(zlib.decompress(d), s),
        ),
    ]
    try:
        import imagecodecs as ic
    except ImportError:
        return found
    return [
        *found,
        Codec("npy float32, zstd 3", lambda x: ic.zstd_encode(npy(x), 3), lambda d, s: load(ic.zstd_decode(d), s)),
        Codec(
            "npy float16, zstd 3",
            lambda x: ic.zstd_encode(npy(x.astype(np.float16)), 3),
            lambda d, s: load(ic.zstd_decode(d), s),
        ),
        Codec("ZFP, 0.1 % of the least value", _zfp(ic), lambda d, s: ic.zfp_decode(d)),
    ]


def _zfp(ic: Any) -> Callable[[np.ndarray], bytes]:
    def encode(x: np.ndarray) -> bytes:  # it knows no NaN; what is not valid must come from a mask, which is not counted
        least = max(float(np.nanmin(np.abs(x))), 1e-3)
        return ic.zfp_encode(np.nan_to_num(x, nan=0.0), level=1e-3 * least, mode="a")

    return encode


def best(function: Callable[[], Any], repeat: int) -> tuple[Any, float]:
    """What it returns, and its shortest processor time [s]."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return result, min(times)


class Row(NamedTuple):
    """Sums over maps: bytes, seconds to encode, seconds to decode; the worst relative error."""

    bytes: float
    encode: float
    decode: float
    error: float


def measure(codec: Codec, arrays: list[np.ndarray], back: Callable[[int, np.ndarray], float], repeat: int) -> Row:
    """Run a codec over all arrays; ``back`` says how wrong what came back is."""
    rows = []
    for n, array in enumerate(arrays):
        data, encode = best(lambda array=array: codec.encode(array), repeat)
        decoded, decode = best(lambda data=data, array=array: codec.decode(data, array.shape), repeat)
        rows.append(Row(len(data), encode, decode, back(n, decoded)))
    return Row(*(sum(row[i] for row in rows) for i in range(3)), max(row.error for row in rows))


def relative(label: Map, value: np.ndarray) -> float:
    """Worst error of valid pixels: relative for depth, of the whole range for a disparity of unknown offset."""
    true, error = label.value[label.valid], np.abs(value[label.valid] - label.value[label.valid])
    return float((error / (true if label.kind == METRIC else np.ptp(true))).max())


def table(name: str, maps: list[Map], repeat: int) -> None:
    """Print what all codecs make of some maps."""
    pixels = sum(m.value.size for m in maps)
    print(f"\n### {name}: {len(maps)} maps, {pixels / len(maps):,.0f} pixels, ", end="")
    print(f"{statistics.mean(m.valid.mean() for m in maps):.0%} valid\n")
    print("| codec | bytes per pixel | of the first | encode [ms/MP] | decode [ms/MP] | worst error |")
    print("|---|--:|--:|--:|--:|--:|")
    default = None
    formats = ("png_log16", "png_linear16") if maps[0].kind == METRIC else ("png_linear16",)
    for form in formats:
        stored = [encode_label(*m, form)[:3] for m in maps]
        codes = [_read_png(data, (0, 0)) for _, data, _ in stored]
        errors = [relative(m, decode_label(*s, m.kind, "").value) for m, s in zip(maps, stored, strict=True)]
        for codec in codecs16():

            def exact(n: int, decoded: np.ndarray, codes: list[np.ndarray] = codes, name: str = codec.name) -> float:
                assert np.array_equal(codes[n], decoded), f"{name} is not lossless"
                return errors[n]  # noqa: B023 - used before the next format

            row = measure(codec, codes, exact, repeat)
            default = default or row
            show(f"{form.removeprefix('png_')}: {codec.name}", row, default, pixels)
    floats = [np.where(m.valid, m.value, np.nan).astype(np.float32) for m in maps]
    for codec in codecs32():
        show(codec.name, measure(codec, floats, lambda n, x: relative(maps[n], x), repeat), default, pixels)
    quantise = sum(best(lambda m=m: encode_label(*m, formats[0]), repeat)[1] for m in maps)
    both = sum(
        best(lambda m=m, s=s: decode_label(*s, m.kind, ""), repeat)[1]
        for m, s in [(m, encode_label(*m, formats[0])[:3]) for m in maps]
    )  # fmt: skip
    print(
        f"\n`encode_label` and `decode_label` in all, codes and PNG: {1e9 * quantise / pixels:.1f} and "
        f"{1e9 * both / pixels:.1f} ms/MP."
    )


def show(name: str, row: Row, default: Row | None, pixels: int) -> None:
    """Print a row."""
    share = row.bytes / default.bytes if default else 1.0
    cells = f"{row.bytes / pixels:.3f} | {share:.2f} | {1e9 * row.encode / pixels:.1f} | {1e9 * row.decode / pixels:.1f}"
    print(f"| {name} | {cells} | {row.error:.1e} |", flush=True)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, help="folder of folders with depth/NNNNNN.png, millimetres")
    parser.add_argument("--count", type=int, default=6, help="maps of each kind")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640])
    parser.add_argument("--repeat", type=int, default=3)
    options = parsed(parser, count=1, size=[48, 64], repeat=1)
    cv2.setNumThreads(1)
    print(f"{platform.machine()}, OpenCV {cv2.__version__}, zlib {zlib.ZLIB_RUNTIME_VERSION}")
    scenes = rendered(options.count, tuple(options.size))
    table("rendered depth", scenes, options.repeat)
    table("a network's disparity", predicted(scenes), options.repeat)
    for folder in sorted(options.samples.glob("*/")) if options.samples else ():
        if maps := recorded(folder, options.count):
            table(folder.name, maps, options.repeat)


if __name__ == "__main__":
    main()
