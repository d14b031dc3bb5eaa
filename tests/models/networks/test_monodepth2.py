"""The networks of Monodepth2: published sizes, scales, and laws of their parts."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import LabelError, RecipeError, ShapeError
from depthkit.models import Monodepth2Decoder, PredictiveMask, monodepth2_resnet18, monodepth2_resnet50, monodepth2_timm
from depthkit.types import Representation


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("build", "encoder", "decoder"),
    [(monodepth2_resnet18, 11_176_512, 3_152_724), (monodepth2_resnet50, 23_508_032, 9_014_100)],
)
def test_a_network_has_the_published_number_of_parameters(build, encoder, decoder):
    with torch.device("meta"):
        model = build(pretrained=False)
    assert _size(model.encoder) == encoder
    assert _size(model.decoder) + _size(model.head) == decoder
    assert model.representation is Representation.DISPARITY
    assert model.size_multiple == 32


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_each_scale_is_half_as_large_as_the_one_before_and_the_first_is_the_output(scales):
    model = monodepth2_timm("test_resnet", pretrained=False, scales=scales).eval()
    image = torch.rand(2, 3, 64, 96)
    sigmoids = model.multiscale(image)
    assert [tuple(x.shape) for x in sigmoids] == [(2, 1, 64 // 2**s, 96 // 2**s) for s in range(scales)]
    assert all((x > 0).all() and (x < 1).all() for x in sigmoids)
    assert_close(model(image), model.to_disparity(sigmoids[0]), rtol=0, atol=0)
    assert_close(model.multiscale_of(model.encode(image)), sigmoids, rtol=0, atol=0)


def test_disparity_lies_between_the_given_depths():
    model = monodepth2_timm("test_resnet", pretrained=False, min_depth=2.0, max_depth=50.0)
    ends = model.to_disparity(torch.tensor([0.0, 1.0]))
    assert_close(1 / ends, torch.tensor([50.0, 2.0]))
    disparity = model(100 * torch.randn(1, 3, 64, 64))
    assert disparity.min() >= 1 / 50
    assert disparity.max() <= 1 / 2


def test_a_mirrored_image_gives_the_mirrored_map_up_to_the_encoders_stride_grid():
    decoder = Monodepth2Decoder((4, 6, 8, 10, 12), (2, 4, 8, 16, 32))
    with torch.no_grad():
        for p in decoder.parameters():
            if p.ndim == 4:
                p.add_(p.flip(3))  # filters that are their own mirror image
    features = [torch.rand(1, c, 64 // s, 96 // s) for c, s in ((4, 2), (6, 4), (8, 8), (10, 16), (12, 32))]
    mirrored = decoder([x.flip(3) for x in features])
    assert_close(mirrored, decoder(features).flip(3), rtol=1e-4, atol=1e-5)


def test_a_constant_scene_is_constant_up_to_the_border():
    decoder = Monodepth2Decoder((4, 6), (2, 4), scales=1)
    out = decoder([torch.full((1, 4, 8, 8), 0.3), torch.full((1, 6, 4, 4), 0.7)])
    assert_close(out, out[..., :1, :1].expand_as(out))


def test_a_level_without_a_map_of_its_size_has_no_skip():
    model = monodepth2_timm("test_convnext", pretrained=False, strides=(4, 8, 16, 32))
    assert [tuple(x.shape[-2:]) for x in model.multiscale(torch.rand(1, 3, 64, 96))] == [(64, 96), (32, 48), (16, 24), (8, 12)]


def test_a_predictive_mask_has_one_channel_per_source_at_every_scale():
    mask = PredictiveMask((64, 64, 128, 256, 512), (2, 4, 8, 16, 32), sources=3)
    features = [torch.rand(1, c, 64 // s, 64 // s) for c, s in ((64, 2), (64, 4), (128, 8), (256, 16), (512, 32))]
    masks = mask(features)
    assert [tuple(x.shape) for x in masks] == [(1, 3, 64 // 2**s, 64 // 2**s) for s in range(4)]
    assert all((x > 0).all() and (x < 1).all() for x in masks)
    assert _size(PredictiveMask((64, 64, 128, 256, 512), (2, 4, 8, 16, 32), sources=1)) == 3_152_724


def test_what_cannot_be_built_is_refused():
    with pytest.raises(RecipeError, match=r"expected 1 to 5 scales and an encoder whose coarsest stride"):
        Monodepth2Decoder((4, 6), (2, 4), scales=3)
    with pytest.raises(RecipeError, match=r"expected 1 to 5 scales"):
        Monodepth2Decoder((4, 6), (2, 4), scales=0)
    with pytest.raises(RecipeError, match=r"expected 1 to 5 scales"):
        Monodepth2Decoder((4, 6), (3, 6), scales=1)
    with pytest.raises(RecipeError, match="expected an encoder whose strides double"):
        Monodepth2Decoder((4, 4), (16, 16))
    with pytest.raises(LabelError, match="expected 0 < min_depth < max_depth"):
        monodepth2_timm("test_resnet", pretrained=False, min_depth=5.0, max_depth=1.0)


@pytest.mark.parametrize(("size", "legal"), [((64, 80), "64x96"), ((32, 64), "64x64"), ((1, 96), "64x96")])
def test_an_image_too_small_to_reflect_or_of_odd_size_is_refused_with_the_next_legal_size(size, legal):
    model = monodepth2_timm("test_resnet", pretrained=False)
    message = f"expected an image of at least 64x64 whose height and width are multiples of 32; got .* to {legal}, the next"
    for predict in (model, model.multiscale):
        with pytest.raises(ShapeError, match=message):
            predict(torch.rand(1, 3, *size))
