"""`depthkit shards write --part`: as many jobs as one likes, one command each."""

import pytest

from depthkit.cli.main import main
from depthkit.cli.shards_write import write
from depthkit.errors import RecipeError
from depthkit.shards import ShardIndex, verify


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_the_last_part_writes_the_index(tmp_path, capsys):
    for part in ("2/3", "1/3"):
        write("synthetic", "-", str(tmp_path), count=5, size=(16, 24), kind="room", part=part)
    assert "4 of 5 shards are finished; the last part completes the index." in said(capsys)
    main(["shards", "write", "synthetic", "-", str(tmp_path), "--count=5", "--size=[16,24]", "--kind=room", "--part=3/3"])
    assert "the last part" not in said(capsys)
    assert ShardIndex.load(tmp_path).samples("train") == 5
    assert verify(tmp_path).ok


def test_parts_are_not_overwritten(tmp_path):
    with pytest.raises(RecipeError, match="expected part or overwrite; got both"):
        write("synthetic", "-", str(tmp_path), count=5, part="1/3", overwrite=True)
