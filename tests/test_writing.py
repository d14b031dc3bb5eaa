"""A file with its final name is whole, whatever ends the process that writes it, and nothing is left beside it."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from depthkit.errors import PredictionError
from depthkit.writing import replacing, unfinished


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_a_file_that_is_refused_half_way_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")

    def write() -> None:
        with replacing(tmp_path / "a") as part:
            part.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(PredictionError, match=r"expected to write .*a; got: .*full.* Choose another folder"):
        write()
    assert contents(tmp_path) == {"a": "before"}


def test_several_files_come_together(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "a.onnx", folder=True) as part:
        assert part.name == "a.onnx"
        part.write_text("program")
        part.with_name("a.onnx.data").write_text("weights")
        assert not (tmp_path / "new" / "a.onnx.data").exists()
    assert contents(tmp_path / "new") == {"a.onnx": "program", "a.onnx.data": "weights"}


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_leaves_goes_with_the_next_file(folder: bool, tmp_path: Path) -> None:
    if not (child := os.fork()):
        with replacing(tmp_path / "a", folder=folder) as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [file.name for file in tmp_path.iterdir()] == [f".{child}.a.partial"]
    with replacing(tmp_path / "b") as part:
        part.write_text("whole")
    assert contents(tmp_path) == {"b": "whole"}


def test_what_another_process_writes_and_what_is_foreign_stays(tmp_path: Path) -> None:
    theirs, foreign = tmp_path / ".1.a.partial", tmp_path / ".1.a"
    theirs.write_text("half"), foreign.write_text("somebody's")
    with theirs.open() as file, unfinished(tmp_path / "b") as part:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert part.exists()
    assert contents(tmp_path) == {".1.a": "somebody's"}  # it was locked too late
    more = tmp_path / "more"
    more.mkdir()
    (more / ".1.a.partial").write_text("half")
    with (more / ".1.a.partial").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with unfinished(more / "b"):
            pass
        assert contents(more) == {".1.a.partial": "half"}
