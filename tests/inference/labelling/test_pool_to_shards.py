"""Pools, the values that are stored, and a folder of labels that survives its writer, without a network or Lightning."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from depthkit.data import ShardIndex, ShardWriter, verify
from depthkit.errors import LabelError, PredictionError, ShardError
from depthkit.evaluation import InputResize
from depthkit.inference.labelling import (
    LabelFolder,
    PoolReader,
    open_pool,
    pool_loader,
    stored_kind,
    stored_label,
)
from depthkit.shards import decode_sample
from depthkit.shards.reading import read_shard
from depthkit.shards.records import Reject
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

AFFINE = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
FACTS = {"depthkit": "1", "teacher": {"name": "a.ckpt", "weights_sha256": "1f"}}


def picture(i, size=(20, 30)):
    return np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    (root / "in.ner").mkdir(parents=True)
    for i, name in enumerate(("b.jpg", "a.png", "a.jpg", "in.ner/c d.webp", "é.jpg")):
        Image.fromarray(picture(i)).save(root / name)
    return root


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "pool"
    with ShardWriter(root, split="train", dataset="pool", licence="free", samples_per_shard=2) as writer:
        for i in range(5):
            camera = np.array([[30.0, 0, 15], [0, 30, 10], [0, 0, 1]])
            writer.write(Sample(f"s{i}", picture(i), intrinsics=camera))
    return root


def fill(folder, piece, label=None):
    """Label a piece with brightness, as a teacher would."""
    shard = folder.begin(piece)
    for position, (_, found) in enumerate(folder.pool.read(piece)):
        values = np.random.default_rng(position).random((20, 30)) if label is None else label
        shard.put(position, folder.encode(found, *stored_label(values, folder.kind)))
    shard.finish()


def samples(root, split="train"):
    index = ShardIndex.load(root)
    for shard in index.shards(split):
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples):
            yield raw, decode_sample(raw.key, raw.members, where=shard.name)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4).filter(lambda x: max(x) - min(x) > 1e-3))
def test_an_affine_label_is_the_map_up_to_scale_and_shift_from_0_to_1(values):
    x = np.array(values, np.float32).reshape(2, 2)
    label, valid, _ = stored_label(x, AFFINE)
    assert label.min() == 0
    assert label.max() == 1
    assert valid.all()
    np.testing.assert_allclose(label * (x.max() - x.min()) + x.min(), x, atol=1e-3)


@settings(max_examples=20)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_an_affine_label_does_not_change_with_what_is_not_known(scale, shift):
    x = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    np.testing.assert_allclose(stored_label(x * scale + shift, AFFINE)[0], stored_label(x, AFFINE)[0], atol=1e-5)


def test_sky_is_farthest_and_valid_and_does_not_scale_the_rest():
    x = np.array([[9.0, 2.0, 4.0]])
    sky = np.array([[True, False, False]])
    label, valid, _ = stored_label(x, AFFINE, sky)
    assert (label.tolist(), valid.all()) == ([[0, 0, 1]], True)
    label, valid, _ = stored_label(x, METRIC, sky)
    assert (label.tolist(), valid.all()) == ([[np.inf, 2, 4]], True)


def test_depth_comes_from_whatever_a_metric_teacher_predicts():
    depth = np.array([[0.5, 4.0]], np.float32)
    for representation, values in (("depth", depth), ("disparity", 1 / depth), ("log_depth", np.log(depth))):
        teacher = LabelKind(Ambiguity.METRIC, Representation(representation))
        np.testing.assert_allclose(stored_label(values, teacher)[0], depth, rtol=1e-6)
        assert stored_kind(teacher) == METRIC


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([[1.0, np.nan]], AFFINE, "finite prediction"),
        ([[3.0, 3.0]], AFFINE, "disparity that varies"),
        ([[-1.0, 0.0]], METRIC, "no pixel has one"),
    ],
)
def test_a_map_that_is_no_label_says_so(values, kind, message):
    with pytest.raises(PredictionError, match=message):
        stored_label(np.array(values), kind)
    with pytest.raises(PredictionError, match="all of it is sky"):
        stored_label(np.ones((1, 2)), kind, np.ones((1, 2), bool))


def test_a_teacher_whose_predictions_are_no_labels_is_refused():
    with pytest.raises(LabelError, match="choose another teacher"):
        stored_kind(LabelKind(Ambiguity.SHIFT_SCALE, Representation.DEPTH))


def test_a_pool_of_shards_is_cut_as_the_shards_are_and_kept_byte_for_byte(shards, tmp_path):
    pool = open_pool(shards)
    assert [(piece.shard, piece.images) for piece in pool.pieces] == [
        ("train-000000.tar", 2), ("train-000001.tar", 2), ("train-000002.tar", 1)
    ]  # fmt: skip
    folder = LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)
    for piece in pool.pieces:
        fill(folder, piece)
    assert folder.complete().complete
    verify(tmp_path / "out").check()
    index = ShardIndex.load(tmp_path / "out")
    assert (index.dataset, index.licence, index.kind("train"), index.samples("train")) == ("pool", "free", AFFINE, 5)
    assert index.split("train").intrinsics
    for (before, sample), (after, labelled) in zip(samples(shards), samples(tmp_path / "out"), strict=True):
        assert before.key == after.key
        assert before.members["image.jpg"] == after.members["image.jpg"]
        assert np.array_equal(sample.intrinsics, labelled.intrinsics)
        assert labelled.kind == AFFINE


def test_a_folder_of_images_is_cut_into_pieces_and_kept_byte_for_byte(photos, tmp_path):
    pool = open_pool(photos, images_per_shard=2)
    assert [piece.images for piece in pool.pieces] == [2, 2, 1]
    folder = LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)
    for piece in pool.pieces:
        fill(folder, piece)
    folder.complete()
    found = list(samples(tmp_path / "out"))
    assert len({raw.key for raw, _ in found}) == 5
    for raw, sample in found:
        stored = next(data for name, data in raw.members.items() if name.startswith("image."))
        assert stored == (photos / sample.source["image"]).read_bytes()


def test_a_photo_taken_on_its_side_is_stored_upright(tmp_path):
    (tmp_path / "photos").mkdir()
    flag = Image.Exif()
    flag[0x0112] = 6
    Image.fromarray(picture(0)).save(tmp_path / "photos" / "a.jpg", exif=flag)
    pool = open_pool(tmp_path / "photos")
    (_, found), = pool.read(pool.pieces[0])  # fmt: skip
    assert Image.open(io.BytesIO(found.members["image.jpg"])).size == (20, 30)


@pytest.mark.parametrize(
    ("depth_format", "kind", "bound"),
    [
        ("png_log16", AFFINE, 0.5 / 65533),
        ("png_linear16", METRIC, 0.0005),
        ("png_log16", METRIC, None),
    ],
)
def test_labels_come_back_within_the_stated_step(shards, tmp_path, depth_format, kind, bound):
    pool = open_pool(shards)
    folder = LabelFolder(tmp_path / "out", pool, kind, FACTS, depth_format=depth_format)
    values = np.random.default_rng(5).uniform(0.3, 60, (20, 30)).astype(np.float32)
    for piece in pool.pieces:
        fill(folder, piece, values)
    folder.complete()
    truth = stored_label(values, kind)[0]
    for _, sample in samples(tmp_path / "out"):
        error = np.abs(sample.label - truth) if bound else np.abs(np.log(sample.label / truth))
        assert error.max() <= (bound or 2.0**-13) * 1.001 + 1e-6 * (kind == METRIC)


def test_sky_is_read_back_with_its_mask(shards, tmp_path):
    sky = np.zeros((20, 30), bool)
    sky[:5] = True
    for number, kind in enumerate((AFFINE, METRIC)):
        pool = open_pool(shards)
        folder = LabelFolder(tmp_path / f"out{number}", pool, kind, FACTS)
        for piece in pool.pieces:
            shard = folder.begin(piece)
            for position, (_, found) in enumerate(pool.read(piece)):
                values = np.random.default_rng(position).random((20, 30)) + 1
                shard.put(position, folder.encode(found, *stored_label(values, kind, sky)))
            shard.finish()
        folder.complete()
        for _, sample in samples(tmp_path / f"out{number}"):
            assert np.array_equal(sample.sky, sky)
            assert sample.valid.all()
            assert (sample.label[sky] == (0 if kind == AFFINE else np.inf)).all()


def test_samples_lie_in_the_pools_order_whatever_order_they_come_in(shards, tmp_path):
    pool, trees = open_pool(shards), []
    for number, order in enumerate(([0, 1], [1, 0])):
        folder = LabelFolder(tmp_path / str(number), pool, AFFINE, FACTS)
        found = list(pool.read(pool.pieces[0]))
        shard = folder.begin(pool.pieces[0])
        for position in order:
            _, image = found[position]
            shard.put(position, folder.encode(image, *stored_label(picture(position)[..., 0], AFFINE)))
        shard.finish()
        trees.append((tmp_path / str(number) / "train-000000.tar").read_bytes())
    assert trees[0] == trees[1]


def test_a_shard_that_was_not_finished_leaves_nothing_and_is_still_to_do(shards, tmp_path):
    pool = open_pool(shards)
    folder = LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)
    fill(folder, pool.pieces[0])
    shard = folder.begin(pool.pieces[1])
    ((_, image), _) = pool.read(pool.pieces[1])
    shard.put(0, folder.encode(image, *stored_label(picture(0)[..., 0], AFFINE)))
    shard.discard()
    there = ["index.json", "records", "train-000000.tar", "train.manifest.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == there
    again = LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)
    assert again.remaining(pool.pieces) == list(pool.pieces[1:])
    assert not again.complete().complete
    with pytest.raises(ShardError, match="cut short"):
        ShardIndex.load(tmp_path / "out").split("train")


def test_two_processes_do_not_write_the_same_shard(shards, tmp_path):
    folder = LabelFolder(tmp_path / "out", open_pool(shards), AFFINE, FACTS)
    shard = folder.begin(folder.pool.pieces[0])
    with pytest.raises(ShardError, match=r"another process is writing split 'train' of .* \(train-000000\.tar\)"):
        folder.begin(folder.pool.pieces[0])
    shard.discard()


def test_a_shard_needs_every_image_of_its_piece(shards, tmp_path):
    folder = LabelFolder(tmp_path / "out", open_pool(shards), AFFINE, FACTS)
    shard = folder.begin(folder.pool.pieces[0])
    shard.put(0, Reject("s0", "it is torn"))
    with pytest.raises(ShardError, match="expected 2 samples for train-000000"):
        shard.finish()
    shard.put(1, Reject("s1", "it is torn"))
    shard.finish()
    assert folder.records["train-000000.tar"].left_out == (("s0", "it is torn"), ("s1", "it is torn"))


def test_a_pool_of_which_nothing_can_be_labelled_is_an_error(shards, tmp_path):
    folder = LabelFolder(tmp_path / "out", open_pool(shards), AFFINE, FACTS)
    for piece in folder.pool.pieces:
        shard = folder.begin(piece)
        for position in range(piece.images):
            shard.put(position, Reject(f"s{position}", "it is torn"))
        shard.finish()
    with pytest.raises(ShardError, match="got none, 5 were left out; the first, s0: it is torn"):
        folder.complete()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": {"name": "a.ckpt", "weights_sha256": "2e"}}, "their teacher weights_sha256 was '1f' and is '2e' now"),
        ({"sky": {"name": "segformer"}}, "their sky was None"),
        ({"depthkit": "2"}, "their depthkit was .* and is '2' now"),
    ],
)
def test_labels_of_another_teacher_are_not_mixed_in(shards, tmp_path, change, message):
    pool = open_pool(shards)
    LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)
    with pytest.raises(ShardError, match=message):
        LabelFolder(tmp_path / "out", pool, AFFINE, {**FACTS, **change})
    with pytest.raises(ShardError, match="their label ambiguity was 'shift_scale' and is 'metric'"):
        LabelFolder(tmp_path / "out", pool, METRIC, FACTS)


def test_a_folder_of_something_else_or_of_another_pool_is_refused(shards, photos, tmp_path):
    pool = open_pool(shards)
    with pytest.raises(ShardError, match=r"holds a\.jpg and no manifest"):
        LabelFolder(photos, pool, AFFINE, FACTS)
    LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)
    with pytest.raises(ShardError, match="their pool dataset was 'pool' and is 'photos'"):
        LabelFolder(tmp_path / "out", open_pool(photos), AFFINE, FACTS)
    (tmp_path / "out" / "train.manifest.json").write_text("{")
    with pytest.raises(ShardError, match="does not read"):
        LabelFolder(tmp_path / "out", pool, AFFINE, FACTS)


def test_a_pool_that_is_none_says_what_is_missing(shards, tmp_path):
    (tmp_path / "empty").mkdir()
    for root, options, message in (
        (tmp_path / "nowhere", {}, "there is none"),
        (tmp_path / "empty", {}, "found none"),
        (shards, {"split": "test"}, "got 'test'"),
    ):
        with pytest.raises(ShardError, match=message):
            open_pool(root, **options)
    with ShardWriter(shards, split="val", dataset="pool") as writer:
        writer.write(Sample("a", picture(0)))
    with pytest.raises(ShardError, match=r"it has train, val\. Give --split"):
        open_pool(shards)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_image_is_in_one_batch_of_its_size_or_counted_as_broken(tmp_path, batch_size):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(40):
        Image.fromarray(picture(i, [(20, 30), (40, 20), (16, 16)][i % 3])).save(root / f"{i:02d}.png")
    (root / "17.png").write_bytes((root / "17.png").read_bytes()[:200])
    (root / "05.png").write_bytes(b"no picture")
    pool = open_pool(root, images_per_shard=25)
    resize = InputResize(32, "lower_bound", multiple=8)
    reader = PoolReader(pool, pool.pieces, resize=resize, multiple=8, batch_size=batch_size)
    seen, broken, ends = [], [], []
    for batch in pool_loader(reader):
        assert len(batch.images) == len(batch.entries) <= batch_size
        for entry, image in zip(batch.entries, batch.images, strict=True):
            assert tuple(image.shape[1:]) == resize.size(*entry.size)
        seen += [(batch.piece.shard, entry.position) for entry in batch.entries]
        broken += [(batch.piece.shard, found.position) for found in batch.broken]
        ends += [batch.piece.shard] * batch.last
    assert sorted(seen + broken) == [(p.shard, i) for p in pool.pieces for i in range(p.images)]
    assert broken == [("train-000000.tar", 5), ("train-000000.tar", 17)]
    assert ends == [piece.shard for piece in pool.pieces]


def test_batches_are_as_large_as_the_piece_allows_however_sizes_alternate(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(48):
        Image.fromarray(picture(i, (8 + 8 * (i % 12), 8))).save(root / f"{i:02d}.png")
    pool = open_pool(root, images_per_shard=48)
    reader = PoolReader(pool, pool.pieces, resize=InputResize(rule="native", multiple=8), multiple=8, batch_size=2)
    sizes = [len(batch.entries) for batch in pool_loader(reader) if batch.entries]
    assert sizes == [2] * 24


def test_jobs_of_one_folder_list_it_once(photos, tmp_path, monkeypatch):
    first = open_pool(photos, listing=tmp_path / "out")
    monkeypatch.setattr("depthkit.inference.labelling.pool.find_images", None)
    assert open_pool(photos, listing=tmp_path / "out") == first
    (tmp_path / "other").mkdir()
    with pytest.raises(TypeError):  # another pool is listed itself
        open_pool(tmp_path / "other", listing=tmp_path / "out")


def test_worker_processes_read_the_same_batches(shards):
    pool = open_pool(shards)

    def batches(workers):
        reader = PoolReader(pool, pool.pieces, resize=InputResize(32), multiple=32, batch_size=2)
        found = [batch for batch in pool_loader(reader, num_workers=workers) if batch.entries]
        assert [batch.piece.shard for batch in found] == sorted(batch.piece.shard for batch in found)  # one under way
        return found

    for one, two in zip(batches(0), batches(2), strict=True):
        assert [entry.image.key for entry in one.entries] == [entry.image.key for entry in two.entries]
        assert torch.equal(one.images, two.images)


def test_the_index_counts_what_was_labelled_and_what_was_not(shards, tmp_path):
    folder = LabelFolder(tmp_path / "out", open_pool(shards), AFFINE, FACTS)
    for piece in folder.pool.pieces[:2]:
        fill(folder, piece)
    shard = folder.begin(folder.pool.pieces[2])
    shard.put(0, Reject("s4", "it is torn"))
    shard.finish()
    info = ShardIndex.load(tmp_path / "out").split("train")
    assert (info.samples, info.left_out, info.complete) == (4, 1, True)
    assert 0 < info.range[0] < info.range[1] < info.range[2] <= 1.01
    assert folder.records["train-000002.tar"].left_out == (("s4", "it is torn"),)


def test_two_splits_of_a_pool_are_labelled_into_one_folder(shards, tmp_path):
    with ShardWriter(shards, split="val", dataset="pool") as writer:
        writer.write(Sample("a", picture(0)))
    for split in ("train", "val"):
        folder = LabelFolder(tmp_path / "out", open_pool(shards, split=split), AFFINE, FACTS)
        for piece in folder.pool.pieces:
            fill(folder, piece)
    assert {name: info.complete for name, info in ShardIndex.load(tmp_path / "out").splits.items()} == {
        "train": True,
        "val": True,
    }
    verify(tmp_path / "out").check()
