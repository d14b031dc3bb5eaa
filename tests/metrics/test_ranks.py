"""Real processes: the numbers of two ranks are those of one, on both."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metrics.rank_program import score

PROGRAM = Path(__file__).with_name("rank_program.py")


def test_two_processes_with_unequal_images_give_the_numbers_of_one(tmp_path):
    results = [tmp_path / f"{rank}.json" for rank in range(2)]
    ranks = [
        subprocess.Popen([sys.executable, str(PROGRAM), str(rank), "2", str(tmp_path / "rendezvous"), str(results[rank])])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    first, second = (json.loads(result.read_text()) for result in results)
    assert first == second == pytest.approx(score(0, 1), rel=1e-12)
    assert (first["image/n_images"], first["image/n_left_out"]) == (4, 1)
