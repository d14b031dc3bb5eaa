"""Laws of parts: whatever their number, order and ends, together they write what one process writes."""

import json
import threading

import numpy as np
import pytest

from depthkit.errors import LabelError, RecipeError, ShardError
from depthkit.shards import Part, ShardIndex, ShardWriter, verify, write_shards
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
    return write_shards(
        samples, root, split="train", dataset="made", part=Part(number, count), **{"samples_per_shard": 3} | options
    )


def contents(root):
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def keys(root):
    index = ShardIndex.load(root)
    return [
        raw.key
        for shard in index.shards("train")
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples, wanted=lambda name: False)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("backwards", [False, True])
def test_parts_together_write_the_bytes_of_one_process(count, backwards, tmp_path):
    write_shards(Made(20, broken=[4]), tmp_path / "whole", split="train", dataset="made", samples_per_shard=3, licence="free")
    numbers = [*range(1, count + 1)]
    for number in reversed(numbers) if backwards else numbers:
        report = write(tmp_path / "parts", Made(20, broken=[4]), number, count, licence="free")
        assert report.complete == (number == (1 if backwards else count))
        assert ShardIndex.load(tmp_path / "parts").splits["train"].complete == report.complete
    assert keys(tmp_path / "parts") == [f"s/{n:04d}" for n in range(20) if n != 4]
    assert verify(tmp_path / "parts").ok
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_parts_may_be_another_number_when_they_are_continued(tmp_path):
    write(tmp_path / "parts", Made(20), 2, 3)
    write(tmp_path / "parts", Made(20), 2, 2)
    write_shards(Made(20), tmp_path / "parts", split="train", dataset="made", samples_per_shard=3, resume=True)
    write_shards(Made(20), tmp_path / "whole", split="train", dataset="made", samples_per_shard=3)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_samples_that_come_one_after_the_other_are_parted_too(tmp_path):
    for number in (3, 1, 2):
        write(tmp_path / "parts", (Made(20)[n] for n in range(20)), number, 3)
    write_shards((Made(20)[n] for n in range(20)), tmp_path / "whole", split="train", dataset="made", samples_per_shard=3)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_killed_part_continues_and_a_complete_one_is_left_alone(tmp_path):
    assert write(tmp_path, Made(20), 1, 2).samples == 11
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Made(20, fatal=16), 2, 2)
    again, rest = Made(20), Made(20)
    report = write(tmp_path, again, 1, 2)
    assert (report.skipped, report.finished, report.planned) == (11, 6, 7)
    assert again.made == []
    assert write(tmp_path, rest, 2, 2).skipped == 6
    assert rest.made == [15, 16, 17]
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(20)]


def test_a_part_whose_samples_are_all_left_out_is_complete(tmp_path):
    broken = [3, 4, 5, 7]
    reports = [write(tmp_path, Made(9, broken), number, 3) for number in (2, 1, 3)]
    assert [report.samples for report in reports] == [0, 3, 2]
    assert [name for report in reports for name, _ in report.rejects] == ["s/0003", "s/0004", "s/0005", "s/0007"]
    assert reports[-1].complete
    again = Made(9, broken)
    assert write(tmp_path, again, 2, 3).rejects == reports[0].rejects
    assert again.made == []
    assert keys(tmp_path) == [f"s/{n:04d}" for n in (0, 1, 2, 6, 8)]
    assert ShardIndex.load(tmp_path).split("train").left_out == 4


def test_parts_that_run_at_once_leave_one_index(tmp_path):
    errors = []

    def job(number):
        try:
            write(tmp_path, Made(40), number, 4)
        except Exception as error:  # a thread's exception is lost otherwise
            errors.append(error)

    jobs = [threading.Thread(target=job, args=(number,)) for number in range(1, 5)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert errors == []
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(40)]


def test_the_same_part_twice_at_once_is_sent_away(tmp_path):
    tried = []

    class Meanwhile(Made):
        def __getitem__(self, n):
            if n == 1:
                with pytest.raises(ShardError, match=r"another process is writing split 'train' of .* \(train-000000\.tar\)"):
                    write(tmp_path, Made(12), 1, 2)
                tried.append(n)
            return super().__getitem__(n)

    write(tmp_path, Meanwhile(12), 1, 2)
    assert tried == [1]


def test_two_splits_are_parted_independently(tmp_path):
    for number in (1, 2):
        for split in ("train", "test"):
            write_shards(Made(6), tmp_path, split=split, dataset="made", part=Part(number, 2), samples_per_shard=3)
    assert {name: split.complete for name, split in ShardIndex.load(tmp_path).splits.items()} == {"train": True, "test": True}


@pytest.mark.parametrize(
    ("samples", "number", "count", "error", "message"),
    [
        (Made(13), 2, 2, ShardError, "their samples was 12 and is 13 now"),
        (iter([Made(13)[n] for n in range(1, 13)]), 2, 2, ShardError, "their samples was 12 and is None now"),
        (Made(12), 1, 5, RecipeError, "expected at most 4 parts, one per shard; got 5"),
    ],
)
def test_parts_of_something_else_are_refused(samples, number, count, error, message, tmp_path):
    write(tmp_path, Made(12), 1, 2)
    with pytest.raises(error, match=message):
        write(tmp_path, samples, number, count)


def test_a_split_that_is_there_is_not_touched(tmp_path):
    write_shards(Made(3), tmp_path, split="train", dataset="made")
    with pytest.raises(ShardError, match="their samples_per_shard was 1000 and is 3 now"):
        write(tmp_path, Made(3), 1, 1)


def test_labels_of_two_kinds_do_not_join(tmp_path):
    def kind(n):
        return Ambiguity.METRIC if n < 3 else Ambiguity.SCALE

    write(tmp_path, Made(6, kind=kind), 2, 2)
    with pytest.raises(ShardError, match=r"labels of one kind in split 'train' of .* got metric depth, scale depth"):
        write(tmp_path, Made(6, kind=kind), 1, 2)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(RecipeError, match="expected a part k/n with 1 <= k <= n, such as 3/64; got"):
        Part.parse(text)


def test_the_manifest_says_what_all_parts_agree_on(tmp_path):
    write(tmp_path, Made(12), 1, 2)
    manifest = json.loads((tmp_path / "train.manifest.json").read_text())
    assert {"options", "licence", "depth_format", "format", "depthkit"} <= manifest.keys()
    assert manifest["options"].keys() == {"samples", "keys"}


def test_what_outgrows_its_bytes_goes_to_further_tars_in_order(tmp_path):
    options = {"split": "train", "dataset": "made", "samples_per_shard": 5, "bytes_per_shard": 10_240}
    report = write_shards(Made(12), tmp_path / "whole", **options)
    assert all(shard.bytes <= 10_240 for shard in report.shards)
    assert [shard.name[6:12] for shard in report.shards][:3] == ["000000", "100000", "200000"]
    assert keys(tmp_path / "whole") == [f"s/{n:04d}" for n in range(12)]
    assert verify(tmp_path / "whole").ok
    for number in (2, 1):
        write_shards(Made(12), tmp_path / "parts", **options, part=Part(number, 2))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_what_was_written_by_hand_is_continued_only_with_the_same_samples(tmp_path):
    samples = [Made(8)[n] for n in range(8)]
    writer = ShardWriter(tmp_path, split="train", dataset="made", samples_per_shard=3)
    for sample in samples[:4]:
        writer.write(sample)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    options = {"split": "train", "dataset": "made", "samples_per_shard": 3, "resume": True}
    with pytest.raises(ShardError, match=r"expected train-000000\.tar of .* to hold samples of this source; it does not"):
        write_shards(iter(samples[1:]), tmp_path, **options)
    assert len([*tmp_path.glob("*.tar")]) == 1
    write_shards(iter(samples), tmp_path, **options)
    assert keys(tmp_path) == [f"s/{n:04d}" for n in range(8)]
