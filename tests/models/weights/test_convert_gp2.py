"""GP2's files: ours computes with them what functions written here from the published layout compute."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import mobilenet_v2

import depthkit.models
from depthkit.errors import CheckpointError, RecipeError
from depthkit.models import build, load_published, lrn_efficientnet_b0, lrn_efficientnet_lite0, lrn_mobilenetv2, lrn_timm

B0 = [(1, 16, 3, 1), (6, 24, 3, 2), (6, 40, 5, 2), (6, 80, 3, 2), (6, 112, 5, 1), (6, 192, 5, 2), (6, 320, 3, 1)]
"""EfficientNet-B0's stages: expansion, channels, side of the depthwise kernel, stride of the first block."""
REPEATS = [1, 2, 2, 3, 3, 4, 1]
State = dict[str, Tensor]


def _conv(name: str, out: int, fan_in: int, kernel: int = 1, *, bias: bool = False) -> State:
    weight = torch.randn(out, fan_in, kernel, kernel) * (2 / (kernel * kernel * fan_in)) ** 0.5
    return {f"{name}.weight": weight} | ({f"{name}.bias": 0.1 * torch.randn(out)} if bias else {})


def _norm(name: str, width: int) -> State:
    return {
        f"{name}.weight": 0.5 + torch.rand(width),
        f"{name}.bias": 0.1 * torch.randn(width),
        f"{name}.running_mean": 0.1 * torch.randn(width),
        f"{name}.running_var": 0.5 + torch.rand(width),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def _b0_blocks() -> list[tuple[int, int, int, int, int]]:
    """Of each block: channels in, expansion, channels out, kernel, stride."""
    blocks, width = [], 32
    for (expansion, out, kernel, stride), repeats in zip(B0, REPEATS, strict=True):
        for k in range(repeats):
            blocks.append((width, expansion, out, kernel, stride if k == 0 else 1))
            width = out
    return blocks


def _b0_encoder() -> State:
    """As ``efficientnet_pytorch`` names it, in shapes of the paper's table; with the head that is never run."""
    state = _conv("_conv_stem", 32, 3, 3) | _norm("_bn0", 32) | _conv("_conv_head", 1280, 320) | _norm("_bn1", 1280)
    for k, (width, expansion, out, kernel, _) in enumerate(_b0_blocks()):
        name, inner = f"_blocks.{k}", width * expansion
        if expansion > 1:
            state |= _conv(f"{name}._expand_conv", inner, width) | _norm(f"{name}._bn0", inner)
        state |= _conv(f"{name}._depthwise_conv", inner, 1, kernel) | _norm(f"{name}._bn1", inner)
        state |= _conv(f"{name}._se_reduce", width // 4, inner, bias=True)
        state |= _conv(f"{name}._se_expand", inner, width // 4, bias=True)
        state |= _conv(f"{name}._project_conv", out, inner) | _norm(f"{name}._bn2", out)
    return state


def _decoder(widths: list[int]) -> State:
    """Of an encoder with these channels, finest first; levels are numbered from the coarsest."""
    state = _conv("final_decoder.0", 1, widths[0], bias=True)
    for k, width in enumerate(widths[::-1]):
        for layer in ("adapt", "1_outvar_dimred", "2_outvar_dimred", "3_outvar_dimred", "4_outvar_dimred"):
            state |= _conv(f"up_branch.{k}.0.{layer}.0", width, width) | _norm(f"up_branch.{k}.0.{layer}.1", width)
        if k < len(widths) - 1:
            state |= _conv(f"adapters.{k}.0", widths[::-1][k + 1], width, bias=True)
    return state


def _file(encoder: State, decoder: State) -> State:
    """The decoder's module holds the encoder's too."""
    parts = {"branches.0.": encoder, "branches.1.backbone.": encoder, "branches.1.": decoder}
    return {prefix + key: x for prefix, part in parts.items() for key, x in part.items()}


def _run(x: Tensor, state: State, conv: str, norm: str = "", *, stride: int = 1, groups: int = 1, eps: float = 1e-5) -> Tensor:
    """A convolution as TensorFlow pads it: what is odd comes last."""
    weight = state[f"{conv}.weight"]
    pad = weight.shape[-1] - stride
    x = F.pad(x, (pad // 2, pad - pad // 2) * 2) if pad > 0 else x
    x = F.conv2d(x, weight, state.get(f"{conv}.bias"), stride, groups=groups)
    if not norm:
        return x
    mean, var, scale, shift = (state[f"{norm}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift, eps=eps)


def _b0_features(image: Tensor, state: State) -> list[Tensor]:
    x = F.silu(_run(image, state, "_conv_stem", "_bn0", stride=2, eps=1e-3))
    maps = [x]
    for k, (width, expansion, out, _, stride) in enumerate(_b0_blocks()):
        name, y = f"_blocks.{k}.", x
        if expansion > 1:
            y = F.silu(_run(y, state, name + "_expand_conv", name + "_bn0", eps=1e-3))
        y = _run(y, state, name + "_depthwise_conv", name + "_bn1", stride=stride, groups=y.shape[1], eps=1e-3)
        y = F.silu(y)
        gate = F.silu(_run(y.mean((2, 3), keepdim=True), state, name + "_se_reduce"))
        y = y * _run(gate, state, name + "_se_expand").sigmoid()
        y = _run(y, state, name + "_project_conv", name + "_bn2", eps=1e-3)
        x = x + y if stride == 1 and width == out else y
        if k + 1 in (3, 5, 9, 16):
            maps.append(x)
    return maps


def _mobilenet() -> tuple[State, list[torch.nn.Sequential]]:
    """torchvision's network in layers that begin where a stride does; the first of GP2's layers is empty."""
    blocks = mobilenet_v2(weights=None).features.eval()
    for module in blocks.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.load_state_dict({key[1:]: x for key, x in _norm("", module.num_features).items()})
    layers = [torch.nn.Sequential(*blocks[i:j]) for i, j in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))]
    return {f"layers.{k}.{key}": x for k, layer in enumerate(layers, 1) for key, x in layer.state_dict().items()}, layers


def _decode(maps: list[Tensor], state: State) -> Tensor:
    x = None
    for k, skip in enumerate(maps[::-1]):
        if x is not None:
            x = F.interpolate(_run(x, state, f"adapters.{k - 1}.0"), scale_factor=2, mode="bilinear") + skip
        x = top = _run(skip if x is None else x, state, f"up_branch.{k}.0.adapt.0", f"up_branch.{k}.0.adapt.1")
        for i in (1, 2, 3, 4):
            name = f"up_branch.{k}.0.{i}_outvar_dimred"
            top = _run(F.max_pool2d(top, 5, 1, 2), state, f"{name}.0", f"{name}.1")
            x = x + top
        x = x / 5
    return F.interpolate(_run(x, state, "final_decoder.0"), scale_factor=2, mode="bilinear")


def _normalised(image: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image - mean[:, None, None]) / std[:, None, None]


@torch.no_grad()
def test_the_file_of_b0_computes_the_published_log_disparity():
    encoder, decoder = _b0_encoder(), _decoder([32, 24, 40, 112, 320])
    model, image = lrn_efficientnet_b0(pretrained=False, released_taps=True).eval(), torch.rand(1, 3, 64, 96)
    load_published(model, _file(encoder, decoder), source="gp2")
    features = _b0_features(_normalised(image), encoder)
    for found, expected in zip(model.encode(image), features, strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
    expected = _decode(features, decoder)
    assert expected.std() > 1e-2
    assert_close(model(image), expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


@torch.no_grad()
def test_the_file_of_mobilenet_computes_the_published_log_disparity():
    (encoder, layers), decoder = _mobilenet(), _decoder([16, 24, 32, 96, 320])
    model, image = lrn_mobilenetv2(pretrained=False).eval(), torch.rand(1, 3, 64, 96)
    load_published(model, _file(encoder, decoder), source="gp2")
    x, maps = _normalised(image), []
    for layer in layers:
        x = layer(x)
        maps.append(x)
    expected = _decode(maps, decoder)
    assert expected.std() > 1e-2
    assert_close(model(image), expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_files_of_other_maps_and_incomplete_ones_are_refused_by_name_and_nothing_is_loaded():
    file = _file(_b0_encoder(), _decoder([32, 24, 40, 112, 320]))
    model = lrn_efficientnet_b0(pretrained=False)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"gp2 for this DepthNet \(.* released_taps=True\).* 28 of another shape: decoder\.n"
    ):
        load_published(model, file, source="gp2")
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    with pytest.raises(CheckpointError, match=r"64 unexpected: encoder\.backbone\.blocks\.0\.0\.se\.conv_reduce\.weight, "):
        load_published(lrn_efficientnet_lite0(pretrained=False, released_taps=True), file, source="gp2")
    for key in ("0._blocks.4._project_conv.weight", "0._blocks.7._bn1.bias", "1.adapters.2.0.bias"):
        del file[f"branches.{key}"]
    gone = r"3 missing: .*\.blocks\.2\.1\.conv_pwl\.weight, .*\.blocks\.3\.2\.bn2\.bias, decoder\.narrow\.2\.bias\. Take"
    with pytest.raises(CheckpointError, match=gone):
        load_published(lrn_efficientnet_b0(pretrained=False, released_taps=True), file, source="gp2")


@pytest.mark.quick(name=["lite0", "b0", "b5"])
@pytest.mark.parametrize(
    ("name", "millions"),
    [("lite0", 3.550), ("b0", 4.234), ("b1", 6.739), ("b2", 7.970), ("b3", 11.026), ("b4", 17.998), ("b5", 28.908)],
)
def test_released_maps_are_at_every_stride_and_make_networks_of_the_counted_size(name, millions):
    with torch.device("meta"):
        model = getattr(depthkit.models, f"lrn_efficientnet_{name}")(pretrained=False, released_taps=True)
        maps = model.encode(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(model.encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)


def test_maps_after_the_last_block_of_each_stride_are_those_taken_by_default():
    one, other = (lrn_timm("mobilenetv2_035", pretrained=False, taps=taps).eval() for taps in (None, (1, 3, 6, 13, 17)))
    rebuilt, image = build(other.config).eval(), torch.rand(1, 3, 32, 64)
    for model in (other, rebuilt):
        model.load_state_dict(one.state_dict())
        assert_close(model(image), one(image), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("backbone", "taps", "sentence"),
    [
        ("mobilenetv2_035", (1, 3, 6, 13, 18), r"expected taps from 0, the stem, to 17, .*; got \(1, 3, 6, 13, 18\)\."),
        ("mobilenetv2_035", (1, 2, 3), r"strides double .*; got \(2, 4, 4\)"),
        ("test_resnet", (0, 1), r"expected an EfficientNet or MobileNetV2 .*; got test_resnet"),
    ],
)
def test_maps_that_are_not_there_are_refused(backbone, taps, sentence):
    with pytest.raises(RecipeError, match=sentence):
        lrn_timm(backbone, pretrained=False, taps=taps)
