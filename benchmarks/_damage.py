"""Damage for ``fuzz.py``: of bytes, and of values in JSON, recipes and checkpoints."""

import copy
import random
from collections.abc import Callable
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e-300, float("nan"), float("inf"), "", "x", "nan", "../../x", "\0",
    "é" * 300, [], [[]], [1], {}, {"": None}, {"class_path": "os.system", "init_args": {"command": "touch fuzzed"}},
)  # fmt: skip
"""What a value in a JSON file, a recipe or a checkpoint is replaced by."""
Case = Callable[[random.Random], Any]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change bytes here and there, cut, insert, repeat, zero or exchange some."""
    content, size = bytearray(data), len(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        first = rng.randrange(size) if rng.random() < 0.6 else rng.randrange(min(size, 600))
        length = min(rng.choice((1, 2, 4, 8, 64, 512)), max(len(content) - first, 1))
        way = rng.randrange(7)
        if way == 0:
            for _ in range(rng.choice((1, 3, 16))):
                content[rng.randrange(len(content))] = rng.randrange(256)
        elif way == 1:
            del content[first:]
        elif way == 2:
            content[first:first] = rng.randbytes(length)
        elif way == 3:
            content[first : first + length] = bytes([rng.choice((0, 255))]) * length
        elif way == 4:
            content[first:first] = content[first : first + length]
        elif way == 5:
            del content[first : first + length]
        else:
            other = rng.randrange(len(content))
            content[first : first + length], content[other : other + length] = (
                content[other : other + length],
                content[first : first + length],
            )
        if not content:
            return b""
    return bytes(content)


def altered(value: Any, rng: random.Random) -> Any:
    """Replace, remove or add one value in a copy of nested mappings and lists."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places or rng.random() < 0.02:
        return rng.choice(STRANGE)
    node, key = rng.choice(places)
    way = rng.random()
    if way < 0.15:
        del node[key]
    elif way < 0.25 and isinstance(node, dict):
        node[rng.choice(("x", "", "__class__", str(key) * 2))] = node[key]
    else:
        node[key] = copy.deepcopy(rng.choice(STRANGE))
    return value
