"""Whatever instant a writer is killed at, the same command ends in the bytes of an undisturbed run."""

import subprocess
import sys
import textwrap

import pytest

SETUP = """
import os, random, signal, sys, time
from pathlib import Path
import cv2
import numpy as np
from depthkit.errors import LabelError
from depthkit.shards import Part, files, verify, write_shards
from depthkit.types import Ambiguity, Sample

root, cv2_threads = Path(sys.argv[1]), cv2.setNumThreads(0)
OPTIONS = {"split": "train", "dataset": "made", "samples_per_shard": 3, "resume": True}


class Made:
    def __init__(self, pause=0.0):
        self.pause = pause

    def __len__(self):
        return 10

    def key(self, n):
        return f"s{n}"

    def __getitem__(self, n):
        time.sleep(self.pause)
        if n == 4:
            raise LabelError("it is broken")
        depth = np.full((8, 8), 1.0 + n, np.float32)
        return Sample(self.key(n), np.full((8, 8, 3), n, np.uint8), depth, depth > 0, Ambiguity.METRIC)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def forked(run):
    child = os.fork()
    if not child:
        try:
            run()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

AT_EVERY_STEP = """
def dies_at(step):
    left = [step]
    for name in ("fsync", "replace"):
        def call(*arguments, genuine=getattr(os, name)):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return genuine(*arguments)
        setattr(os, name, call)


def check(parts):
    whole = root / "whole"
    write_shards(Made(), whole, **OPTIONS)
    for step in range(1, 1000):
        out, killed = root / f"out{len(parts)}-{step}", 0
        for part in parts:
            child = forked(lambda: (dies_at(step), write_shards(Made(), out, part=part, **OPTIONS)))
            killed += (code := ended(child)) == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), (step, part, code)
        for part in parts:
            write_shards(Made(), out, part=part, **OPTIONS)
        assert contents(out) == contents(whole), (step, contents(out).keys() ^ contents(whole).keys())
        assert verify(out).ok
        if not killed:
            return step
    raise AssertionError


print(check([None]), check([Part(2, 2), Part(1, 2)]))
"""

AT_RANDOM = """
def check(seed, parts, kills):
    rng, out, whole, done = random.Random(seed), root / f"out{seed}", root / "whole", 0
    write_shards(Made(), whole, **OPTIONS)
    while True:
        children = [forked(lambda: write_shards(Made(0.01), out, part=part, **OPTIONS)) for part in parts]
        if done < kills:
            time.sleep(rng.uniform(0, 0.12))
            for child in children:
                os.kill(child, signal.SIGKILL)
        codes = [ended(child) for child in children]
        done += sum(code == -signal.SIGKILL for code in codes)
        assert {*codes} <= {0, -signal.SIGKILL}, codes
        if {*codes} == {0}:
            break
    assert contents(out) == contents(whole), contents(out).keys() ^ contents(whole).keys()
    return done


WAYS = [[None], [Part(1, 2), Part(2, 2)], [Part(n, 3) for n in (1, 2, 3)]]
print(*(check(seed, parts, 4) for seed, parts in enumerate(WAYS)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [AT_EVERY_STEP, AT_RANDOM])
def test_a_killed_writer_loses_doubles_and_changes_nothing(code, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SETUP + code), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
