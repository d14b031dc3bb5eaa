"""Any timm backbone is an encoder of images of any legal size, or is refused before it has weights."""

import pytest
import torch

from depthkit.errors import RecipeError
from depthkit.models import DepthNet, MidasDecoder, MidasHead, TimmEncoder, dpt_timm

SMALL_SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "options"),
    [("swin_tiny_patch4_window7_224", SMALL_SWIN), ("mambaout_femto", {"dims": (8, 8, 8, 8)}), ("test_convnext", {})],
)
def test_maps_have_their_channels_first_at_any_multiple_of_the_stride(name: str, options: dict) -> None:
    encoder = TimmEncoder(name, pretrained=False, options=options)
    for height, width in ((96, 160), (224, 224), (32, 64)):
        with torch.inference_mode():
            maps = encoder.eval()(torch.rand(2, 3, height, width))
        expected = [(2, c, height // s, width // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
        assert [tuple(x.shape) for x in maps] == expected


def test_layout_is_found_for_any_number_of_input_channels() -> None:
    encoder = TimmEncoder("mambaout_femto", pretrained=False, options={"dims": (8, 8, 8, 8), "in_chans": 6})
    assert [x.shape[1] for x in encoder(torch.rand(1, 6, 32, 64))] == list(encoder.channels)


def test_a_network_on_a_windowed_backbone_predicts_at_any_legal_size() -> None:
    encoder = TimmEncoder("swin_tiny_patch4_window7_224", pretrained=False, options=SMALL_SWIN)
    model = DepthNet(encoder, lambda channels, strides: MidasDecoder(channels, strides, features=8), MidasHead)
    assert model(torch.rand(1, 3, 96, 160)).shape == (1, 1, 96, 160)


@pytest.mark.parametrize("name", ["hiera_tiny_224", "maxvit_tiny_rw_224", "mobilevitv2_050", "levit_128s"])
def test_a_backbone_of_one_image_size_is_refused_before_it_has_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthkit.models.encoders.timm_encoder.load_backbone", lambda *_, **__: pytest.fail("weights made"))
    with pytest.raises(RecipeError, match=rf"images of any multiple of (32|64) px; {name} takes (224x224|256x256) only: "):
        TimmEncoder(name, pretrained=False, strides=None)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_336", "vit_small_patch16_dinov3"])
def test_dpt_hooks_the_blocks_of_any_transformer(name: str) -> None:
    model = dpt_timm(name, pretrained=False, features=8, hooks=[2, 5, 8, 11], options={"embed_dim": 48, "num_heads": 2})
    multiple = model.size_multiple
    assert model(torch.rand(1, 3, 3 * multiple, 5 * multiple)).shape == (1, 1, 3 * multiple, 5 * multiple)
    assert len(model.encoder.channels) == 4
    with pytest.raises(RecipeError, match="takes 224x224 only"):
        dpt_timm("beit_base_patch16_224", pretrained=False)
