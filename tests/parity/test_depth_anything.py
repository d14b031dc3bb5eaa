"""Ours against the package ``transformers``, with the same random weights and images."""

import re
from copy import deepcopy

import pytest
import torch
from torch import nn

from depthkit.errors import CheckpointError
from depthkit.models import DepthNet, dpt_dinov2_small, dpt_timm, load_published

transformers = pytest.importorskip("transformers")

# timm's test network of 6 blocks, as transformers would describe it
TINY: dict[str, int] = {
    "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "image_size": 160, "patch_size": 16, "mlp_ratio": 3,
}  # fmt: skip
_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
V1_TINY = [3, 4, 5, 6]


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


def backbone_config(hooks: list[int], **sizes: int) -> object:
    return transformers.Dinov2Config(
        out_indices=hooks, apply_layernorm=True, reshape_hidden_states=False, layer_norm_eps=1e-6, **sizes
    )


def _depth_anything(hooks: list[int], sizes: dict[str, int], features: int, widths: list[int], **head) -> nn.Module:
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone_config(hooks, **sizes),
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
    return _depth_anything(V1_TINY, TINY, 16, [12, 24, 48, 96], **head)


def difference(ours: DepthNet, theirs: nn.Module, height: int, width: int, record) -> float:
    """Greatest difference of the maps of one image, relative to their spread; it becomes a property of the test.

    In the same layout as theirs. Channels last, as built, convolutions sum in another order.
    """
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        as_built = ours(image)[:, 0]
        found = deepcopy(ours).to(memory_format=torch.contiguous_format)(image)[:, 0]
        expected = theirs((image - ours.mean) / ours.std).predicted_depth
    assert found.shape == expected.shape
    spread = expected.std()
    assert spread > 1e-3 * expected.abs().mean()
    relative, rounding = (found - expected).abs().max() / spread, (as_built - found).abs().max() / spread
    record(f"difference at {height}x{width}", float(relative))
    record(f"difference at {height}x{width}, channels last", float(rounding))
    assert rounding < 1e-3
    return float(relative)


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
        ours = _tiny()
        load_published(ours, theirs.state_dict(), source="transformers")
        ours.encoder.position_interpolation = rule
        assert difference(ours, theirs, 160, 160, record_property) < 1e-5
        assert difference(ours, theirs, 96, 80, record_property) > 1e-3


@pytest.mark.parametrize(
    ("hooks", "stages", "size"),
    [
        ("v2", [3, 6, 9, 12], (98, 140)),
        pytest.param("v1", [9, 10, 11, 12], (518, 518), marks=pytest.mark.slow),
        pytest.param("v1", [9, 10, 11, 12], (518, 686), marks=pytest.mark.slow),
    ],
)
def test_depth_anything_small_is_that_of_transformers(hooks, stages, size, record_property):
    theirs = _depth_anything(stages, _SMALL, 64, [48, 96, 192, 384])
    ours = dpt_dinov2_small(pretrained=False, hooks=hooks).eval()
    load_published(ours, theirs.state_dict(), source="transformers")
    assert difference(ours, theirs, *size, record_property) < 1e-5


def published_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of transformers in the names of Depth Anything's authors."""
    found = {"pretrained.mask_token": state["backbone.embeddings.mask_token"]}
    for key, x in state.items():
        if match := re.fullmatch(r"backbone\.encoder\.layer\.(\d+)\.attention\.q_proj\.(\w+)", key):
            block, leaf = match.groups()
            three = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[f"pretrained.blocks.{block}.attn.qkv.{leaf}"] = torch.cat(three)
        elif not re.search(r"(q|k|v)_proj|mask_token", key):
            name = key.replace("backbone.embeddings.position_embeddings", "pretrained.pos_embed")
            name = name.replace("backbone.embeddings.patch_embeddings.projection", "pretrained.patch_embed.proj")
            name = name.replace("backbone.embeddings.", "pretrained.").replace("backbone.layernorm", "pretrained.norm")
            name = name.replace("backbone.encoder.layer.", "pretrained.blocks.").replace("attention.o_proj", "attn.proj")
            name = re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name)
            name = re.sub(r"neck\.reassemble_stage\.layers\.(\d)\.projection", r"depth_head.projects.\1", name)
            name = re.sub(r"neck\.reassemble_stage\.layers\.(\d)\.resize", r"depth_head.resize_layers.\1", name)
            name = re.sub(r"neck\.convs\.(\d)", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn", name)
            name = re.sub(r"neck\.fusion_stage\.layers\.(\d)", lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}", name)
            name = re.sub(r"residual_layer(\d)\.convolution", r"resConfUnit\1.conv", name)
            name = re.sub(r"(refinenet\d)\.projection", r"\1.out_conv", name)
            name = name.replace("head.conv1", "depth_head.scratch.output_conv1") if name.startswith("head.") else name
            for old, new in (("head.conv2", "output_conv2.0"), ("head.conv3", "output_conv2.2")):
                name = name.replace(old, f"depth_head.scratch.{new}") if name.startswith("head.") else name
            found[name] = x
    return found


def _same(one: DepthNet, other: DepthNet) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_file_holds_the_same_network(prefix):
    state = _tiny_oracle().state_dict()
    ours, again = _tiny(), _tiny()
    load_published(ours, state, source="transformers")
    load_published(again, {prefix + key: x for key, x in published_names(state).items()}, source="depth_anything")
    assert _same(ours, again)


def test_files_of_earlier_transformers_hold_the_same_network():
    state = _tiny_oracle().state_dict()
    old = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}
    earlier = {re.sub("|".join(old), lambda m: old[m[0]], key): x for key, x in state.items()}
    assert earlier.keys() != state.keys()
    ours, again = _tiny(), _tiny()
    load_published(ours, state, source="transformers")
    load_published(again, earlier, source="transformers")
    assert _same(ours, again)


@pytest.mark.parametrize(
    ("lost", "listed"),
    [
        (
            "backbone.encoder.layer.2.attention.k_proj.weight",
            r"missing: encoder\.backbone\.blocks\.2\.attn\.qkv\.weight; 2 unexp",
        ),
        ("neck.convs.3.weight", r"1 missing: decoder\.lateral\.3\.weight\."),
        ("head.conv3.bias", r"1 missing: head\.output\.bias\."),
    ],
)
def test_an_incomplete_file_is_refused_with_what_it_lacks(lost, listed):
    state = _tiny_oracle().state_dict()
    del state[lost]
    ours = _tiny()
    before = {key: x.clone() for key, x in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match=listed):
        load_published(ours, state, source="transformers")
    assert all(torch.equal(x, before[key]) for key, x in ours.state_dict().items())


def test_a_weight_nobody_knows_is_refused():
    state = _tiny_oracle().state_dict() | {"head.conv4.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: head\.conv4\.weight\."):
        load_published(_tiny(), state, source="transformers")
