"""Laws of samples as tar members: the round trip, and a clear word about every member that is not what it should be."""

import io
import json

import cv2
import numpy as np
import pytest

from depthkit.errors import DepthKitError, LabelError, ShapeError, ShardError
from depthkit.shards import codec, decode_sample, encode_sample
from depthkit.shards.images import is_complete
from depthkit.types import Ambiguity, Representation, Sample

WHERE = "train-000007.tar"


def photo(seed=0, height=24, width=32):
    """A smooth random image, as JPEG likes them."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image, quality=80):
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def full_sample(**changes):
    """A sample in which nothing is left out."""
    rng = np.random.default_rng(1)
    label = rng.uniform(1, 60, (24, 32)).astype(np.float32)
    label[:3] = np.inf
    valid = rng.random((24, 32)) < 0.8
    pose = np.eye(4)
    pose[:3, 3] = 0.1, -1 / 3, 2e-7
    sample = Sample(
        key="scene-1/000003",
        image=photo(),
        label=label,
        valid=valid,
        ambiguity=Ambiguity.METRIC,
        representation=Representation.DEPTH,
        sky=np.isinf(label) & valid,
        intrinsics=np.array([[30.1, 0, 15.5], [0, 1 / 3 + 30, 11.5], [0, 0, 1]]),
        world_from_camera=pose,
        stereo_baseline=0.193001,
        frames={"prev": photo(1), "next": photo(2), "stereo": photo(3), "frame-12": photo(4)},
        frames_from_camera={"prev": pose, "stereo": np.eye(4)},
        pairs=np.array([[0, 0, 23, 31, 1], [3, 4, 5, 6, -1], [1, 1, 1, 2, 0]], np.int32),
        source={"image": "rgb/000003.jpg", "licence": "CC BY 4.0 — ©"},
    )
    return sample.replace(**changes)


def assert_same(a: Sample, b: Sample, *, skip=()):
    for name in set(Sample.__dataclass_fields__) - set(skip):
        x, y = getattr(a, name), getattr(b, name)
        if name in ("frames", "frames_from_camera"):
            assert x.keys() == y.keys()
            assert all(np.array_equal(x[view], y[view]) for view in x), name
        elif isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, name
            assert np.array_equal(x, y), name
        else:
            assert x == y, name


def round_trip(sample, **options):
    return decode_sample(sample.key, encode_sample(sample, **options), where=WHERE)


def test_every_field_survives_the_round_trip():
    sample = full_sample()
    got = round_trip(sample, image_format="png", depth_format="npy")
    assert_same(got, sample, skip=("label",))
    assert np.array_equal(got.label[sample.valid], sample.label[sample.valid])


def test_a_bare_photo_survives_the_round_trip_without_anything_invented():
    sample = Sample("a", photo())
    assert sorted(encode_sample(sample)) == ["image.jpg", "meta.json"]
    assert_same(round_trip(sample, image_format="png"), sample)


def test_an_ordinal_sample_needs_no_map():
    sample = Sample("a", photo(), ambiguity=Ambiguity.ORDINAL, pairs=np.array([[0, 0, 1, 1, 1]], np.int32))
    assert_same(round_trip(sample, image_format="png"), sample)


def test_encoding_again_what_was_read_gives_the_same_bytes():
    members = encode_sample(full_sample(), image_format="png")
    assert encode_sample(decode_sample("scene-1/000003", members, where=WHERE), image_format="png") == members


@pytest.mark.parametrize("depth_format", ["png_log16", "png_linear16", "npy"])
def test_sky_is_read_from_infinite_depth_and_needs_no_mask_of_its_own(depth_format):
    sample = full_sample()
    members = encode_sample(sample, depth_format=depth_format)
    assert "sky.png" not in members
    assert np.array_equal(decode_sample(sample.key, members, where=WHERE).sky, sample.sky)


@pytest.mark.parametrize("sky", [np.zeros((24, 32), bool), np.arange(24 * 32).reshape(24, 32) < 50])
def test_a_sky_mask_is_kept_where_the_label_cannot_tell_it(sky):
    affine = full_sample(
        ambiguity=Ambiguity.SHIFT_SCALE, representation=Representation.DISPARITY, sky=sky & full_sample().valid
    )
    affine = affine.replace(label=np.where(np.isinf(affine.label), 0.25, affine.label).astype(np.float32))
    assert np.array_equal(round_trip(affine).sky, affine.sky)
    unlabelled = Sample("a", photo(), sky=sky)
    assert np.array_equal(round_trip(unlabelled).sky, sky)


@pytest.mark.parametrize("unaltered", [False, True])
def test_a_jpeg_of_the_same_pixels_is_stored_byte_for_byte(unaltered):
    original = jpeg(photo())
    pixels = cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    members = encode_sample(Sample("a", pixels), originals={"image": original}, unaltered=unaltered)
    assert members["image.jpg"] == original
    assert np.array_equal(decode_sample("a", members, where=WHERE).image, pixels)


def test_an_original_of_other_pixels_is_not_stored():
    members = encode_sample(Sample("a", photo()), originals={"image": jpeg(photo(5))}, image_format="png")
    assert np.array_equal(decode_sample("a", members, where=WHERE).image, photo())


def with_orientation(data, value):
    """A JPEG whose camera noted an orientation (EXIF tag 0x0112)."""
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + value.to_bytes(2, "big") + b"\0\0\0\0\0\0"
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


@pytest.mark.parametrize("unaltered", [False, True])
def test_a_turned_jpeg_is_stored_upright_so_that_no_reader_has_to_know(unaltered):
    turned = with_orientation(jpeg(photo()), 6)
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert upright.shape == (32, 24, 3)
    members = encode_sample(Sample("a", upright), originals={"image": turned}, image_format="png", unaltered=unaltered)
    assert np.array_equal(decode_sample("a", members, where=WHERE).image, upright)
    sideways = decode_sample("a", {"image.jpg": turned, "meta.json": members["meta.json"]}, where=WHERE)
    assert sideways.image.shape == (24, 32, 3)  # like every other file of the sample, by its stored pixels


def test_a_grey_image_is_read_as_rgb():
    grey = cv2.imencode(".png", photo()[..., 0])[1].tobytes()
    members = encode_sample(Sample("a", photo())) | {"image.png": grey}
    del members["image.jpg"]
    image = decode_sample("a", members, where=WHERE).image
    assert np.array_equal(image, np.repeat(photo()[..., :1], 3, axis=2))


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_a_file_without_its_end_is_not_complete(extension, cut):
    data = cv2.imencode(extension, photo(height=64, width=96))[1].tobytes()
    assert is_complete(data)
    assert not is_complete(data[: int(len(data) * cut)])


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture():
    data = jpeg(photo(height=64, width=96))
    thumbnail = jpeg(photo(height=8, width=8))
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    assert is_complete(with_thumbnail)
    assert not is_complete(with_thumbnail[: len(thumbnail) + 200])


MEMBERS = encode_sample(full_sample())
META = json.loads(MEMBERS["meta.json"])


def meta(**changes):
    return {"meta.json": json.dumps({**META, **changes}).encode()}


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


def pickled(array):
    stream = io.BytesIO()
    np.save(stream, np.array([array], object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"image.jpg": MEMBERS["image.jpg"][:-40]}, "image.jpg: expected a whole JPEG.*truncated"),
        ({"image.jpg": b""}, "image.jpg: expected a whole JPEG, PNG or WebP file; got 0 bytes"),
        ({"image.jpg": b"<html>404</html>"}, "image.jpg: .*no image"),
        ({"next.jpg": MEMBERS["next.jpg"][:300]}, "next.jpg: .*truncated"),
        ({"depth.png": MEMBERS["depth.png"][:-200]}, "depth.png: .*truncated"),
        ({"depth.png": MEMBERS["depth.png"][:300] + b"#" * 50 + MEMBERS["depth.png"][350:]}, "depth.png: .*damaged"),
        ({"depth.png": MEMBERS["image.jpg"]}, "depth.png: expected a 16-bit PNG with one channel; got uint8"),
        ({"depth.png": png(np.ones((24, 31), np.uint16))}, r"expected the image's size \(24, 32\).*got \(24, 31\)"),
        ({"sky.png": png(np.ones((12, 16), np.uint8))}, r"sky.png: expected the image's size"),
        ({"valid.png": png(np.ones((12, 16), np.uint8))}, r"valid.png: expected the image's size"),
        ({"prev.jpg": jpeg(photo(0, 12, 16))}, "prev: expected the image's size"),
        ({"depth.png": png(np.zeros((24, 32), np.uint16))}, "expected a label with valid pixels; all of depth.png is invalid"),
        ({"valid.png": png(np.zeros((24, 32), np.uint8))}, "all of depth.png is invalid"),
        ({"depth.npy": b"x"}, "expected one label; got depth.png and depth.npy"),
        ({"image.png": png(photo())}, "expected one file of view 'image'"),
        ({"depth.pkl": b"\x80\x04."}, "got 'depth.pkl', which is not read"),
        ({"weights.pth": b"x"}, "got 'weights.pth', which is not read"),
        ({"depths.png": MEMBERS["depth.png"]}, "got 'depths.png', which is not read"),
        ({"meta.json": b"{"}, "meta.json: expected JSON; it does not parse"),
        ({"meta.json": b"[]"}, "meta.json: expected a JSON dict; got list"),
        (meta(ambiguity="affine"), "expected meta.json to name an ambiguity"),
        (meta(depth=None), "expected meta.json to give depth.encoding"),
        (meta(depth="16"), "expected meta.json to give depth.encoding"),
        (meta(intrinsics=[[1, 2], [3, 4]]), r"intrinsics in meta.json: expected finite numbers of shape \(3, 3\)"),
        (meta(world_from_camera="identity"), "world_from_camera in meta.json: expected finite"),
        (meta(intrinsics=[[float("nan")] * 3] * 3), "intrinsics in meta.json: expected finite"),
        (meta(frames_from_camera=[1]), "poses, source and stereo_baseline in meta.json as written"),
        (meta(stereo_baseline=[1]), "poses, source and stereo_baseline in meta.json as written"),
        (meta(ambiguity="unlabelled"), "expected the label of ambiguity 'unlabelled'; got a dense label and ordinal pairs"),
        ({"pairs.json": b"[[0, 0, 24, 0, 1]]"}, "expected pairs as rows"),
        ({"pairs.json": b"[[0, 0, 0]]"}, "expected pairs as rows"),
        ({"pairs.json": b"[[0, 0, 1, 1, 2]]"}, "expected pairs as rows"),
    ],
)
def test_a_member_that_is_not_what_it_should_be_is_named_with_its_shard_and_key(members, says):
    with pytest.raises(ShardError, match=f"^train-000007.tar, sample 'k'.*{says}"):
        decode_sample("k", {**MEMBERS, **members}, where=WHERE)


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("image.jpg", "image.jpg, .png or .webp is missing"),
        ("meta.json", "meta.json is missing"),
        ("depth.png", "expected the label of ambiguity 'metric'; got ordinal pairs"),
    ],
)
def test_a_missing_member_is_named(gone, says):
    with pytest.raises(ShardError, match=says):
        decode_sample("k", {name: data for name, data in MEMBERS.items() if name != gone}, where=WHERE)


def test_a_label_of_nothing_but_nan_is_an_error():
    stream = io.BytesIO()
    np.save(stream, np.full((24, 32), np.nan, np.float32))
    members = {name: data for name, data in MEMBERS.items() if name != "depth.png"} | {"depth.npy": stream.getvalue()}
    with pytest.raises(ShardError, match=r"sample 'k': expected a label with valid pixels; all of depth.npy is invalid"):
        decode_sample("k", members, where=WHERE)


def test_a_pickled_label_is_refused_unread():
    members = {name: data for name, data in MEMBERS.items() if name != "depth.png"} | {"depth.npy": pickled({"run": "this"})}
    with pytest.raises(ShardError, match=r"depth.npy: expected a plain float32 .npy file"):
        decode_sample("k", members, where=WHERE)


def test_a_member_above_the_limit_is_an_error(monkeypatch):
    monkeypatch.setattr(codec, "MEMBER_LIMIT", 100)
    with pytest.raises(ShardError, match=r"more than the 100 allowed"):
        decode_sample("k", MEMBERS, where=WHERE)


def test_a_valid_mask_of_another_maker_narrows_the_label():
    keep = np.arange(24 * 32).reshape(24, 32) % 2 == 0
    got = decode_sample("k", {**MEMBERS, "valid.png": png(keep.astype(np.uint8) * 255)}, where=WHERE)
    assert np.array_equal(got.valid, full_sample().valid & keep)
    assert not (got.sky & ~got.valid).any()


def test_members_of_the_tar_itself_are_not_looked_at():
    assert decode_sample("k", {**MEMBERS, "__url__": b"x"}, where=WHERE).key == "k"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"image": photo().astype(np.float32)}, ShapeError, r"uint8 \(H, W, 3\); got float32"),
        ({"label": np.ones((24, 31), np.float32)}, ShapeError, r"of the image's size \(24, 32\)"),
        ({"valid": np.ones((24, 32), np.uint8)}, ShapeError, "bool valid"),
        ({"valid": None}, ShapeError, "bool valid"),
        ({"frames": {"prev": photo(0, 12, 16)}}, ShapeError, "prev: expected the image's size"),
        ({"frames": {"left": photo()}}, ShapeError, "views named prev, next, stereo or frame-N; got 'left'"),
        ({"sky": np.ones((24, 32), bool)}, LabelError, "expected sky to be a valid label"),
        ({"sky": np.ones((2, 2), bool)}, ShapeError, "sky: expected the image's size"),
        (
            {"label": None, "valid": None, "sky": None},
            LabelError,
            "expected the label of ambiguity 'metric'; got ordinal pairs",
        ),
        ({"ambiguity": Ambiguity.UNLABELLED}, LabelError, "expected the label of ambiguity 'unlabelled'; got a dense"),
        ({"intrinsics": np.eye(4)}, ShapeError, r"intrinsics: expected finite numbers of shape \(3, 3\)"),
        ({"world_from_camera": np.full((4, 4), np.nan)}, ShapeError, "world_from_camera: expected finite"),
        ({"pairs": np.array([[0, 0, 99, 0, 1]])}, ShardError, "inside the image"),
        (
            {"label": np.full((24, 32), np.nan, np.float32)},
            LabelError,
            "'scene-1/000003': expected a finite positive metric depth",
        ),
        ({"valid": np.zeros((24, 32), bool), "sky": None}, LabelError, "'scene-1/000003': expected a label with valid pixels"),
    ],
)
def test_a_sample_that_contradicts_itself_is_not_stored(changes, error, says):
    with pytest.raises(error, match=says):
        encode_sample(full_sample(**changes))


@pytest.mark.parametrize("key", ["", "a.b", "a b", "/a", "../a", "a\\b", "a\nb", "x" * 81])
def test_a_key_that_a_tar_cannot_keep_is_refused(key):
    with pytest.raises(DepthKitError, match="expected a key without dots"):
        encode_sample(Sample(key, photo()))
