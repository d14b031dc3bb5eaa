"""Every family of transformers in DPT, at a tiny size: what timm computes, sizes that are legal, nothing left untrained."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.models import TokenEncoder, dpt_timm, export_encoder, from_pretrained, save_network

TINY: dict[str, Any] = {"depth": 4, "embed_dim": 48, "num_heads": 3}
FAMILIES = pytest.mark.parametrize(
    ("name", "patch"), [("vit_small_patch16_dinov3", 16), ("vit_small_plus_patch16_dinov3", 16), ("eva02_tiny_patch14_224", 14)]
)


@FAMILIES
def test_the_maps_are_timms_after_the_closing_norm(name: str, patch: int, tmp_path: Path) -> None:
    model = dpt_timm(name, pretrained=False, features=16, options=TINY).eval()
    encoder: Any = model.encoder
    assert isinstance(encoder, TokenEncoder)
    assert (encoder.hooks, encoder.strides, encoder.channels) == ((0, 1, 2, 3), (patch,) * 4, (48,) * 4)
    assert model.size_multiple == patch
    x = torch.randn(2, 3, 5 * patch, 3 * patch)
    with torch.no_grad():
        maps = encoder(x)
        for found in maps:
            assert found.shape == (2, 48, 5, 3)
            if "dinov3" in name:  # EVA-02's norm comes after pooling
                assert_close(found.mean(1), torch.zeros(2, 5, 3), atol=1e-5, rtol=0)
        export_encoder(model, tmp_path / "encoder.safetensors")
        file = {"file": str(tmp_path / "encoder.safetensors")}
        theirs: Any = timm.create_model(
            name, num_classes=0, pretrained=True, pretrained_cfg_overlay=file, dynamic_img_size=True, **TINY
        ).eval()
        assert_close(theirs.forward_intermediates(x, norm=True, intermediates_only=True), maps)
        again = dpt_timm(name, pretrained=tmp_path / "encoder.safetensors", features=16, options=TINY).eval()
        assert_close(again.encoder(x), maps, rtol=0, atol=0)
        save_network(model, tmp_path / "net.ckpt", ambiguity="shift_scale")
        image = torch.rand(1, 3, 3 * patch, 4 * patch)
        assert model(image).shape == (1, 1, 3 * patch, 4 * patch)
        assert_close(from_pretrained(tmp_path / "net.ckpt")(image), model(image), rtol=0, atol=0)
    with pytest.raises(ShapeError, match=f"multiples of {patch}"):
        model(torch.rand(1, 3, 3 * patch + 1, 4 * patch))


@FAMILIES
def test_every_trainable_weight_learns(name: str, patch: int) -> None:
    model = dpt_timm(name, pretrained=False, features=16, hooks=(0, 1, 2, 2 + 1), options=TINY | {"depth": 5})
    model(torch.rand(1, 3, 2 * patch, 3 * patch)).sum().backward()
    silent = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    assert any(not p.requires_grad for p in model.encoder.backbone.blocks[4].parameters())


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "beitv2_base_patch16_224"])
def test_a_transformer_of_one_size_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(RecipeError, match=f"images of any multiple of 16 px; {name} takes 224x224 only"):
        dpt_timm(name, pretrained=False, options=TINY)


def test_a_pyramid_is_none() -> None:
    with pytest.raises(RecipeError, match="whose maps have one stride; those of test_resnet have"):
        TokenEncoder("test_resnet", pretrained=False)
