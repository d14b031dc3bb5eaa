"""What the stream does with samples and shards that are broken."""

import tarfile

import pytest

from depthkit.errors import ShardError
from depthkit.shards import encode_sample
from tests.data.stream.small import SAMPLES, keys, loader, make, same, write


def spoil(root, keys, member="image.png"):
    """Truncate a member of some samples where it lies; the tars stay whole."""
    for path in root.glob("*.tar"):
        with tarfile.open(path) as tar:
            parts = [(m.name, m.offset_data, m.size) for m in tar if m.name.split(".")[0] in keys and m.name.endswith(member)]
        with path.open("r+b") as file:
            for _, offset, size in parts:
                file.seek(offset + size // 2)
                file.write(bytes(size - size // 2))


@pytest.fixture
def spoilable(tmp_path):
    return write(tmp_path, map(make, range(SAMPLES)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_is_replaced_counted_and_named_and_moves_no_other(spoilable, workers):
    expected = list(loader(spoilable, workers=workers))
    spoil(spoilable, {"s007"})
    stream = loader(spoilable, workers=workers)
    with pytest.warns(UserWarning, match=r"train-000001.tar, sample 's007': image.png: expected a whole"):
        batches = list(stream)
    assert len(stream.broken) == 1
    assert sum(map(len, batches)) == SAMPLES
    moved = [(a, b) for a, b in zip(keys(batches), keys(expected), strict=True) if a != b]
    assert [b for _, b in moved] == ["s007"]


def test_a_broken_sample_is_left_out_of_an_evaluation_and_counted(spoilable):
    spoil(spoilable, {"s007", "s011"})
    stream = loader(spoilable, training=False, batch_size=1)
    with pytest.warns(UserWarning, match="skipped a broken sample"):
        batches = list(stream)
    assert keys(batches) == [f"s{i:03d}" for i in range(SAMPLES) if i not in (7, 11)]
    assert len(batches) == SAMPLES
    assert len(stream.broken) == 2


@pytest.mark.filterwarnings("ignore:skipped a broken sample")
def test_resume_replaces_a_broken_sample_by_the_same_one(spoilable):
    spoil(spoilable, {"s003", "s007", "s020"})
    expected = list(loader(spoilable))
    for stop in range(1, 7):
        stream = loader(spoilable)
        stream.load_state_dict({"epoch": 0, "batch": stop, "fingerprint": stream.stream.fingerprint})
        same(stream, expected[stop:])


@pytest.mark.filterwarnings("ignore:skipped a broken sample")
def test_more_broken_samples_than_allowed_stop_the_run(spoilable):
    spoil(spoilable, {f"s{i:03d}" for i in (1, 2, 5, 9, 14)})
    with pytest.raises(
        ShardError, match=r"3 of 27 samples \(11.1%\) are broken, more than max_broken_fraction allows \(2\).*'s0"
    ):
        list(loader(spoilable, broken=0.05))


@pytest.mark.filterwarnings("ignore:skipped a broken sample")
def test_a_rank_bears_the_fraction_of_what_it_reads_itself(spoilable):
    spoil(spoilable, {"s001", "s004", "s009"})
    with pytest.raises(ShardError, match=r"3 of 14 samples \(21.4%\) are broken, more than max_broken_fraction allows \(2\)"):
        list(loader(spoilable, world=2, training=False, broken=0.1))
    assert len(keys(loader(spoilable, world=2, rank=1, training=False, broken=0.1))) == 13
    assert len(keys(loader(spoilable, training=False, broken=0.1))) == 24


@pytest.mark.filterwarnings("ignore:skipped a broken sample")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_without_a_readable_sample_stops_the_run_at_once(spoilable, workers):
    spoil(spoilable, {f"s{i:03d}" for i in range(SAMPLES)})
    with pytest.raises(ShardError, match=r"\b100 samples in a row of dataset 'a' are broken"):
        list(loader(spoilable, workers=workers, broken=1))
    with pytest.raises(ShardError, match=r"\b100 samples in a row of dataset 'a' are broken"):
        list(loader(spoilable, workers=workers, broken=1, training=False))


def test_a_label_of_another_size_is_a_broken_sample(tmp_path):
    write(tmp_path, map(make, range(4)))
    swap(tmp_path / "train-000000.tar", "s001", encode_sample(make(1, (10, 16)), image_format="png")["image.png"])
    with pytest.warns(UserWarning, match=r"sample 's001'.*size"):
        assert "s001" not in keys(loader(tmp_path))


def swap(path, key, image):
    """Rewrite a shard with another image in one sample."""
    import io

    with tarfile.open(path) as tar:
        parts = [(m.name, tar.extractfile(m).read()) for m in tar]
    with tarfile.open(path, "w") as tar:
        for name, data in parts:
            data = image if name == f"{key}.image.png" else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda path: path.unlink(), "train-000002.tar, which the index lists; it is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "train-000002.tar"),
        (lambda path: path.write_bytes(b"no tar at all" * 100), "train-000002.tar to be a whole tar"),
        (
            lambda path: path.write_bytes((path.parent / "train-000006.tar").read_bytes()),
            "4 samples in .*train-000002.tar, as the index says; got 3",
        ),
        (
            lambda path: (path.parent / "train-000006.tar").write_bytes(path.read_bytes()),
            "3 samples in .*train-000006.tar, as the index says; got more",
        ),
    ],
    ids=["missing", "cut short", "no tar", "too few", "too many"],
)
def test_shards_that_are_not_what_the_index_says_stop_the_run(spoilable, harm, match, workers):
    harm(spoilable / "train-000002.tar")
    with pytest.raises(ShardError, match=match):
        list(loader(spoilable, workers=workers))
