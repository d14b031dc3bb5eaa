"""Laws of parts: whatever their number, order and ends, joined they hold every sample once, in order."""

import json
import threading

import numpy as np
import pytest

from depthkit.errors import LabelError, RecipeError, ShardError
from depthkit.shards import Part, ShardIndex, join_parts, verify, write_part, write_shards
from depthkit.shards import parts as module
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, Sample


class Made:
    """Samples made on demand, of which some cannot be."""

    def __init__(self, count, broken=(), fatal=None, kind=Ambiguity.METRIC):
        self.count, self.broken, self.fatal, self.kind, self.made = count, set(broken), fatal, kind, []

    def __len__(self):
        return self.count

    def key(self, n):
        return f"s/{n:04d}"

    def __getitem__(self, n):
        self.made.append(n)
        if n == self.fatal:
            raise KeyboardInterrupt
        if n in self.broken:
            raise LabelError("it is broken")
        depth = np.full((8, 8), 1.0 + n, np.float32)
        kind = self.kind(n) if callable(self.kind) else self.kind
        return Sample(self.key(n), np.full((8, 8, 3), n, np.uint8), depth, depth > 0, kind)


def write(root, samples, number, count, **options):
    return write_part(
        samples, root, split="train", dataset="made", part=Part(number, count), **{"samples_per_shard": 3} | options
    )


def keys(root):
    index = ShardIndex.load(root)
    return [
        raw.key
        for shard in index.shards("train")
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples, wanted=lambda name: False)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("backwards", [False, True])
def test_joined_parts_hold_every_sample_once_and_in_order(count, backwards, tmp_path):
    numbers = range(1, count + 1)
    for number in reversed(numbers) if backwards else numbers:
        assert not (tmp_path / "index.json").exists()
        write(tmp_path, Made(20), number, count, licence="free")
        finished, of = join_parts(tmp_path, split="train")
        assert of == count
    assert finished == count
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(20)]
    assert verify(tmp_path).ok
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "index.json",
        *(f"train-{n:06d}.tar" for n in range(len(ShardIndex.load(tmp_path).shards("train")))),
        "train.manifest.json",
    ]
    assert ShardIndex.load(tmp_path).licence == "free"


def test_one_part_is_what_is_written_at_once(tmp_path):
    write(tmp_path / "a", Made(10), 1, 1)
    join_parts(tmp_path / "a", split="train")
    write_shards(Made(10), tmp_path / "b", split="train", dataset="made", samples_per_shard=3)
    assert ShardIndex.load(tmp_path / "a").digest == ShardIndex.load(tmp_path / "b").digest


def test_a_killed_part_continues_and_a_complete_one_is_left_alone(tmp_path):
    write(tmp_path, Made(20), 1, 2)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Made(20, fatal=17), 2, 2)
    assert join_parts(tmp_path, split="train") == (1, 2)
    again, rest = Made(20), Made(20)
    assert write(tmp_path, again, 1, 2).skipped == 10
    assert again.made == []
    assert write(tmp_path, rest, 2, 2).skipped == 6
    assert rest.made == [16, 17, 18, 19]
    assert join_parts(tmp_path, split="train") == (2, 2)
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(20)]


def test_a_part_whose_samples_are_all_left_out_is_complete(tmp_path):
    reports = [write(tmp_path, Made(9, broken=[3, 4, 5, 7]), number, 3) for number in (1, 2, 3)]
    assert [report.samples for report in reports] == [3, 0, 2]
    assert [name for report in reports for name, _ in report.rejects] == ["s/0003", "s/0004", "s/0005", "s/0007"]
    assert write(tmp_path, Made(9, broken=[3, 4, 5, 7]), 2, 3).samples == 0
    assert join_parts(tmp_path, split="train") == (3, 3)
    assert keys(tmp_path) == [f"s/{n:04d}" for n in (0, 1, 2, 6, 8)]


def test_joining_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    for number in (1, 2):
        write(tmp_path, Made(12), number, 2)
    move, moved = module._move, []

    def fatal(source, target, size):
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(target)
        move(source, target, size)

    monkeypatch.setattr(module, "_move", fatal)
    with pytest.raises(KeyboardInterrupt):
        join_parts(tmp_path, split="train")
    monkeypatch.setattr(module, "_move", move)
    assert not (tmp_path / "index.json").exists()
    assert join_parts(tmp_path, split="train") == (2, 2)
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(12)]
    assert verify(tmp_path).ok


def test_parts_that_end_at_once_are_joined_once(tmp_path):
    errors = []

    def job(number):
        try:
            write(tmp_path, Made(40), number, 4)
            join_parts(tmp_path, split="train")
        except Exception as error:  # a thread's exception is lost otherwise
            errors.append(error)

    jobs = [threading.Thread(target=job, args=(number,)) for number in range(1, 5)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert errors == []
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(40)]


def test_two_splits_are_parted_independently(tmp_path):
    for number in (1, 2):
        for split in ("train", "test"):
            write_part(Made(6), tmp_path, split=split, dataset="made", part=Part(number, 2))
            join_parts(tmp_path, split=split)
    assert {name: split.complete for name, split in ShardIndex.load(tmp_path).splits.items()} == {"train": True, "test": True}
    assert not (tmp_path / ".parts").exists()


@pytest.mark.parametrize(
    ("samples", "number", "count", "error", "message"),
    [
        (Made(12), 3, 3, ShardError, "their parts was 2 and is 3 now"),
        (Made(13), 2, 2, ShardError, "their samples was 12 and is 13 now"),
        (Made(12), 1, 13, RecipeError, "expected at most 12 parts, one per sample; got 13"),
    ],
)
def test_parts_of_something_else_are_refused(samples, number, count, error, message, tmp_path):
    write(tmp_path, Made(12), 1, 2)
    with pytest.raises(error, match=message):
        write(tmp_path, samples, number, count)


def test_a_split_that_is_there_is_not_touched(tmp_path):
    write_shards(Made(3), tmp_path, split="train", dataset="made")
    with pytest.raises(ShardError, match="their samples_per_shard was 1000 and is 3 now"):
        write(tmp_path, Made(12), 1, 2)


def test_labels_of_two_kinds_do_not_join(tmp_path):
    for number in (1, 2):
        write(tmp_path, Made(4, kind=lambda n: Ambiguity.METRIC if n < 2 else Ambiguity.SCALE), number, 2)
    with pytest.raises(ShardError, match=r"labels of one kind in all parts of split 'train' .* got metric depth, scale depth"):
        join_parts(tmp_path, split="train")


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(RecipeError, match="expected a part k/n with 1 <= k <= n, such as 3/64; got"):
        Part.parse(text)


def test_the_plan_says_what_all_parts_agree_on(tmp_path):
    write(tmp_path, Made(12), 1, 2)
    plan = json.loads((tmp_path / ".parts/train/manifest.json").read_text())
    assert {"parts", "samples", "keys", "options", "licence", "depth_format", "format", "depthkit"} <= plan.keys()
