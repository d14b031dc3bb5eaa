"""Laws of the stream, through real shards: what is read, in which order, and what a broken sample does."""

import json
import math
import tarfile
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthkit.data import DepthDataModule, ShardIndex, ShardSource, ShardWriter
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.mixing import EqualParts, Mixture
from depthkit.data.stream.plan import Plan
from depthkit.data.stream.rows import evaluation_rows, training_rows
from depthkit.data.stream.stream import Dataset, Stream
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop
from depthkit.errors import DepthKitError, ShapeError, ShardError
from depthkit.shards import decode_sample, encode_sample
from depthkit.types import Ambiguity, Sample

SAMPLES, PER_SHARD = 27, 4


def make(i: int, size=(12, 16)) -> Sample:
    image = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
    label = np.full(size, 1 + i, np.float32)
    return Sample(f"s{i:03d}", image, label, np.ones(size, bool), Ambiguity.METRIC, frames={"next": image})


def write(root, samples, per_shard=PER_SHARD, **options):
    with ShardWriter(root, split="train", dataset="a", samples_per_shard=per_shard, image_format="png", **options) as writer:
        for sample in samples:
            writer.write(sample)
    return root


def spoil(root, keys, member="image.png"):
    """Truncate a member of some samples where it lies; the tars stay whole."""
    for path in root.glob("*.tar"):
        with tarfile.open(path) as tar:
            parts = [(m.name, m.offset_data, m.size) for m in tar if m.name.split(".")[0] in keys and m.name.endswith(member)]
        with path.open("r+b") as file:
            for _, offset, size in parts:
                file.seek(offset + size // 2)
                file.write(bytes(size - size // 2))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), map(make, range(SAMPLES)))


@pytest.fixture
def spoilable(tmp_path):
    return write(tmp_path, map(make, range(SAMPLES)))


def loader(root, *, world=1, rank=0, workers=0, batch_size=4, training=True, seed=0, context=None, window=6, broken=0.5):
    index = ShardIndex.load(root)
    shards = index.shards("train")
    counts, urls = tuple(s.samples for s in shards), tuple(map(index.url, shards))
    digest = " ".join(s.sha256 for s in shards)
    if training:
        rows = training_rows(sum(counts), world=world, batch_size=batch_size, drop_last=False)
        dataset = Dataset("a", urls, counts, Compose([RandomResizedCrop((8, 8)), HorizontalFlip()]), digest)
    else:
        rows, dataset = evaluation_rows(sum(counts), world=world, batch_size=batch_size), Dataset("a", urls, counts)
    mixture = Mixture(EqualParts(), (sum(counts),), (True,))
    plan = Plan(rows, mixture, (counts,), workers=max(workers, 1), seed=seed, shuffle=training, window=window)
    stream = Stream((dataset,), plan, rank, world, replace=training)
    return Loader(stream, num_workers=workers, multiprocessing_context=context, max_broken_fraction=broken)


def keys(batches):
    return [key for batch in batches for key, real in zip(batch.keys, batch.real.tolist(), strict=True) if real]


def same(batches, others):
    for a, b in zip(batches, others, strict=True):
        assert a.keys == b.keys
        for name in ("image", "target", "valid", "intrinsics"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0, equal_nan=True)


WAYS = [(1, 0, None), (1, 2, "fork"), (2, 1, None), (2, 3, "fork"), (3, 2, "fork"), (2, 2, "spawn"), (1, 2, "forkserver")]


@pytest.mark.quick(context=("None", "fork"))
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("world", "workers", "context"), WAYS)
def test_ranks_and_workers_together_read_every_sample_exactly_once(shards, world, workers, context):
    ranks = [list(loader(shards, world=world, rank=r, workers=workers, context=context)) for r in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(key for batches in ranks for key in keys(batches)) == [f"s{i:03d}" for i in range(SAMPLES)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("world", "workers", "batch_size"), [(1, 0, 1), (3, 0, 1), (3, 2, 1), (2, 3, 4), (5, 0, 4)])
def test_evaluation_reads_every_sample_once_and_equalises_ranks_with_rows_that_are_not_real(shards, world, workers, batch_size):
    ranks = [
        list(loader(shards, world=world, rank=r, workers=workers, batch_size=batch_size, training=False)) for r in range(world)
    ]
    assert {len(batches) for batches in ranks} == {math.ceil(math.ceil(SAMPLES / world) / batch_size)}
    assert sorted(key for batches in ranks for key in keys(batches)) == [f"s{i:03d}" for i in range(SAMPLES)]
    for batch in (b for batches in ranks for b in batches):
        assert not batch.valid[~batch.real].any()


def test_more_ranks_than_samples_still_make_equal_steps(tmp_path):
    root = write(tmp_path, map(make, range(2)))
    ranks = [list(loader(root, world=3, rank=r, training=False)) for r in range(3)]
    assert [len(batches) for batches in ranks] == [1, 1, 1]
    assert sorted(key for batches in ranks for key in keys(batches)) == ["s000", "s001"]


def test_evaluation_keeps_order_size_and_pixels(shards):
    batches = list(loader(shards, training=False, batch_size=1))
    assert keys(batches) == [f"s{i:03d}" for i in range(SAMPLES)]
    image = make(5).image
    torch.testing.assert_close(batches[5].image[0], torch.from_numpy(image).permute(2, 0, 1) / 255)
    assert batches[5].target.unique() == pytest.approx(6, rel=1e-3)
    assert batches[5].intrinsics.isnan().all()


def test_order_and_augmentation_depend_on_seed_and_epoch_only(shards):
    stream = loader(shards)
    first, second = list(stream), list(stream)
    same(first, list(loader(shards)))
    assert keys(first) != keys(second)
    assert keys(first) != keys(loader(shards, seed=1))
    assert sorted(keys(first)) == sorted(keys(second))


def test_augmentation_differs_between_epochs_for_the_same_sample(shards):
    stream = loader(shards)
    first, second = ({k: i for b in stream for k, i in zip(b.keys, b.image, strict=True)} for _ in range(2))
    assert sum(not torch.equal(first[key], second[key]) for key in first) > SAMPLES / 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 3, 6, 7])
def test_a_restored_loader_goes_on_with_the_next_unseen_batch(shards, workers, stop):
    whole = loader(shards, workers=workers)
    expected = [*whole, *whole]
    interrupted = loader(shards, workers=workers)
    seen = list(islice(interrupted, stop))
    state = json.loads(json.dumps(interrupted.state_dict()))
    restored = loader(shards, workers=workers)
    restored.load_state_dict(state)
    rest = [*restored, *restored]
    same([*seen, *rest][: len(expected)], expected)


def stopped(root, batches, **options):
    """The state of a loader after some batches."""
    interrupted = loader(root, **options)
    list(islice(interrupted, batches))
    return json.loads(json.dumps(interrupted.state_dict()))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (2, 3), (2, 4), (4, 2)])
def test_another_number_of_workers_goes_on_with_the_same_batches(shards, before, after):
    expected = list(loader(shards, workers=before))
    for stop in (1, 4):
        restored = loader(shards, workers=after)
        restored.load_state_dict(stopped(shards, stop, workers=before))
        same(list(restored), expected[stop:])
    same(list(restored), list(loader_at(shards, 1, workers=after)))  # the next epoch is dealt to the workers there are


def loader_at(root, epoch, **options):
    stream = loader(root, **options)
    stream.set_epoch(epoch)
    return stream


@pytest.mark.parametrize(("before", "after"), [((1, 6), (3, 2)), ((3, 2), (1, 6)), ((2, 3), (3, 2))])
@pytest.mark.parametrize("workers", [0, 2])
def test_another_number_of_ranks_goes_on_with_the_same_samples_in_every_step(shards, before, after, workers):
    (world, size), (ranks, smaller) = before, after
    expected = [list(loader(shards, world=world, rank=r, batch_size=size)) for r in range(world)]
    rest = []
    for rank in range(ranks):
        restored = loader(shards, world=ranks, rank=rank, batch_size=smaller, workers=workers)
        restored.load_state_dict(stopped(shards, 2, world=world, batch_size=size))
        rest.append(list(restored))

    def pixels(step):
        return {key: image for b in step for key, image in zip(b.keys, b.image, strict=True)}

    for old, new in zip(list(zip(*expected, strict=True))[2:], zip(*rest, strict=True), strict=True):
        assert keys(new) == keys(old)
        assert all(torch.equal(pixels(old)[key], image) for key, image in pixels(new).items())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_one_shard_serves_any_number_of_ranks_and_workers(tmp_path):
    write(tmp_path, map(make, range(SAMPLES)), per_shard=100)
    assert len(list(tmp_path.glob("*.tar"))) == 1
    for training in (True, False):
        ranks = [list(loader(tmp_path, world=3, rank=r, workers=2, training=training)) for r in range(3)]
        assert sorted(key for batches in ranks for key in keys(batches)) == [f"s{i:03d}" for i in range(SAMPLES)]


def test_the_state_is_small(shards):
    assert len(json.dumps(loader(shards).state_dict())) < 400


def test_a_broken_off_epoch_is_followed_by_the_next_one(shards):
    expected, stream = loader(shards), loader(shards)
    next(iter(stream))
    list(expected)
    same(stream, expected)


def test_a_state_from_another_layout_is_refused_mid_epoch_and_taken_between_epochs(shards):
    stream = loader(shards)
    list(islice(stream, 2))
    other = loader(shards, world=2, batch_size=3, seed=4)
    with pytest.raises(DepthKitError, match=r"batch 2 of epoch 0: ranks \(was 1, is 2\), seed \(was 0, is 4\), batch size"):
        other.load_state_dict(stream.state_dict())
    list(stream)
    other.load_state_dict(stream.state_dict())
    assert (other.epoch, other.batch) == (2, 0)


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


def test_evaluation_batches_of_unlike_images_say_what_to_do(tmp_path):
    write(tmp_path, [make(0), make(1, (10, 16))])
    assert len(list(loader(tmp_path, training=False, batch_size=1))) == 2
    with pytest.raises(ShapeError, match=r"one size in a batch; got \(12, 16\).*s000.*\(10, 16\).*s001.*batch size of 1"):
        list(loader(tmp_path, training=False, batch_size=2))


def test_views_are_not_read_where_nobody_wants_them(shards):
    raw = next(loader(shards).stream._raw(0, 0, 1))
    assert "next.png" not in raw.members
    assert decode_sample(raw.key, raw.members, where=raw.shard).frames == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_images_may_travel_in_bytes_and_become_the_same_floats_after_the_transfer(shards, workers):
    data = DepthDataModule([ShardSource(str(shards))], batch_size=4, size=(8, 8), num_workers=workers)
    expected = list(data.train_dataloader())
    stream = data.train_dataloader()
    stream.images_in_bytes = True
    batches = list(stream)
    assert {batch.image.dtype for batch in batches} == {torch.uint8}
    same([data.on_after_batch_transfer(batch, 0) for batch in batches], expected)
    assert data.on_after_batch_transfer(expected[0], 0) is expected[0]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_images_travel_in_bytes_to_a_trainer_on_another_device(shards, device):
    strategy = SimpleNamespace(root_device=torch.device(device))
    facts = {"global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "overfit_batches": 0}
    data = DepthDataModule([ShardSource(str(shards))], val_sources=[ShardSource(str(shards))], batch_size=4, size=(8, 8))
    data.trainer = SimpleNamespace(strategy=strategy, **facts)
    assert data.train_dataloader().images_in_bytes == (device == "cuda")
    assert data.val_dataloader()[0].images_in_bytes == (device == "cuda")


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_batches_outlive_the_memory_they_came_in(shards, context):
    """Workers write to the same memory again; a batch that is kept must not change."""
    data = [
        DepthDataModule(
            [ShardSource(str(shards))], batch_size=2, size=(8, 8), epoch_size=60, num_workers=n, multiprocessing_context=context
        )
        for n in (1, 0)
    ]
    kept, expected = (list(d.train_dataloader()) for d in data)
    same(kept, expected)
    assert kept[0].image.dtype == torch.float32
