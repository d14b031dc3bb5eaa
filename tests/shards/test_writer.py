"""Laws of writing: same samples, same bytes; whatever stops it, what looks finished is, and the index says the truth."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset

from depthkit.errors import LabelError, ShardError
from depthkit.shards import ShardIndex, ShardWriter, decode_sample, verify, write_shards
from depthkit.shards import files as shard_files
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, LabelKind, Representation, Sample, Views

OPTIONS = {"split": "train", "dataset": "room"}


def sample(number, **changes):
    rng = np.random.default_rng(number)
    image = cv2.resize(rng.integers(0, 256, (3, 4, 3), np.uint8), (32, 24), interpolation=cv2.INTER_CUBIC)
    label = rng.uniform(1, 9, (24, 32)).astype(np.float32)
    return Sample(f"s/{number:04d}", image, label, label > 2, Ambiguity.METRIC, intrinsics=np.eye(3)).replace(**changes)


def write(root, numbers, **options):
    with ShardWriter(root, **{**OPTIONS, "samples_per_shard": 3, **options}) as writer:
        for number in numbers:
            writer.write(sample(number))
    return ShardIndex.load(root)


def hashes(root):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in root.rglob("*") if file.is_file()}


def keys(root, split="train"):
    index = ShardIndex.load(root)
    raws = (raw for s in index.shards(split) for raw in read_shard(index.url(s), 0, s.samples, total=s.samples))
    return [raw.key for raw in raws]


def test_what_is_written_is_read_in_order_and_indexed(tmp_path):
    index = write(tmp_path, range(7), licence="CC0")
    assert [(s.name, s.samples) for s in index.shards("train")] == [
        ("train-000000.tar", 3),
        ("train-000001.tar", 3),
        ("train-000002.tar", 1),
    ]
    assert (index.dataset, index.licence, index.samples("train")) == ("room", "CC0", 7)
    assert index.kind("train") == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert keys(tmp_path) == [f"s/{number:04d}" for number in range(7)]
    for shard in index.shards("train"):
        data = Path(index.url(shard)).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [file.name for file in sorted(tmp_path.rglob("*"))] == [
        "index.json",
        "records",
        *(f"{s.name}.json" for s in index.shards("train")),
        *(s.name for s in index.shards("train")),
        "train.manifest.json",
    ]
    assert verify(tmp_path).ok


def test_a_shard_is_a_plain_webdataset_that_its_own_reader_reads(tmp_path):
    index = write(tmp_path, range(2))
    dataset = webdataset.WebDataset([index.url(s) for s in index.shards("train")], shardshuffle=False)
    for number, raw in enumerate(dataset):
        members = {name: data for name, data in raw.items() if not name.startswith("__")}
        got = decode_sample(raw["__key__"], members, where="here")
        assert got.key == sample(number).key
        assert np.array_equal(got.valid, sample(number).valid)


def test_the_same_samples_give_the_same_bytes(tmp_path):
    write(tmp_path / "a", range(7))
    write(tmp_path / "b", range(7))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert ShardIndex.load(tmp_path / "a").digest == ShardIndex.load(tmp_path / "b").digest
    write(tmp_path / "c", range(1, 8))
    assert ShardIndex.load(tmp_path / "c").digest != ShardIndex.load(tmp_path / "a").digest


def test_a_tar_tells_nothing_of_the_machine_and_the_time(tmp_path):
    write(tmp_path, range(2))
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_a_shard_is_closed_before_it_outgrows_its_bytes(tmp_path):
    index = write(tmp_path, range(8), samples_per_shard=100, bytes_per_shard=30_000)
    assert len(index.shards("train")) > 1
    assert all(shard.bytes <= 30_000 for shard in index.shards("train"))
    narrow = write(tmp_path, range(8), samples_per_shard=100, bytes_per_shard=1, overwrite=True)
    assert [shard.samples for shard in narrow.shards("train")] == [1] * 8  # a larger sample gets a shard of its own


def test_splits_share_a_folder_and_an_index_even_when_written_at_the_same_time(tmp_path):
    with (
        ShardWriter(tmp_path, split="train", dataset="room", samples_per_shard=2) as train,
        ShardWriter(tmp_path, split="test", dataset="room", samples_per_shard=2) as test,
    ):
        for number in range(5):
            train.write(sample(number))
            test.write(sample(100 + number))
    index = ShardIndex.load(tmp_path)
    assert (index.samples("train"), index.samples("test")) == (5, 5)
    assert verify(tmp_path).ok


def test_the_index_names_the_views_and_intrinsics_that_all_samples_have(tmp_path):
    views = {"prev": sample(1).image, "next": sample(2).image, "stereo": sample(3).image}
    with ShardWriter(tmp_path, **OPTIONS) as writer:
        writer.write(sample(0, frames=views))
        writer.write(sample(1, frames={"stereo": views["stereo"]}))
    assert ShardIndex.load(tmp_path).split("train").views == Views.STEREO
    assert ShardIndex.load(tmp_path).split("train").intrinsics
    with ShardWriter(tmp_path, **OPTIONS, resume=True) as writer:
        writer.write(sample(2, intrinsics=None))
    assert ShardIndex.load(tmp_path).split("train").views == Views.SINGLE
    assert not ShardIndex.load(tmp_path).split("train").intrinsics


def test_a_sample_that_does_not_fit_is_refused_and_writing_goes_on(tmp_path):
    with ShardWriter(tmp_path, **OPTIONS) as writer:
        writer.write(sample(0))
        with pytest.raises(ShardError, match="expected every key once in split 'train'; got 's/0000' again"):
            writer.write(sample(0))
        with pytest.raises(ShardError, match="labels of one kind in split 'train', metric depth as the first; sample 's/0001'"):
            writer.write(sample(1, ambiguity=Ambiguity.SCALE))
        with pytest.raises(LabelError, match="with valid pixels"):
            writer.write(sample(2, valid=np.zeros((24, 32), bool)))
        writer.write(sample(3))
    assert keys(tmp_path) == ["s/0000", "s/0003"]
    assert verify(tmp_path).ok


def test_an_existing_split_is_neither_mixed_into_nor_lost(tmp_path):
    write(tmp_path, range(4))
    before = hashes(tmp_path)
    with pytest.raises(ShardError, match=r"expected no split 'train' in .*; it has 4 samples. Give overwrite=True"):
        ShardWriter(tmp_path, **OPTIONS)
    with pytest.raises(ShardError, match=r"expected dataset 'street' in .*; it holds 'room'"):
        ShardWriter(tmp_path, split="test", dataset="street")
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, **OPTIONS, overwrite=True):
        raise ZeroDivisionError  # before the first new sample the old ones are safe
    assert hashes(tmp_path) == before


def test_overwrite_replaces_a_split_and_leaves_the_others(tmp_path):
    write(tmp_path, range(8))
    write(tmp_path, range(50, 52), split="test")
    write(tmp_path, range(20, 22), overwrite=True)
    assert keys(tmp_path) == ["s/0020", "s/0021"]
    assert keys(tmp_path, "test") == ["s/0050", "s/0051"]
    assert verify(tmp_path).ok


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "../up"}, "expected a split name of letters"),
        ({"samples_per_shard": 0}, "samples_per_shard >= 1"),
        ({"overwrite": True, "resume": True}, "not both overwrite and resume"),
        ({"depth_format": "exr"}, "depth_format and image_format among png_log16, png_linear16, npy, jpg, png; 'exr'"),
        ({"image_format": "bmp"}, "depth_format and image_format among"),
    ],
)
def test_a_writer_that_cannot_be_says_what_it_takes(tmp_path, options, says):
    with pytest.raises(ShardError, match=says):
        ShardWriter(tmp_path, **{**OPTIONS, **options})


def test_nothing_to_write_is_an_error_and_leaves_no_index(tmp_path):
    with pytest.raises(ShardError, match="expected samples for split 'train'"):
        write(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_of_the_same_split_is_sent_away(tmp_path):
    with ShardWriter(tmp_path, **OPTIONS) as writer:
        writer.write(sample(0))
        with pytest.raises(ShardError, match="another process is writing split 'train'"):
            ShardWriter(tmp_path, **OPTIONS, resume=True).__enter__()
    assert verify(tmp_path).ok


def assert_only_finished_shards(root, count):
    """Every tar is whole and indexed, nothing partial is left, and the split is known to be cut short."""
    names = [*(f"train-{n:06d}.tar" for n in range(count)), "train.manifest.json"]
    assert sorted(file.name for file in root.glob("*")) == ["index.json", "records", *names]
    assert sorted(file.name for file in (root / "records").iterdir()) == [f"train-{n:06d}.tar.json" for n in range(count)]
    report = verify(root)
    assert [(p.shard, p.key) for p in report.problems] == [("split train", "")]
    with pytest.raises(
        ShardError, match=r"expected split 'train' of .* to be written to its end; it was cut short.*resume=True"
    ):
        ShardIndex.load(root).shards("train")


def test_an_exception_leaves_finished_shards_and_resume_gives_the_bytes_of_an_uninterrupted_run(tmp_path):
    write(tmp_path / "whole", range(10))
    broken = tmp_path / "broken"
    with pytest.raises(ZeroDivisionError):
        write(broken, (number + 0 * (1 // (8 - number)) for number in range(10)))
    assert_only_finished_shards(broken, 2)
    report = write_shards(map(sample, range(10)), broken, **OPTIONS, samples_per_shard=3, resume=True)
    assert (report.samples, report.skipped, report.rejects) == (4, 6, ())
    assert hashes(broken) == hashes(tmp_path / "whole")


def run(code, root, **options):
    """Run code after the definitions of this file in a process of its own."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "from test_writer import *\nroot = Path(sys.argv[1])\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.slow
def test_a_killed_process_leaves_no_file_that_looks_finished(tmp_path):
    write(tmp_path / "whole", range(10))
    killed = run(
        """
        with ShardWriter(root, **OPTIONS, samples_per_shard=3) as writer:
            for number in range(10):
                writer.write(sample(number))
                if number == 7:
                    os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "killed",
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    root = tmp_path / "killed"
    assert {p.shard for p in verify(root).problems} == {"split train", "train-000002.tar.partial"}
    assert [s.name for s in ShardIndex.load(root).splits["train"].shards] == ["train-000000.tar", "train-000001.tar"]
    write_shards(map(sample, range(10)), root, **OPTIONS, samples_per_shard=3, resume=True)
    assert hashes(root) == hashes(tmp_path / "whole")


def test_a_disk_that_takes_no_more_stops_with_the_remedy_and_keeps_finished_shards(tmp_path):
    """The kernel refuses to let a file grow beyond a limit, as a full disk would."""
    result = run(
        """
        import resource
        with ShardWriter(root, **OPTIONS, samples_per_shard=2) as writer:
            for number in range(4):
                writer.write(sample(number))
            writer.encode = lambda s, encode=writer.encode: (e := encode(s))._replace(members=e.members | {"x": bytes(10**6)})
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            writer.write(sample(4))
        """,
        tmp_path,
    )
    assert "ShardError: expected to write shards to folder" in result.stderr
    assert "the disk of" in result.stderr
    assert "is full. Finished shards are kept: free space and repeat the command, in Python with resume=True" in result.stderr
    assert_only_finished_shards(tmp_path, 2)


REFUSALS = [
    (errno.ENOSPC, r"is full. Finished shards are kept: free space and repeat the command, in Python with resume=True"),
    (errno.EDQUOT, "is full"),
    (errno.EACCES, "may not be written. Choose a folder of your own"),
    (errno.EROFS, "may not be written"),
    (errno.EIO, "failed. Finished shards are kept"),
]


@pytest.mark.parametrize(("number", "says"), REFUSALS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusal_while_a_shard_is_finished_leaves_nothing_of_it(tmp_path, monkeypatch, call, number, says):
    genuine, calls = getattr(os, call), []

    def refuse(*arguments):
        calls.append(arguments)
        if len(calls) > (8 if call == "fsync" else 4):  # a manifest, a shard, its record and the index: 8 fsyncs, 4 renames
            raise OSError(number, os.strerror(number))
        return genuine(*arguments)

    monkeypatch.setattr(shard_files.os, call, refuse)
    with pytest.raises(ShardError, match=f"expected to write shards to folder .*{says}"):
        write(tmp_path, range(10))
    monkeypatch.undo()
    assert_only_finished_shards(tmp_path, 1)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("after", range(9))
def test_wherever_the_disk_refuses_the_same_samples_end_in_the_same_bytes(tmp_path, monkeypatch, call, after):
    genuine, calls = getattr(os, call), []

    def refuse(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "full")
        return genuine(*arguments)

    monkeypatch.setattr(shard_files.os, call, refuse)
    with pytest.raises(ShardError, match="is full"):
        write_shards(map(sample, range(10)), tmp_path / "cut", **OPTIONS, samples_per_shard=3)
    monkeypatch.undo()
    write_shards(map(sample, range(10)), tmp_path / "cut", **OPTIONS, samples_per_shard=3, resume=True)
    write_shards(map(sample, range(10)), tmp_path / "whole", **OPTIONS, samples_per_shard=3)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_a_writer_that_was_refused_takes_no_more(tmp_path, monkeypatch):
    with ShardWriter(tmp_path, **OPTIONS, samples_per_shard=1) as writer:
        writer.write(sample(0))
        monkeypatch.setattr(shard_files.os, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(ShardError, match="is full"):
            writer.write(sample(1))
        monkeypatch.undo()
        with pytest.raises(ShardError, match="this writer has ended"):
            writer.write(sample(2))
    assert not list(tmp_path.glob("*.tar*"))


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "here").write_text("")
    for root in (tmp_path / "here", tmp_path / "here" / "below"):
        with pytest.raises(ShardError, match=r"is a file or lies in one. Choose another folder"):
            ShardWriter(root, **OPTIONS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; run as another user")
def test_a_folder_of_others_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ShardError, match="may not be written"):
        ShardWriter(tmp_path / "new", **OPTIONS)


def test_finished_shards_without_an_index_are_not_written_over_by_chance(tmp_path):
    write(tmp_path, range(3))
    (tmp_path / "index.json").unlink()
    with pytest.raises(ShardError, match="it has some samples"):
        write(tmp_path, range(3))
    write(tmp_path, range(5), overwrite=True)
    assert verify(tmp_path).ok
