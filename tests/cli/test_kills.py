"""Whatever instant a command is killed at, and by which signal, the same command ends in what an undisturbed one leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_killed_command_goes_on_to_what_an_undisturbed_one_leaves() -> None:
    words = [sys.executable, str(BENCHMARK), "--kills", os.environ.get("DEPTHKIT_TEST_KILLS", "2")]
    places = ["one disk", "two disks", *(["full disk"] if os.geteuid() == 0 else [])]
    done = subprocess.run([*words, "--places", *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
