"""One reader: whatever the format, the same picture; and what is no picture is one sentence."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, features

from depthkit.errors import RecipeError, ShapeError, ShardError
from depthkit.images import MAX_PIXELS, as_image, find_images, image_files, is_prediction, read_image
from depthkit.inference import Prediction
from depthkit.inference.files import ImageReader
from depthkit.inference.labelling import open_pool
from depthkit.inference.outputs import COLOUR, OutputNames
from depthkit.resize import InputResize
from depthkit.shards.images import decode_image, encode_image
from depthkit.types import Ambiguity, Representation

RNG = np.random.default_rng(0)
PICTURE = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 36), Image.Resampling.BICUBIC))
WIDE = np.linspace(0, 65535, 36 * 48).round().astype(np.uint16).reshape(36, 48)


def saved(image, path, **options):
    Image.fromarray(image).save(path, **options) if isinstance(image, np.ndarray) else image.save(path, **options)
    return path


def exif(orientation):
    facts = Image.Exif()
    facts[0x0112] = orientation
    return facts


def test_lossless_formats_hold_the_same_picture(tmp_path):
    for name, options in (("a.png", {}), ("a.bmp", {}), ("a.TIF", {}), ("a.tiff", {}), ("a.webp", {"lossless": True})):
        assert np.array_equal(read_image(saved(PICTURE, tmp_path / name, **options)), PICTURE), name
    few = Image.fromarray(PICTURE).quantize(32)
    assert np.array_equal(read_image(saved(few, tmp_path / "a.gif")), np.asarray(few.convert("RGB")))
    if features.check("avif"):
        lossy = read_image(saved(PICTURE, tmp_path / "a.avif", quality=95))
        assert np.abs(lossy.astype(int) - PICTURE).mean() < 6


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_images_are_turned_as_they_are_looked_at(ending, tmp_path):
    plain = read_image(saved(PICTURE, tmp_path / f"plain.{ending}"))
    turned = read_image(saved(PICTURE, tmp_path / f"turned.{ending}", exif=exif(6)))
    assert np.array_equal(turned, np.rot90(plain, -1))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("plain.jpg", lambda: Image.fromarray(PICTURE)),
        ("grey.jpg", lambda: Image.fromarray(PICTURE).convert("L")),
        ("cmyk.jpg", lambda: Image.fromarray(PICTURE).convert("CMYK")),
        ("plain.png", lambda: Image.fromarray(PICTURE)),
        ("sixteen.png", lambda: Image.fromarray(WIDE)),
        ("palette.png", lambda: Image.fromarray(PICTURE).quantize(16)),
        ("bit.png", lambda: Image.fromarray(PICTURE).convert("1")),
        ("alpha.png", lambda: Image.fromarray(np.dstack([PICTURE, PICTURE[..., :1]]))),
        ("plain.webp", lambda: Image.fromarray(PICTURE)),
    ],
)
def test_the_codec_of_shards_and_the_reader_of_files_see_the_same(name, make, tmp_path):
    file = saved(make(), tmp_path / name)
    assert np.array_equal(decode_image(file.read_bytes(), name), read_image(file))


def test_sixteen_bits_are_divided_by_257_in_every_format(tmp_path):
    expected = np.repeat((WIDE / 257).round().astype(np.uint8)[..., None], 3, 2)
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_image(saved(WIDE, tmp_path / name)), expected)


def test_floating_point_in_the_unit_range_is_read_and_other_ranges_are_refused(tmp_path):
    unit = (WIDE / 65535).astype(np.float32)
    assert np.array_equal(read_image(saved(unit, tmp_path / "f.tif"))[..., 0], (unit * 255).round())
    for number, values in enumerate((unit * 255, -unit, np.where(unit > 0.5, np.nan, unit), WIDE.astype(np.int32) // 65)):
        file = saved(values.astype(np.int32 if values.dtype == np.int32 else np.float32), tmp_path / f"{number}.tif")
        with pytest.raises(ShapeError, match=r"whose white is not known. Scale it"):
            read_image(file)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp", "gif"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_a_truncated_file_is_refused_whatever_the_program_told_pillow(ending, tolerant, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    file = saved(RNG.integers(0, 256, (64, 64, 3), np.uint8), tmp_path / f"a.{ending}")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.6)])
    with pytest.raises(ShapeError, match=rf"expected an image at .*a\.{ending}; it cannot be decoded"):
        read_image(file)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


def header_of(height, width):
    """A PNG of these sides whose pixels are missing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")) + b"\0\0\0\0IEND\xaeB`\x82"


def test_the_number_of_pixels_has_a_limit_of_its_own(tmp_path, monkeypatch):
    file = tmp_path / "giant.png"
    file.write_bytes(header_of(50_000, 50_000))
    with pytest.raises(ShapeError, match=rf"at most {MAX_PIXELS} pixels at .*giant.png; its header says 50000x50000. Shrink"):
        read_image(file)
    with pytest.raises(ShardError, match=rf"at most {MAX_PIXELS} pixels; its header says 2500000000"):
        decode_image(file.read_bytes(), "giant.png")
    small = saved(PICTURE, tmp_path / "a.png")
    with pytest.raises(ShapeError, match="at most 100 pixels"):
        read_image(small, max_pixels=100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(small), PICTURE)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_one_unreadable_photo_does_not_hold_up_the_others(tmp_path):
    (tmp_path / "giant.png").write_bytes(header_of(50_000, 50_000))
    saved(PICTURE, tmp_path / "good.png")
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    groups = list(ImageReader(find_images(tmp_path), InputResize(), 1, 1))
    assert [image.name for group in groups for image in group.images] == [str(tmp_path / "good.png")]
    broken = {name: why for group in groups for name, why in group.broken.items()}
    assert "at most" in broken[str(tmp_path / "giant.png")]
    assert "Save it as JPEG, or install pillow-heif" in broken[str(tmp_path / "phone.HEIC")]


def test_bytes_are_named_by_their_file(tmp_path):
    with pytest.raises(ShardError, match=r"^expected an image at p/x.jpg; it cannot be decoded \(no format"):
        read_image(b"no image", what="p/x.jpg", error=ShardError)
    assert np.array_equal(read_image(saved(PICTURE, tmp_path / "a.png").read_bytes()), PICTURE)


def test_an_image_of_pillow_is_that_of_its_file(tmp_path):
    for image in (Image.fromarray(WIDE), Image.open(saved(PICTURE, tmp_path / "a.jpg", exif=exif(6)))):
        file = tmp_path / "again.png"
        image.save(file, **({"exif": image.getexif()} if image.getexif() else {}))
        expected = torch.from_numpy(read_image(file)).permute(2, 0, 1)[None] / 255
        assert torch.equal(as_image(image), expected)


def test_only_images_are_found(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.JPG", "a.avif", "folder.png/c.gif", "._b.jpg", ".hidden/d.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [str(f.relative_to(tmp_path)) for f in find_images(tmp_path)] == ["a.avif", "b.JPG", "folder.png/c.gif"]
    assert open_pool(tmp_path).count == 3
    assert len(image_files([str(tmp_path), str(tmp_path / "b.JPG")])) == 3


def test_files_of_a_pool_are_those_that_the_reader_reads(tmp_path):
    for name in ("a.bmp", "b.gif", "c.tif", "d.png"):
        saved(Image.fromarray(PICTURE).quantize(32), tmp_path / name)
    saved(PICTURE, tmp_path / "e.png", exif=exif(6))
    pool = open_pool(tmp_path)
    for (_, found), file in zip(pool.read(pool.pieces[0]), find_images(tmp_path), strict=True):
        (data,) = found.members.values()
        assert np.array_equal(decode_image(data, file.name), read_image(file)), file.name


def test_a_jpeg_is_stored_as_it_is_whoever_decoded_it(tmp_path):
    data = saved(PICTURE, tmp_path / "a.jpg", quality=90).read_bytes()
    assert encode_image(read_image(data), "png", data) == ("jpg", data)


def prediction():
    return Prediction(np.arange(12.0, dtype=np.float32).reshape(3, 4), Representation.DEPTH, Ambiguity.METRIC)


def test_what_depthkit_wrote_is_told_from_photographs(tmp_path):
    prediction().save(tmp_path / "map.png")
    prediction().save_colour(tmp_path / "x.colour.png")
    photo = saved(PICTURE, tmp_path / "photo.png")
    assert find_images(tmp_path) == [photo]
    assert not is_prediction(photo)


ENDINGS = (".png", COLOUR)


def results(names):
    return [names(file, ending) for file in names.files for ending in ENDINGS]


def test_no_two_images_share_a_result_and_none_is_overwritten(tmp_path):
    for name in ("a/x.png", "b/x.png", "b/x.jpg", "b/x.colour.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(PICTURE, tmp_path / name)
    names = OutputNames([tmp_path / "a" / "x.png", tmp_path / "b", tmp_path / "b" / "x.jpg"], tmp_path / "out", ENDINGS)
    assert len(set(results(names))) == len(results(names)) == 8
    assert tmp_path / "out" / "a" / "x.png.png" in results(names)
    within = OutputNames([tmp_path / "a"], tmp_path / "a", ENDINGS)
    assert results(within) == [tmp_path / "a" / "x.png.png", tmp_path / "a" / "x.png.colour.png"]
    saved(PICTURE, tmp_path / "a" / "x.png.png")  # a photograph of this very name
    with pytest.raises(RecipeError, match=r"a/x.png.png, the result of .*a/x.png, is one of the images. Choose another folder"):
        OutputNames([tmp_path / "a"], tmp_path / "a", ENDINGS)
    (tmp_path / "p").mkdir()
    for name in ("p/y", "p/y.colour"):  # files that are named one by one may have any name
        (tmp_path / name).touch()
    with pytest.raises(RecipeError, match=r"would be that of .*p/y, too"):
        OutputNames([tmp_path / "p" / "y", tmp_path / "p" / "y.colour"], tmp_path / "out", ENDINGS)


def test_a_result_that_is_a_link_to_a_source_is_refused(tmp_path):
    photo = saved(PICTURE, tmp_path / "x.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.png.png").symlink_to(photo)
    with pytest.raises(RecipeError, match="is one of the images"):
        OutputNames([photo], tmp_path / "out", ENDINGS)


def test_links_keep_their_own_names(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snap").mkdir()
    saved(PICTURE, tmp_path / "blobs" / "abc", format="png")
    for name in ("kitchen.png", "kitchen_again.png"):
        (tmp_path / "snap" / name).symlink_to("../blobs/abc")
    names = OutputNames([tmp_path / "snap"], tmp_path / "out", (".png",))
    found = [names(file, ".png").relative_to(tmp_path / "out").name for file in names.files]
    assert found == ["kitchen.png.png", "kitchen_again.png.png"]
    (tmp_path / "snap" / "gone.png").symlink_to("/nowhere/gone.png")
    assert len(image_files([tmp_path / "snap"])) == 3  # named as broken when it is read
    with pytest.raises(ShapeError, match="there is no such file"):
        read_image(tmp_path / "snap" / "gone.png")


def test_what_an_earlier_run_wrote_is_not_predicted(tmp_path):
    (tmp_path / "photos").mkdir()
    photo = saved(PICTURE, tmp_path / "photos" / "x.png")
    for out in (tmp_path / "photos", tmp_path / "photos" / "out"):
        for _ in range(2):
            names = OutputNames([tmp_path / "photos"], out, ENDINGS)
            assert names.files == [photo]
            prediction().save(names(photo, ".png"))
            prediction().save_colour(names(photo, COLOUR))


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ShapeError, match=r"expected an image with pixels .*0x3"):
        as_image(Image.new("RGB", (3, 0)))
    with pytest.raises(ShapeError, match="cannot be decoded"):
        read_image(io.BytesIO().getvalue())


@pytest.mark.parametrize("name", ["d.png", "d.tif"])
def test_grey_of_sixteen_bits_is_no_photo(name, tmp_path):
    file = saved(WIDE, tmp_path / name)
    with pytest.raises(ShapeError, match=rf"expected a photo at .*{name}; it is of 16-bit grey, as depth is. Leave depth out"):
        read_image(file, photo=True)
    colour = np.dstack([WIDE, WIDE, WIDE])
    assert cv2.imwrite(str(tmp_path / "colour.png"), colour)
    saved(PICTURE, tmp_path / "good.png")
    (group,) = ImageReader(find_images(tmp_path), InputResize(), 1, 8)
    assert list(group.broken) == [str(file)]
    pool = open_pool(str(tmp_path))
    found = {key: type(image).__name__ for piece in pool.pieces for key, image in pool.read(piece)}
    assert found == {"colour_png": "PoolImage", name.replace(".", "_"): "ShardError", "good_png": "PoolImage"}
