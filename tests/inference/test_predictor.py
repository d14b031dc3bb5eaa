import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthkit.errors import CheckpointError, LabelError, PredictionError, RecipeError, ShapeError
from depthkit.evaluation import PROTOCOLS, InputResize, evaluate
from depthkit.inference import DepthPredictor, load_prediction
from depthkit.models import midas_timm, save_network
from depthkit.types import Ambiguity, Representation, Sample


class Blue(nn.Module):
    """Disparity is the blue channel, at half the input's size."""

    representation = Representation.DISPARITY
    size_multiple = 16

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.shapes = []

    def forward(self, image):
        self.shapes.append(tuple(image.shape))
        assert not self.training
        assert not image.shape[-2] % 16
        assert not image.shape[-1] % 16
        assert 0 <= image.min() <= image.max() <= 1
        return self.gain * image[:, 2:, ::2, ::2]


def predictor(**options):
    rule = InputResize(64, "area", antialias=True)
    return DepthPredictor(Blue(), **{"ambiguity": Ambiguity.SHIFT_SCALE, "input_rule": rule, **options})


def picture(height, width, blue=None):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = np.linspace(0, 255, width)[None] if blue is None else blue
    return image


@pytest.mark.parametrize("size", [(1, 1), (31, 47), (97, 33), (64, 64), (200, 7)])
def test_the_map_has_the_size_of_the_source(size):
    prediction = predictor()(picture(*size))
    assert prediction.map.shape == size
    assert prediction.map.dtype == np.float32
    assert (prediction.representation, prediction.ambiguity) == (Representation.DISPARITY, Ambiguity.SHIFT_SCALE)


def test_the_map_lies_where_the_image_lies():
    prediction = predictor()(picture(80, 160))
    np.testing.assert_allclose(prediction.map[:, 8:-8], np.linspace(0, 1, 160)[None, 8:-8].repeat(80, 0), atol=0.02)


def test_arrays_tensors_and_files_of_one_image_agree(tmp_path):
    image = picture(40, 60)
    Image.fromarray(image).save(tmp_path / "a.png")
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    sources = [
        image,
        image / np.float32(255),
        tensor,
        tensor[None],
        tensor.float() / 255,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ]
    maps = [predictor()(source).map for source in sources]
    assert all(np.allclose(maps[0], other, atol=1e-6) for other in maps)
    assert np.array_equal(predictor()(sources[2]).image, image)


def test_exif_orientation_is_respected(tmp_path):
    image, exif = Image.fromarray(picture(40, 60)), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    prediction = predictor()(tmp_path / "turned.png")
    assert prediction.map.shape == (60, 40)
    assert prediction.map[0].mean() < prediction.map[-1].mean()


def test_sixteen_bit_grey_images_keep_their_range(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, 0)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.ptp(predictor()(tmp_path / "grey.png").map) > 0.95


def test_results_do_not_depend_on_batching_and_keep_the_order():
    sources = [picture(40, 60, blue) for blue in (10, 20, 30)] + [picture(90, 30, 40), picture(40, 60, 50), picture(41, 61, 60)]
    model = Blue()
    batched = DepthPredictor(model, ambiguity=Ambiguity.SCALE, input_rule=InputResize(64, "area", antialias=True))(
        sources, batch_size=2, progress=False
    )
    assert [len_ for len_, *_ in model.shapes] == [2, 1, 1, 2]
    for source, prediction in zip(sources, batched, strict=True):
        np.testing.assert_allclose(prediction.map, predictor()(source).map, atol=1e-6)


def test_a_folder_is_predicted_file_by_file_and_written_under_the_same_names(tmp_path):
    photos = ("b/one.png", "two.jpg", "same.png", "same.jpg")
    for name in photos:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(20, 30)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    written = predictor().write(tmp_path / "in", tmp_path / "out", batch_size=4, progress=False)
    names = {str(file.relative_to(tmp_path / "out")) for file in written.files}
    assert names == {f"{name}{end}" for name in photos for end in (".png", ".colour.png")}
    assert list(written.broken) == [tmp_path / "in" / "broken.jpg"]
    assert load_prediction(tmp_path / "out" / "two.jpg.png").map.shape == (20, 30)
    (tmp_path / "in" / "broken.jpg").unlink()
    assert len(predictor()(tmp_path / "in", progress=False)) == 4


def test_one_file_is_written_as_npy(tmp_path):
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    written = predictor().write(tmp_path / "a.png", tmp_path / "out", suffix=".npy", colour=False, progress=False)
    assert written.files == [tmp_path / "out" / "a.png.npy"]
    assert np.array_equal(load_prediction(written.files[0]).map, predictor()(tmp_path / "a.png").map)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), "expected an RGB image with pixels"),
        (b"bytes", "got bytes. Bytes are read by depthkit.images.read_image"),
        ((x for x in ()), "expected an image: the path .* got generator"),
        (np.zeros((4, 4, 4), np.uint8), r"expected an RGB image.* got ndarray of shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.int32), "expected an RGB image.* int32"),
        (torch.zeros(2, 3, 4, 4), "Pass images of a batch as a list"),
        (torch.full((3, 4, 4), 200.0), r"expected a floating-point image in \[0, 1\]; got values from 200 to 200"),
        (torch.full((3, 4, 4), torch.nan), r"expected a floating-point image in \[0, 1\]"),
        ("nowhere.png", r"expected an image at nowhere\.png; there is no such file"),
    ],
)
def test_what_is_no_image_is_refused(source, message):
    with pytest.raises(ShapeError, match=message):
        predictor()(source)


def test_an_unreadable_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ShapeError, match=r"expected images in .*; found none"):
        predictor()(tmp_path)
    good = tmp_path / "good.png"
    Image.fromarray(picture(64, 64, np.random.default_rng(0).integers(0, 255, (64, 64)))).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:900])
    with pytest.raises(ShapeError, match=r"expected an image at .*cut\.png; it cannot be decoded"):
        predictor()(tmp_path / "cut.png")


def test_a_network_that_overflows_is_reported_with_the_image():
    broken = predictor()
    broken.model.gain.data.fill_(float("inf"))
    with pytest.raises(PredictionError, match="image: expected a finite prediction"):
        broken(picture(8, 8, 1))


def test_the_representation_must_be_known():
    with pytest.raises(LabelError, match="expected the representation of the model's output"):
        DepthPredictor(nn.Identity(), ambiguity=Ambiguity.METRIC)
    with pytest.raises(RecipeError, match="expected precision"):
        predictor(precision="64")


def test_lower_precision_is_for_the_network_only():
    prediction = predictor(precision="bf16")(picture(20, 30))
    assert prediction.map.dtype == np.float32


def test_the_network_of_a_predictor_can_be_evaluated_and_itself_says_so():
    disparity = np.linspace(0.1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    sample = Sample("a", picture(64, 64, disparity * 255), 1 / disparity, disparity > 0, Ambiguity.METRIC, Representation.DEPTH)
    report = evaluate(predictor().model, [sample], PROTOCOLS["synthetic_affine"], progress=False)
    assert report.summary["abs_rel"] < 0.1
    with pytest.raises(RecipeError, match=r"got DepthPredictor, which resizes them itself. Pass its .model"):
        evaluate(predictor(), [sample], PROTOCOLS["synthetic_affine"], progress=False)


def test_a_grey_image_of_a_sample_is_refused_by_name():
    with pytest.raises(ShapeError, match=r"a: expected an RGB image \(H, W, 3\) with pixels; got one of shape \(8, 8\)"):
        evaluate(Blue(), [Sample("a", np.zeros((8, 8), np.uint8))], PROTOCOLS["synthetic_affine"], progress=False)


def test_a_model_that_returns_more_than_a_map_is_told_how_it_is_read():
    class Returns(nn.Module):
        representation = Representation.DISPARITY

        def forward(self, image):
            return {"predicted_depth": image[:, 0]}

    predictor = DepthPredictor(Returns(), ambiguity=Ambiguity.SHIFT_SCALE)
    with pytest.raises(ShapeError, match=r"Returns: expected a map.*got dict.*load_depth"):
        predictor(np.zeros((32, 32, 3), np.uint8))


def test_a_checkpoint_is_a_file_and_not_a_name(tmp_path):
    model = midas_timm("mobilenetv2_035", pretrained=False, features=8)
    save_network(model, tmp_path / "net.ckpt", ambiguity="shift_scale")
    image = torch.rand(3, 40, 50)
    found, same = (
        make(tmp_path / "net.ckpt")(image) for make in (DepthPredictor.from_checkpoint, DepthPredictor.from_pretrained)
    )
    assert np.array_equal(found.map, same.map)
    with pytest.raises(CheckpointError, match=r"expected the file of a checkpoint; got midas_v21\. For a published"):
        DepthPredictor.from_checkpoint("midas_v21")
