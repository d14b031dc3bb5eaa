"""Laws of the datamodule."""

import numpy as np
import pytest
import torch

from depthkit.data import (
    DepthDataModule,
    EqualParts,
    LabelledUnlabelled,
    OneDatasetPerBatch,
    Proportional,
    ShardSource,
    ShardWriter,
    Weighted,
)
from depthkit.data.transforms import CenterCrop, Resize
from depthkit.errors import RecipeError, ShapeError, ShardError
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)


def write(root, name, n, split="train", kind=METRIC, per_shard=3, size=(20, 30)):
    with ShardWriter(root / name, split=split, dataset=name, samples_per_shard=per_shard) as writer:
        for i in range(n):
            image = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
            label = None if kind.ambiguity is Ambiguity.UNLABELLED else np.full(size, 1.0 + i, np.float32)
            valid = None if label is None else np.ones(size, bool)
            K = np.array([[40.0, 0, 15], [0, 40, 10], [0, 0, 1]])
            writer.write(Sample(f"{name}{i}", image, label, valid, *kind, intrinsics=K))
    return ShardSource(str(root / name), split)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    disparity = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    unlabelled = LabelKind(Ambiguity.UNLABELLED, Representation.DEPTH)
    return [write(root, "a", 13), write(root, "b", 6, kind=disparity), write(root, "c", 21, kind=unlabelled)]


def test_a_batch_says_for_each_row_where_it_comes_from_and_what_its_label_is(sources):
    data = DepthDataModule(sources, batch_size=7, size=(16, 16))
    assert data.dataset_names == ("a", "b", "c")
    kinds = [str(kind) for kinds in data.label_kinds for kind in kinds]
    assert kinds == ["metric depth", "shift_scale disparity", "unlabelled depth"]
    for batch in data.train_dataloader():
        assert batch.image.shape == (7, 3, 16, 16)
        assert batch.image.dtype == torch.float32
        for key, d, valid in zip(batch.keys, batch.dataset.tolist(), batch.valid, strict=True):
            assert key.startswith("abc"[d])
            assert valid.all() == (d < 2)
        assert batch.intrinsics.isfinite().all()


@pytest.mark.quick(share=["[1, 1, 1]", "[5, 1, 2]"])
@pytest.mark.parametrize(
    ("mixing", "share"),
    [
        (None, [1, 1, 1]),
        (EqualParts(), [1, 1, 1]),
        (Proportional(), [13, 6, 21]),
        (Weighted([5, 1, 2]), [5, 1, 2]),
        (LabelledUnlabelled(), [13 / 19, 6 / 19, 2]),
    ],
)
def test_realised_frequencies_are_those_of_the_mixing(sources, mixing, share):
    data = DepthDataModule(sources, mixing=mixing, batch_size=6, size=(8, 8), epoch_size=600)
    counts = sum(torch.bincount(batch.dataset, minlength=3) for batch in data.train_dataloader())
    np.testing.assert_allclose(counts, 600 * np.array(share) / sum(share), atol=2)


def test_sources_of_different_sizes_take_batches_in_turn(sources):
    """Nine batches of ten from one, as Marigold mixes rooms with drives, each in the size of its own."""
    mixed = [sources[0], ShardSource(sources[1].root, size=(8, 24))]
    options = {"batch_size": 2, "size": (16, 16), "epoch_size": 80}
    data = DepthDataModule(mixed, mixing=OneDatasetPerBatch([0.9, 0.1]), **options)
    seen = [(batch.image.shape[-2:], batch.dataset.tolist()) for batch in data.train_dataloader()]
    assert seen.count(((16, 16), [0, 0])) == 36
    assert seen.count(((8, 24), [1, 1])) == 4
    with pytest.raises(RecipeError, match=r"images of one size in a batch; EqualParts\(\) mixes .*\(16, 16\), \(8, 24\)"):
        DepthDataModule(mixed, **options).train_dataloader()


def test_an_epoch_of_given_size_has_so_many_samples(sources):
    loader = DepthDataModule(sources, batch_size=5, epoch_size=72, size=(8, 8)).train_dataloader()
    assert len(loader) == 14
    assert len(list(loader)) == 14


def test_a_source_is_transformed_before_the_rest_and_validation_by_its_own_transform_only(sources):
    source = ShardSource(sources[0].root, transform=CenterCrop((10, 10)))
    data = DepthDataModule([source], val_sources=[source, sources[1]], batch_size=2, size=(8, 8))
    assert next(iter(data.train_dataloader())).image.shape[-2:] == (8, 8)
    cropped, native = (next(iter(loader)) for loader in data.val_dataloader())
    assert cropped.image.shape == (1, 3, 10, 10)
    assert native.image.shape == (1, 3, 20, 30)
    torch.testing.assert_close(cropped.intrinsics[0, :2, 2], torch.tensor([5.0, 5.0]))
    assert data.val_names == ("a", "b")


def test_wrong_settings_name_the_setting_and_the_remedy(sources, tmp_path):
    with pytest.raises(RecipeError, match=r"data.batch_size of at least 1; got 0"):
        DepthDataModule(sources, batch_size=0)
    with pytest.raises(RecipeError, match=r"data.sources is empty"):
        DepthDataModule().train_dataloader()
    with pytest.raises(RecipeError, match=r"data.test_sources is empty"):
        DepthDataModule().test_dataloader()
    with pytest.raises(RecipeError, match="one weight of Weighted per training source, 3; got 2"):
        DepthDataModule(sources, mixing=Weighted([1, 2])).train_dataloader()
    with pytest.raises(ShardError, match="at least 100 samples per epoch"):
        DepthDataModule(sources, batch_size=100).train_dataloader()
    with pytest.raises(ShardError, match=r"there is no index.json"):
        DepthDataModule([ShardSource(str(tmp_path))]).train_dataloader()
    with pytest.raises(ShapeError, match=r"samples of \(8, 8\).* from the transform of 'a'; got \(9, 9\)"):
        next(iter(DepthDataModule(sources, transform=Resize((9, 9)), size=(8, 8), batch_size=2).train_dataloader()))


def test_sources_of_one_name_are_refused(tmp_path):
    with ShardWriter(tmp_path, split="train", dataset="twin", samples_per_shard=1) as writer:
        for sample in SyntheticScenes(2, size=(16, 16), kind="room"):
            writer.write(sample)
    module = DepthDataModule([ShardSource(str(tmp_path)), ShardSource(str(tmp_path))])
    with pytest.raises(RecipeError, match=r"got twin\. Give each source `name:`"):
        _ = module.dataset_names
