"""Ours against the package ``transformers``, with the same random weights and images."""

from functools import partial

import pytest
import torch
from torch import nn

from depthkit.errors import CheckpointError
from depthkit.models import DepthNet, build, dpt_dinov2_small, dpt_timm, load_published, zoedepth

transformers = pytest.importorskip("transformers")

# timm's test network of 6 blocks, as transformers would describe it
_TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 160,
    "patch_size": 16,
    "mlp_ratio": 3,
}
_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
_V1_TINY, _V1_SMALL, _V2_SMALL = [3, 4, 5, 6], [9, 10, 11, 12], [3, 6, 9, 12]


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Every weight away from its default (zero biases and positions, unit scales), with activations of about unit size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1 and "embeddings" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise + (0.5 if name.endswith(("weight", "lambda1")) else 0))
        last = dict(model.named_parameters()).get("head.conv3.bias", torch.zeros(1))
        last.fill_(2.0)  # most of the map is above 0, where ReLU shows it


def _backbone(hooks: list[int], **sizes: int) -> object:
    return transformers.Dinov2Config(
        out_indices=hooks, apply_layernorm=True, reshape_hidden_states=False, layer_norm_eps=1e-6, **sizes
    )


def _depth_anything(hooks: list[int], sizes: dict[str, int], features: int, widths: list[int], **head) -> nn.Module:
    config = transformers.DepthAnythingConfig(
        backbone_config=_backbone(hooks, **sizes),
        reassemble_hidden_size=sizes["hidden_size"],
        patch_size=sizes["patch_size"],
        neck_hidden_sizes=widths,
        fusion_hidden_size=features,
        **head,
    )
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    randomize(model)
    return model


def _tiny(**options) -> DepthNet:
    options = {"hooks": "v1", "features": 16, "options": {"init_values": 1e-5}} | options
    return dpt_timm("test_vit", pretrained=False, **options).eval()


def _tiny_oracle(**head) -> nn.Module:
    return _depth_anything(_V1_TINY, _TINY, 16, [12, 24, 48, 96], **head)


def difference(ours: DepthNet, theirs: nn.Module, height: int, width: int, record) -> float:
    """Greatest difference of the maps of one image, relative to their spread; it becomes a property of the test."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = ours(image)[:, 0]
        expected = theirs((image - ours.mean) / ours.std).predicted_depth
    assert found.shape == expected.shape
    spread = expected.std()
    assert spread > 1e-3 * expected.abs().mean()
    relative = float((found - expected).abs().max() / spread)
    record(f"difference at {height}x{width}", relative)
    return relative


@pytest.mark.parametrize("size", [(160, 160), (160, 224), (96, 80)])
def test_tiny_depth_anything_is_that_of_transformers(size, record_property):
    theirs, ours = _tiny_oracle(), _tiny()
    load_published(ours, theirs.state_dict(), source="transformers")
    assert difference(ours, theirs, *size, record_property) < 1e-5


def test_the_metric_head_is_that_of_transformers(record_property):
    theirs, ours = _tiny_oracle(depth_estimation_type="metric", max_depth=20), _tiny(max_depth=20.0)
    load_published(ours, theirs.state_dict(), source="transformers")
    assert difference(ours, theirs, 96, 160, record_property) < 1e-5


def test_other_positions_show_off_the_trained_grid_only(record_property):
    theirs = _tiny_oracle()
    for rule in ("timm", "dinov2"):
        ours = _tiny(position_interpolation=rule)
        load_published(ours, theirs.state_dict(), source="transformers")
        assert difference(ours, theirs, 160, 160, record_property) < 1e-5
        assert difference(ours, theirs, 96, 80, record_property) > 1e-3


@pytest.mark.parametrize("hooks", ["v1", "v2"])
def test_depth_anything_small_is_that_of_transformers(hooks, record_property):
    theirs = _depth_anything(_V1_SMALL if hooks == "v1" else _V2_SMALL, _SMALL, 64, [48, 96, 192, 384])
    ours = dpt_dinov2_small(pretrained=False, hooks=hooks).eval()
    load_published(ours, theirs.state_dict(), source="transformers")
    assert difference(ours, theirs, 518, 518, record_property) < 1e-5
    assert difference(ours, theirs, 518, 686, record_property) < 1e-5
