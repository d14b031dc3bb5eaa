"""Files and folders of published networks with random weights, as their authors wrap them, and references for their maps.

Each function writes what an entry of the registry fetches and returns its path and what predicts an image file instead:
networks of transformers, diffusers, torchvision, the authors' packages or the converters' tests, by the rules of ``rules.py``.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnext101_32x8d

from tests.models.weights.test_convert import PublishedMidas, _midas_small, _resnet_stages
from tests.models.weights.test_convert_monodepth2 import _decode, _depth_file, _encoder_file, _features, _pose_file
from tests.parity.gp2_oracle import Lite0, MobileNet, efficientnet, importable, trained_like
from tests.parity.gp2_oracle import Network as Gp2
from tests.parity.published import rules
from tests.parity.published.diffusion import marigold
from tests.parity.published.rules import HALF, IMAGENET, Called, Network, Side, Written
from tests.parity.test_depth_anything import TINY, V1_TINY, backbone_config, published_names
from tests.parity.test_monodepth2 import _folder
from tests.parity.test_zoedepth import _published

WIDTHS = {"small": 384, "base": 768, "large": 1024}
DEPTHS = {"small": 12, "base": 12, "large": 24}


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Every weight and statistic away from its default; and gains of a half, which enlarge no rounding."""
    generator = torch.Generator().manual_seed(0)
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if not x.is_floating_point():
            continue
        noise = torch.randn(x.shape, generator=generator)
        if name.endswith("running_var"):
            x.copy_(0.75 + 0.5 * torch.rand(x.shape, generator=generator))
        elif name.endswith("running_mean"):
            x.copy_(0.1 * noise)
        elif isinstance(x, nn.Parameter) and x.ndim > 1 and "embedding" not in name:
            x.copy_((1.0 if "metric_head" in name else 0.5) * noise / x[0].numel() ** 0.5)
        elif isinstance(x, nn.Parameter):
            x.copy_(0.2 * noise + (0.5 if name.endswith(("weight", "lambda1")) else 0))
    return model.eval()


@torch.no_grad()
def settle(model: nn.Module, network: Network, size: tuple[int, int], mean: float = 2.0) -> nn.Module:
    """Let the last layer give a map of deviation 1 around a mean, on a smooth image."""
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.out_channels == 1][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(F.interpolate(torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)), size, mode="bicubic"))
    hook.remove()
    last.bias.copy_((last.bias - seen[0].mean()) / seen[0].std() + mean)
    last.weight.div_(seen[0].std())
    return model


@torch.no_grad()
def warm(model: nn.Module) -> nn.Module:
    """Give ZoeDepth's distributions a high temperature; a low one enlarges the rounding of any two orders of summation."""
    for name, x in model.named_parameters():
        if "conditional_log_binomial" in name and name.endswith("mlp.2.bias"):
            x.copy_(torch.tensor([0.0, 0.5, -1.0, 1.0]))
    return model


# MiDaS


def midas(name: str, folder: Path, side: Side = None) -> Written:
    small, large = name == "midas_v21_small", (256, 512, 1024, 2048)
    network = _midas_small() if small else PublishedMidas(_resnet_stages(resnext101_32x8d(weights=None)), large, 256)
    state = settle(randomize(network), network, (96, 128)).state_dict()
    path = folder / "midas.pt"
    torch.save({"model": state, "optimizer": {"state": {}}} if name == "midas_v2" else state, path)  # their loader allows both
    return Written(path, rules.midas(network, side or (256 if small else 384), "upper_bound", IMAGENET), network)


def save(model: nn.Module, folder: Path, **processor: Any) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def predicted(model: nn.Module) -> Called:
    return Called(lambda image: model(pixel_values=image).predicted_depth[:, None], model)


def on_any_grid(model: nn.Module) -> Called:
    stage, network = model.neck.reassemble_stage, predicted(model)
    own = stage.forward

    def run(image: Tensor) -> Tensor:
        model.dpt.embeddings.image_size = image.shape[2:]
        stage.forward = lambda states, *_: own(states, image.shape[2] // 16, image.shape[3] // 16)
        return network(image)

    return Called(run, model)


def beit(side: int, tiny: bool) -> Any:
    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    if not tiny:
        shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    stages = [f"stage{shape['num_hidden_layers'] * k // 4}" for k in (1, 2, 3, 4)]
    return transformers.BeitConfig(
        image_size=side, use_relative_position_bias=True, reshape_hidden_states=False, out_features=stages, **shape
    )


def dpt_config(name: str, tiny: bool) -> Any:
    small = {"fusion_hidden_size": 16} if tiny else {}
    if name == "dpt_beit_large_512":
        widths = [8, 8, 16, 16] if tiny else [256, 512, 1024, 1024]
        backbone = beit(512, tiny)
        return transformers.DPTConfig(
            backbone_config=backbone, hidden_size=backbone.hidden_size, image_size=512, neck_hidden_sizes=widths, **small
        )
    if name.startswith("dpt_swin2"):
        large = name == "dpt_swin2_large_384"
        width, depths, heads = (192, (2, 2, 18, 2), (6, 12, 24, 48)) if large else (96, (2, 2, 6, 2), (3, 6, 12, 24))
        if tiny:
            width, depths, heads = 16, (1, 1, 1, 1), (1, 2, 4, 8)
        backbone = transformers.Swinv2Config(
            image_size=384 if large else 256, embed_dim=width, depths=depths, num_heads=heads, window_size=24 if large else 16,
            pretrained_window_sizes=(12, 12, 12, 6) if large else (0, 0, 0, 0),
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        widths = [width * 2**k for k in range(4)]
        return transformers.DPTConfig(backbone_config=backbone, hidden_size=8 * width, neck_hidden_sizes=widths, **small)
    if name == "dpt_hybrid":
        return transformers.DPTConfig(
            is_hybrid=True, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
            neck_hidden_sizes=[256, 512, 768, 768], backbone_out_indices=[2, 5, 8, 11], readout_type="project",
        )  # fmt: skip
    if tiny:
        return transformers.DPTConfig(
            hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16], **small,
        )  # fmt: skip
    return transformers.DPTConfig()


def dpt(name: str, folder: Path, side: Side = None, *, tiny: bool = False) -> Written:
    model = randomize(transformers.DPTForDepthEstimation(dpt_config(name, tiny)))
    own = int(name.rpartition("_")[2]) if name[-1].isdigit() else 384
    network = predicted(model) if model.backbone is not None else on_any_grid(model)
    settle(model, network, (own, own) if "swin2" in name else (96, 128))
    save(model, folder, size={"height": own, "width": own}, image_mean=HALF[0], image_std=HALF[1])
    return Written(folder, rules.midas(network, side or own, "stretch" if "swin2" in name else "minimal", HALF), network)


def zoedepth(name: str, folder: Path, side: Side = None, *, tiny: bool = False) -> Written:
    own = (384, 768) if name == "zoedepth_k" else (384, 512)
    bins = 8 if tiny else 64
    config: dict[str, Any] = {"backbone_config": beit(384, tiny), "bin_centers_type": "softplus"}
    if tiny:
        config |= {
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
            "bottleneck_features": 16,
            "bin_embedding_dim": 16,
        }
    else:
        config["neck_hidden_sizes"] = [256, 512, 1024, 1024]
    config["backbone_hidden_size"] = config["backbone_config"].hidden_size
    if name == "zoedepth_k":
        config |= {"bin_centers_type": "normed", "bin_configurations": [{"n_bins": bins, "min_depth": 1e-3, "max_depth": 80.0}]}
    if name == "zoedepth_nk":
        reach = {"nyu": 10.0, "kitti": 80.0}
        heads = [{"name": scene, "n_bins": bins, "min_depth": 1e-3, "max_depth": far} for scene, far in reach.items()]
        config |= {"bin_configurations": heads, "num_patch_transformer_layers": 4, "patch_transformer_hidden_size": 128}
        config |= {"patch_transformer_intermediate_size": 1024, "patch_transformer_num_attention_heads": 4}
    model = randomize(transformers.ZoeDepthForDepthEstimation(transformers.ZoeDepthConfig(**config)))
    warm(model)
    size = {"height": own[0], "width": own[1]}
    processor = {"keep_aspect_ratio": True, "ensure_multiple_of": 32, "do_pad": True, "resample": 2}
    save(model, folder, size=size, image_mean=HALF[0], image_std=HALF[1], **processor)
    network = predicted(model)
    return Written(folder, rules.zoedepth(network, side or own), network)


# Depth Anything


def dinov2_positions(embeddings: nn.Module, tokens: Tensor, height: int, width: int) -> Tensor:
    """DINOv2's own rule: scale by (n + 0.1) / 37."""
    whole, patch = embeddings.position_embeddings, embeddings.config.patch_size
    rows, columns, side = height // patch, width // patch, round((whole.shape[1] - 1) ** 0.5)
    if rows * columns == whole.shape[1] - 1 and rows == columns:
        return whole
    image = whole[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
    assert image.shape[2:] == (rows, columns)
    return torch.cat([whole[:, :1], image.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def dinov2(size: str, hooks: str) -> Any:
    depth = DEPTHS[size]
    v2 = [5, 12, 18, 24] if size == "large" else [3, 6, 9, 12]
    return transformers.Dinov2Config(
        out_indices=v2 if hooks == "v2" else list(range(depth - 3, depth + 1)), apply_layernorm=True,
        reshape_hidden_states=False, layer_norm_eps=1e-6, hidden_size=WIDTHS[size], num_hidden_layers=depth,
        num_attention_heads=WIDTHS[size] // 64, image_size=518, patch_size=14, mlp_ratio=4,
    )  # fmt: skip


def with_dinov2_positions(model: nn.Module) -> nn.Module:
    embeddings = model.backbone.embeddings
    embeddings.interpolate_pos_encoding = partial(dinov2_positions, embeddings)
    return model


def depth_anything(name: str, folder: Path, side: Side = None, *, tiny: bool = False) -> Written:
    version, size = name.split("_")[2], name.rpartition("_")[2]
    widths = {"small": [48, 96, 192, 384], "base": [96, 192, 384, 768], "large": [256, 512, 1024, 1024]}[size]
    head = {"depth_estimation_type": "metric", "max_depth": 80 if "vkitti" in name else 20} if "metric" in name else {}
    config = transformers.DepthAnythingConfig(
        backbone_config=dinov2(size, version), reassemble_hidden_size=WIDTHS[size], patch_size=14, neck_hidden_sizes=widths,
        fusion_hidden_size={"small": 64, "base": 128, "large": 256}[size], **head,
    )  # fmt: skip
    if tiny:
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone_config(V1_TINY, **TINY), reassemble_hidden_size=64, patch_size=16,
            neck_hidden_sizes=[12, 24, 48, 96], fusion_hidden_size=16, **head,
        )  # fmt: skip
    model = randomize(with_dinov2_positions(transformers.DepthAnythingForDepthEstimation(config)))
    network = predicted(model)
    settle(model, network, (112, 112), mean=0.0 if head else 2.0)
    path = folder / "depth_anything.pth"
    torch.save(published_names(model.state_dict()), path)
    like = (16, HALF) if tiny else (14, IMAGENET)
    return Written(path, rules.depth_anything(network, side or 518, *like, align_corners=version == "v2"), network)


def depth_anything_metric(name: str, folder: Path, side: Side = None, *, tiny: bool = False) -> Written:
    """Version 1's metric networks: ZoeDepth on DINOv2, with the trainer's entries beside the weights."""
    config = transformers.ZoeDepthConfig(
        backbone_config=dinov2("large", "v1"), readout_type="ignore", backbone_hidden_size=1024,
        neck_hidden_sizes=[256, 512, 1024, 1024],
    )  # fmt: skip
    if tiny:
        config = transformers.ZoeDepthConfig(
            backbone_config=backbone_config(V1_TINY, **TINY), readout_type="ignore", backbone_hidden_size=64,
            neck_hidden_sizes=[12, 24, 48, 96], fusion_hidden_size=16, bottleneck_features=16,
        )  # fmt: skip
    model = warm(randomize(with_dinov2_positions(transformers.ZoeDepthForDepthEstimation(config))))
    stage = model.neck.reassemble_stage

    def reassembled(states: list[Tensor], height: int, width: int) -> list[Tensor]:  # the package's own fails without readout
        maps = [x[:, 1:].transpose(1, 2).unflatten(2, (height, width)) for x in states]
        return [layer(x) for layer, x in zip(stage.layers, maps, strict=True)]

    stage.forward = reassembled
    network = predicted(model)
    settle(model, network, (96, 160) if tiny else (98, 140))
    path = folder / f"{name}.pt"
    state = {f"module.{key}": x for key, x in _published(model.state_dict()).items()}
    torch.save({"model": state, "optimizer": None, "epoch": 5}, path)
    size = side or ((384, 512) if tiny else (392, 518))  # the tiny network's patches have 16 pixels
    return Written(path, rules.depth_anything_metric(network, size, HALF if tiny else IMAGENET), network)


# GP2


def gp2(name: str, folder: Path, side: Side = None) -> Written:
    torch.manual_seed(0)
    size = name.removeprefix("gp2_")
    if size == "mobilenetv2":
        network = Gp2(MobileNet())
    elif "DEPTHKIT_GP2" not in os.environ:
        pytest.skip("needs DEPTHKIT_GP2, the folder of packages that test_gp2.py says how to unpack")
    else:
        with importable(os.environ["DEPTHKIT_GP2"]):
            network = Gp2(Lite0() if size == "lite0" else efficientnet(size))
    generator = torch.Generator().manual_seed(0)
    # in deep networks the statistics of fewer pixels fit no other image: of b5's map 1e-7 of the input then moves a tenth
    seen = (192, 256)
    smooth = F.interpolate(torch.rand(2, 3, 5, 7, generator=generator), seen, mode="bicubic")
    trained_like(network, rules.normalised(smooth + 0.05 * torch.rand(smooth.shape, generator=generator), IMAGENET))
    encoder, decoder = network.branches
    called = Called(lambda image: decoder(list(encoder.maps(image))), network)
    settle(network, called, seen, mean=0.0)
    path = folder / "gp2.pth"
    torch.save(network.state_dict(), path)
    return Written(path, rules.gp2(called, side or 384), called)


def of_package(layers: int, folder: Path) -> tuple[dict[str, dict], Network]:
    with importable(folder):
        import networks

        encoder = randomize(networks.ResnetEncoder(layers, False))
        decoder = randomize(networks.DepthDecoder(encoder.num_ch_enc, range(4)))
        pose_encoder = randomize(networks.ResnetEncoder(18, False, num_input_images=2))
        pose = randomize(networks.PoseDecoder(pose_encoder.num_ch_enc, 1, num_frames_to_predict_for=2))
    parts = {"encoder": encoder, "depth": decoder, "pose_encoder": pose_encoder, "pose": pose}
    sigmoid = Called(lambda image: decoder(encoder(image))["disp", 0], encoder, decoder)
    return {name: part.state_dict() for name, part in parts.items()}, sigmoid


def written_here() -> tuple[dict[str, dict], Network]:
    (encoder_file, encoder), depth = _encoder_file(), _depth_file()
    files = {"encoder": encoder_file, "depth": depth, "pose_encoder": _encoder_file(2)[0], "pose": _pose_file(1, 2)}
    return files, lambda image: _decode(_features(encoder, image), depth)[0]


def monodepth2(name: str, folder: Path, side: Side = None, *, quick: bool = False) -> Written:
    """The zip, with the training size beside the encoder; stereo alone has no pose network."""
    width, height = map(int, name.rpartition("_")[2].split("x"))
    package = _folder()
    if package is None and not quick:
        pytest.skip("needs DEPTHKIT_MONODEPTH2, the unpacked package that test_monodepth2.py says how to get")
    files, sigmoid = written_here() if quick else of_package(50 if "resnet50" in name else 18, package)
    files["encoder"] |= {"height": height, "width": width, "use_stereo": "stereo" in name}
    if "mono" not in name.removeprefix("monodepth2").split("_"):
        del files["pose_encoder"], files["pose"]
    path = folder / f"{name.removeprefix('monodepth2_')}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in files.items():
            buffer = io.BytesIO()
            torch.save(content, buffer)
            archive.writestr(f"{path.stem}/{part}.pth", buffer.getvalue())
    reference = rules.monodepth2(sigmoid, (height, width), metres="stereo" in name)
    return Written(path, reference, None if quick else sigmoid)


PHOTO, FRAME = 0, 1
QUICK: dict[str, tuple[Callable[..., Written], int]] = {
    "midas_v21_small": (midas, PHOTO),
    "dpt_large": (partial(dpt, tiny=True), FRAME),
    "dpt_swin2_tiny_256": (partial(dpt, tiny=True), FRAME),
    "zoedepth_nk": (partial(zoedepth, tiny=True), PHOTO),
    "depth_anything_v2_metric_vkitti_small": (partial(depth_anything, tiny=True), FRAME),
    "depth_anything_v1_metric_indoor": (partial(depth_anything_metric, tiny=True), PHOTO),
    "gp2_mobilenetv2": (gp2, PHOTO),
    "monodepth2_mono_640x192": (partial(monodepth2, quick=True), FRAME),
    "marigold_v1_1": (partial(marigold, tiny=True), FRAME),
    "marigold_e2e_ft": (partial(marigold, tiny=True), FRAME),
}
"""One of each code path with the image to predict, the smallest network there is, or a small one where the path allows it."""
FAMILIES: tuple[tuple[str, Callable[[str, Path], Written], str], ...] = (
    ("midas_", midas, "MiDaS' layout on torchvision and timm"),
    ("dpt_", dpt, "transformers"),
    ("zoedepth_", zoedepth, "transformers"),
    ("depth_anything_v1_metric_", depth_anything_metric, "transformers"),
    ("depth_anything_", depth_anything, "transformers"),
    ("gp2_", gp2, "GP2's layout on torchvision, geffnet, smp 0.1.0"),
    ("monodepth2_", monodepth2, "PyPI monodepth2"),
    ("", marigold, "diffusers"),
)


def family(name: str) -> SimpleNamespace:
    """The first family whose names begin so: how to write its files, and whose networks they are compared with."""
    _, write, reference = next(row for row in FAMILIES if name.startswith(row[0]))
    return SimpleNamespace(write=write, reference=reference)
