"""Laws of the stream, through real shards: what is read, in which order, and what a broken sample does."""

import json
import math
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.plan import AUGMENTATION, generator
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop, Transform
from depthkit.data.transforms.geometric import BottomCrop, CenterCrop, RandomRotation, Resize
from depthkit.errors import DepthKitError, ShapeError
from depthkit.shards import decode_sample
from depthkit.shards.reading import read_shard
from depthkit.types import Sample
from tests.data.stream.small import SAMPLES, keys, loader, make, same, write


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), map(make, range(SAMPLES)))


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


class Brightness(Transform):
    """Looks at labels, unlike what moves pixels only."""

    def __call__(self, sample, rng):
        return sample.replace(label=sample.label * np.float32(rng.uniform(1, 2)))


def by_the_book(members, transforms, place):
    """A sample as OpenCV reads it, with its label's values first and everything else after."""
    image = cv2.imdecode(np.frombuffer(members["image.png"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    codes = cv2.imdecode(np.frombuffer(members["depth.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    facts = json.loads(members["meta.json"])["depth"]
    assert (facts["encoding"], facts["infinity"]) == ("log", 65535)
    label = np.exp(facts["offset"] + facts["step"] * codes.astype(np.float64)).astype(np.float32)
    label, valid = np.where(codes == 65535, np.float32(np.inf), np.where(codes > 0, label, 0)), codes > 0
    sample, rng = (
        Sample("", np.ascontiguousarray(image), label, valid, sky=codes == 65535),
        generator(AUGMENTATION, 0, 0, place),
    )
    for transform in transforms:
        sample = transform(sample, rng)
    return sample


@pytest.mark.parametrize(
    "transforms",
    [
        [RandomResizedCrop((8, 8)), HorizontalFlip()],
        [Compose([Resize((9, 12)), CenterCrop((9, 10))]), Brightness(), HorizontalFlip()],
        [Brightness(), RandomResizedCrop((20, 30))],
        [RandomRotation(20), BottomCrop((7, 9))],
        [],
    ],
    ids=["crop", "nested", "values first", "rotation", "none"],
)
def test_pixels_and_values_are_those_of_the_plain_way_to_the_last_bit(tmp_path, transforms):
    def sample(i):
        label = np.random.default_rng(i).uniform(0.5, 80, (12, 16)).astype(np.float32)
        label[:3] = np.inf
        return make(i).replace(label=label, valid=label > 5, frames={}, intrinsics=np.eye(3))

    write(tmp_path, map(sample, range(4)))
    data = DepthDataModule([ShardSource(str(tmp_path))], batch_size=4, size=(8, 8), transform=Compose(transforms))
    stream = replace(data.train_dataloader().stream)
    dataset = replace(stream.datasets[0], size=None)
    (batch,) = Loader(replace(stream, datasets=(dataset,), plan=replace(stream.plan, shuffle=False)))
    raws = list(read_shard(dataset.urls[0], 0, 4, total=4))
    for row, raw in enumerate(raws):
        expected = by_the_book(raw.members, transforms, row)
        assert torch.equal(batch.image[row], torch.from_numpy(expected.image.copy()).permute(2, 0, 1).float() / 255)
        for got, wanted in ((batch.target, expected.label), (batch.valid, expected.valid), (batch.sky, expected.sky)):
            assert np.array_equal(got[row, 0].numpy(), wanted)


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


@pytest.mark.quick(stop=["0", "3", "7"])
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


@pytest.mark.quick(before=["0", "4"])
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
