"""One map as an OpenEXR file, which compositing programs and renderers read."""

import struct
import zlib
from collections.abc import Mapping

import numpy as np

_MAGIC, _VERSION, _FLOAT, _ZIP, _ROWS = 20000630, 2, 2, 3, 16


def exr_bytes(values: np.ndarray, texts: Mapping[str, str]) -> bytes:
    """Write a map as the channel Z, float32, without loss, by blocks of 16 rows.

    Args:
        values: ``(H, W)``.
        texts: attributes of the header, by name.
    """
    values = np.ascontiguousarray(values, "<f4")
    height, width = values.shape
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes: list[tuple[str, str, bytes]] = [
        ("channels", "chlist", b"Z\0" + struct.pack("<iB3x2i", _FLOAT, 0, 1, 1) + b"\0"),
        ("compression", "compression", bytes([_ZIP])),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
        *((name, "string", text.encode()) for name, text in texts.items()),
    ]
    head = struct.pack("<2i", _MAGIC, _VERSION)
    for name, kind, value in attributes:
        head += f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
    blocks = [_block(row, values[row : row + _ROWS].tobytes()) for row in range(0, height, _ROWS)]
    start = len(head) + 1 + 8 * len(blocks)
    places = np.cumsum([start, *(len(block) for block in blocks)], dtype="<u8")[:-1]
    return b"".join((head, b"\0", places.tobytes(), *blocks))


def _block(row: int, raw: bytes) -> bytes:
    """Rows compressed as OpenEXR's ZIP: bytes of even places before those of odd ones, differences of neighbours, deflate."""
    data = np.frombuffer(raw, np.uint8)
    order = np.concatenate([data[::2], data[1::2]]).astype(np.int16)
    order[1:] = order[1:] - order[:-1] + 128 + 256
    packed = zlib.compress((order % 256).astype(np.uint8).tobytes())
    packed = packed if len(packed) < len(raw) else raw
    return struct.pack("<2i", row, len(packed)) + packed
