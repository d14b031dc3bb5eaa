"""Laws of pools of images: every picture once, wherever it lies, stored as it is; what is no picture is counted."""

import io
import tarfile

import cv2
import numpy as np
import pytest

from depthkit.convert import pools
from depthkit.errors import DepthKitError
from depthkit.shards import ShardIndex, verify, write_shards
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity


def jpeg(level, extension=".jpg"):
    return cv2.imencode(extension, np.full((20, 30, 3), level, np.uint8))[1].tobytes()


def write_tar(file, members):
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def root(tmp_path):
    """A folder of pictures at two depths and a tar, as pools come in."""
    (tmp_path / "pool/b/c").mkdir(parents=True)
    for name, level in (("x.jpg", 10), ("b/y.JPEG", 20), ("b/c/z.png", 30), ("b/c/z.w.webp", 40)):
        (tmp_path / "pool" / name).write_bytes(jpeg(level, f".{name.lower().rpartition('.')[2]}"))
    (tmp_path / "pool/readme.txt").write_text("hello")
    write_tar(tmp_path / "pool/sa_000000.tar", {"./sa_1.jpg": jpeg(50), "sa_1.json": b"{}", "deep/sa 2.jpg": jpeg(60)})
    return tmp_path / "pool"


def test_every_picture_is_found_once_in_folders_and_tars_by_a_key_without_dots(root):
    pool = pools.pools(root)
    levels = {pool.key(i): round(float(sample.image.mean())) for i, sample in enumerate(pool)}
    assert levels == {"x": 10, "b/y": 20, "b/c/z": 30, "b/c/z_w": 40, "sa_000000/sa_1": 50, "sa_000000/deep/sa_2": 60}
    assert [sample.key for sample in pool] == list(levels)
    assert all(sample.ambiguity == Ambiguity.UNLABELLED for sample in pool)


def test_one_tar_and_a_list_are_pools_too(root, tmp_path):
    assert [s.key for s in pools.pools(root / "sa_000000.tar")] == ["sa_000000/sa_1", "sa_000000/deep/sa_2"]
    (tmp_path / "list.txt").write_text("b/y.JPEG\n\nsa_000000.tar\nreadme.txt\n")
    pool = pools.pools(root, split_file=tmp_path / "list.txt")
    assert (pool.key(0), len(pool)) == ("b/y", 3)
    assert pool.rejects == (("readme.txt", "it is no image"),)


def test_jpegs_are_stored_byte_for_byte_out_of_folders_and_tars(root, tmp_path):
    report = write_shards(pools.pools(root), tmp_path / "out", split="train", dataset="pool", originals=root)
    assert report.samples == 6
    shard = ShardIndex.load(tmp_path / "out").split("train").shards[0]
    raw = {r.key: r.members for r in read_shard(str(tmp_path / "out" / shard.name), 0, 6, total=6)}
    assert raw["b/y"]["image.jpg"] == jpeg(20)
    assert raw["sa_000000/sa_1"]["image.jpg"] == jpeg(50)
    assert raw["b/c/z_w"]["image.webp"] == jpeg(40, ".webp")
    verify(tmp_path / "out").check()


def test_what_is_broken_or_packed_is_counted_and_the_others_are_written(root, tmp_path):
    (root / "a.zip").write_bytes(b"PK")
    (root / "broken.jpg").write_bytes(jpeg(1)[:-30])
    (root / "cut.tar").write_bytes((root / "sa_000000.tar").read_bytes()[:700])
    report = write_shards(pools.pools(root), tmp_path / "out", split="train", dataset="pool")
    reasons = {reject.name: reject.reason for reject in report.rejects}
    assert set(reasons) == {"a.zip", "broken", "cut.tar", "cut/sa_1"}
    assert "unpack it" in reasons["a.zip"]
    assert "truncated" in reasons["broken"].lower()
    assert "cut.tar to be a whole tar" in reasons["cut.tar"]
    assert report.samples == 6


def test_names_too_long_for_a_tar_get_short_keys_of_their_own(tmp_path):
    for letter in "ab":
        (tmp_path / (letter * 120)).mkdir()
        (tmp_path / (letter * 120) / "picture.jpg").write_bytes(jpeg(5))
    keys = [sample.key for sample in pools.pools(tmp_path)]
    assert len(set(keys)) == 2
    assert all(len(key) <= 80 for key in keys)


def test_a_folder_without_pictures_and_a_zip_are_refused(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"x")
    with pytest.raises(DepthKitError, match=r"expected images, or tars of images, under .*; found data.mdb"):
        pools.pools(tmp_path)
    (tmp_path / "pool.zip").write_bytes(b"PK")
    with pytest.raises(DepthKitError, match=r"found an archive. Unpack it first"):
        pools.pools(tmp_path / "pool.zip")


def test_real_photographs_are_the_same_out_of_a_folder_and_out_of_a_tar(real, tmp_path):
    folder = real("unlabelled_photos") / "rgb"
    files = sorted(folder.iterdir())[:4]
    write_tar(tmp_path / "photos.tar", {file.name: file.read_bytes() for file in files})
    loose, packed = pools.pools(folder), pools.pools(tmp_path / "photos.tar")
    for n, file in enumerate(files):
        np.testing.assert_array_equal(packed[n].image, loose[n].image)
        assert (loose.key(n), packed.key(n)) == (file.stem, f"photos/{file.stem}")
    report = write_shards(packed, tmp_path / "out", split="train", dataset="photos", originals=packed.root)
    assert (report.samples, report.rejects) == (len(files), ())
    verify(tmp_path / "out").check()
