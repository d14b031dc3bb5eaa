"""Laws of write_shards: the same bytes from any number of processes, and nothing left out without a word."""

import os
import signal

import numpy as np
import pytest

from depthkit.errors import LabelError, ShardError
from depthkit.shards import ShardIndex, verify, write_shards
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Sample

OPTIONS = {"split": "train", "dataset": "room", "samples_per_shard": 4}


def sample(number, **changes):
    label = np.full((8, 9), 1.0 + number, np.float32)
    return Sample(f"s{number}", np.full((8, 9, 3), number, np.uint8), label, label > 0, Ambiguity.METRIC).replace(**changes)


class OnDemand:
    """Samples made when they are asked for; the third cannot be made."""

    def __init__(self, count):
        self.count, self.made = count, []

    def __len__(self):
        return self.count

    def key(self, position):
        return f"s{position}"

    def __getitem__(self, position):
        self.made.append(position)
        if position == 2:
            raise LabelError("depth/000002.png is damaged.")
        return sample(position)


def digest(root):
    return ShardIndex.load(root).digest


def test_the_bytes_do_not_depend_on_the_number_of_processes_nor_on_how_samples_come(tmp_path):
    scenes = SyntheticScenes(6, size=(24, 32))
    for name, samples, workers in (
        ("one", scenes, 0),
        ("two", scenes, 2),
        ("list", list(scenes), 2),
        ("stream", iter(scenes), 0),
    ):
        report = write_shards(samples, tmp_path / name, **OPTIONS, workers=workers)
        assert (report.samples, report.rejects) == (6, ())
        assert verify(tmp_path / name).ok
    assert len({digest(tmp_path / name) for name in ("one", "two", "list", "stream")}) == 1


def test_every_sample_left_out_is_named_with_its_reason(tmp_path):
    odd = [sample(10, valid=np.zeros((8, 9), bool)), sample(11, ambiguity=Ambiguity.SCALE), sample(0), sample(12)]
    report = write_shards([sample(0), *odd], tmp_path, **OPTIONS)
    assert report.samples == 2
    assert [(reject.name, reject.reason.partition(";")[0]) for reject in report.rejects] == [
        ("s10", "sample 's10': expected a label with valid pixels"),
        ("s11", report.rejects[1].reason.partition(";")[0]),
        ("s0", "expected every key once in split 'train'"),
    ]
    assert "labels of one kind" in report.rejects[1].reason


def test_a_sample_that_cannot_be_made_is_left_out_and_the_others_are_written(tmp_path):
    report = write_shards(OnDemand(6), tmp_path, **OPTIONS)
    assert report.samples == 5
    assert report.rejects == (("s2", "depth/000002.png is damaged."),)


def test_resuming_does_not_make_again_what_is_there(tmp_path):
    class Killed(OnDemand):
        def __getitem__(self, position):
            if position == 7:
                raise KeyboardInterrupt
            return super().__getitem__(position)

    with pytest.raises(KeyboardInterrupt):
        write_shards(Killed(10), tmp_path, **OPTIONS)
    again = OnDemand(10)
    report = write_shards(again, tmp_path, **OPTIONS, resume=True)
    assert again.made == [4, 5, 6, 7, 8, 9]
    assert (report.samples, report.skipped, report.rejects) == (6, 3, (("s2", "depth/000002.png is damaged."),))
    assert verify(tmp_path).ok


def test_a_split_is_not_continued_with_samples_of_another_source(tmp_path):
    write_shards(OnDemand(6), tmp_path, **OPTIONS)
    for other in (OnDemand(3), OnDemand(8)):
        with pytest.raises(ShardError, match=f"their samples was 6 and is {len(other)} now"):
            write_shards(other, tmp_path, **OPTIONS, resume=True)


def test_nothing_but_rejects_is_an_error_that_shows_the_first(tmp_path):
    empty = np.zeros((8, 9), bool)
    with pytest.raises(ShardError, match=r"got none, 3 were left out; the first, s0: .*valid pixels"):
        write_shards([sample(n, valid=empty) for n in range(3)], tmp_path, **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_the_index_tells_the_range_of_the_labels_and_what_was_left_out(tmp_path):
    rng = np.random.default_rng(0)
    labels = [rng.uniform(2, 10, (40, 50)).astype(np.float32) for _ in range(9)]
    samples = [sample(n, image=np.zeros((40, 50, 3), np.uint8), label=x, valid=x < 9) for n, x in enumerate(labels)]
    write_shards([*samples, sample(0)], tmp_path, **OPTIONS)
    info = ShardIndex.load(tmp_path).split("train")
    every = np.concatenate([x[x < 9] for x in labels])
    assert np.allclose(info.range, np.quantile(every, [0.05, 0.5, 0.95]), rtol=0.02)
    assert info.left_out == 1


def test_a_worker_that_is_killed_ends_the_run_with_one_sentence(tmp_path):
    with pytest.raises(ShardError, match="expected worker processes to last; one was killed"):
        write_shards(Deadly(6), tmp_path, **OPTIONS, workers=1)


class Deadly(OnDemand):
    def __getitem__(self, position):
        os.kill(os.getpid(), signal.SIGKILL)
