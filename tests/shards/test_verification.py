"""Laws of verify: whole shards pass, and every kind of damage is found where it is."""

import io
import json
import tarfile

import numpy as np
import pytest

from depthkit.errors import ShardError
from depthkit.shards import ShardIndex, ShardWriter, encode_sample, verify
from depthkit.types import Ambiguity, Sample


def sample(key, value=0):
    label = np.full((8, 9), 2.0 + value, np.float32)
    return Sample(key, np.full((8, 9, 3), value, np.uint8), label, label > 0, Ambiguity.METRIC)


@pytest.fixture
def root(tmp_path):
    for split in ("test", "train"):
        with ShardWriter(tmp_path, split=split, dataset="room", samples_per_shard=2) as writer:
            for number in range(4):
                writer.write(sample(f"{split}/{number}", number))
    return tmp_path


def problems(root, **options):
    return [(p.shard, p.key, p.what) for p in verify(root, **options).problems]


def rewrite(path, entries):
    """A tar of the given (name, bytes), and the index brought in line with its size and hash."""
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def accept(root):
    """Make the index believe what the tars are now."""
    import hashlib

    index = json.loads((root / "index.json").read_text())
    for split in index["splits"].values():
        for shard in split["shards"]:
            data = (root / shard["name"]).read_bytes()
            shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (root / "index.json").write_text(json.dumps(index))


def entries(**samples):
    return [(f"{s.key}.{name}", data) for s in samples.values() for name, data in sorted(encode_sample(s).items())]


@pytest.mark.quick(workers=["0"])
@pytest.mark.parametrize("workers", [0, 2])
def test_whole_shards_pass(root, workers):
    report = verify(root, workers=workers)
    assert report.ok
    assert (report.shards, report.samples) == (4, 8)
    report.check()


def test_one_changed_byte_is_found(root):
    data = bytearray((root / "train-000001.tar").read_bytes())
    data[-1] ^= 1  # in the padding: every sample still reads
    (root / "train-000001.tar").write_bytes(data)
    assert [(s, k) for s, k, _ in problems(root)] == [("train-000001.tar", "")]
    with pytest.raises(ShardError, match=r"train-000001.tar: it is not the file of the index: as many bytes but other ones"):
        verify(root, decode=False).check()


def test_a_truncated_shard_is_found(root):
    path = root / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    found = problems(root)
    assert {s for s, _, _ in found} == {"train-000000.tar"}
    assert any("3000 bytes for" in what for _, _, what in found)
    assert any("whole tar" in what or "expected 2 samples" in what for _, _, what in found)


def test_a_missing_shard_is_found(root):
    (root / "test-000001.tar").unlink()
    ((shard, key, what),) = problems(root)
    assert (shard, key) == ("test-000001.tar", "")
    assert "cannot be read" in what


def test_files_that_do_not_belong_are_found(root):
    (root / "train-000007.tar").write_bytes((root / "train-000000.tar").read_bytes())
    (root / "train-000002.tar.partial").write_bytes(b"")
    (root / "notes.txt").write_text("not ours to judge")
    assert [(s, w.split(".")[0]) for s, _, w in problems(root)] == [
        ("train-000002.tar.partial", "it is what an interrupted writer left"),
        ("train-000007.tar", "the index does not list it"),
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_samples_than_the_index_says_is_found(root, count):
    rewrite(root / "train-000000.tar", entries(**{f"s{n}": sample(f"train/{n + 10}") for n in range(count)}))
    accept(root)
    assert any(s == "train-000000.tar" and "expected 2 samples" in what for s, _, what in problems(root))


def test_a_key_that_comes_twice_is_found_within_and_across_shards_and_splits(root):
    rewrite(root / "train-000000.tar", entries(a=sample("train/3"), b=sample("test/0")))
    accept(root)
    found = {(s, k) for s, k, what in problems(root) if "key" in what}
    assert found == {("train-000000.tar", "test/0"), ("train-000001.tar", "train/3")}


def test_a_sample_that_does_not_decode_is_named_unless_nobody_asks(root):
    broken = dict(entries(a=sample("train/0"), b=sample("train/1")))
    broken["train/1.image.jpg"] = broken["train/1.image.jpg"][:200]
    rewrite(root / "train-000000.tar", broken.items())
    accept(root)
    ((shard, key, what),) = problems(root)
    assert (shard, key) == ("train-000000.tar", "train/1")
    assert "truncated" in what
    assert verify(root, decode=False).ok


def test_a_sample_of_another_kind_than_the_index_says_is_found(root):
    odd = sample("train/1").replace(ambiguity=Ambiguity.SCALE)
    rewrite(root / "train-000000.tar", entries(a=sample("train/0"), b=odd))
    accept(root)
    ((shard, key, what),) = problems(root)
    assert (shard, key) == ("train-000000.tar", "train/1")
    assert "its labels are scale depth, the index says metric depth" in what


def test_a_folder_without_an_index_cannot_be_verified(tmp_path):
    with pytest.raises(ShardError, match=r"there is no index.json"):
        verify(tmp_path)


def test_every_problem_is_listed_not_the_first_alone(root):
    for shard in ShardIndex.load(root).shards("train"):
        (root / shard.name).unlink()
    report = verify(root)
    assert len(report.problems) == 2
    with pytest.raises(ShardError, match=r"\(and 1 more\)"):
        report.check()
