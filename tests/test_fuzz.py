"""Damaged files are read or refused in a sentence: the first cases of ``benchmarks/fuzz.py``, and what once was a defect."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
CASES = {
    "images": 300, "folders": 40, "shards": 60, "npy shards": 60, "index": 25, "resume": 40, "exr": 60, "films": 30,
    "predictions": 60, "reports": 100, "checkpoints": 12, "hubs": 20, "programs": 10, "recipes": 3,
}  # fmt: skip
MENDED = {
    "folders": (87, 153, 223, 257, 336, 369, 20329),
    "shards": (94, 270),
    "index": (96, 120, 1344),
    "resume": (42, 50, 20215),
    "exr": (0, 18, 101024),
    "predictions": (49, 20046, 20087),
    "reports": (20214, 20568),
    "films": (20071, 20163, 20642, 100448),
    "hubs": (1, 5, 11, 18),
    "programs": (20008,),
    "checkpoints": (13, 17, 28, 63, 79, 101, 102),
}
"""Seeds of cases that were tracebacks."""


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(FOLDER))
    try:
        import fuzz

        return fuzz
    finally:
        sys.path.remove(str(FOLDER))


LONG = ("hubs", "programs")
"""Kinds whose networks take seconds to build."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in LONG)) for kind in CASES])
def test_a_damaged_file_is_no_defect(kind, fuzz, tmp_path):
    found = fuzz.fuzz(kind, [*range(CASES[kind]), *MENDED.get(kind, ())], tmp_path)
    assert not found.defects
    assert found.refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_many_damaged_files_are_no_defect(kind, fuzz, tmp_path):
    assert not fuzz.fuzz(kind, range(1000, 1000 + 10 * CASES[kind]), tmp_path).defects


def test_a_defect_a_program_and_a_hang_are_found(fuzz, tmp_path, monkeypatch):
    def crash(rng):
        raise KeyError("x")

    def start(rng):
        import os

        os.system("true")

    def hang(rng):
        while True:
            pass

    monkeypatch.setattr(fuzz, "LONGEST", 1)
    for case, says in ((crash, "KeyError"), (start, "started os.system"), (hang, "more than 1 s")):
        monkeypatch.setitem(fuzz.KINDS, "images", lambda root, case=case: case)
        (defect,) = fuzz.fuzz("images", [0], tmp_path).defects
        assert says in defect
