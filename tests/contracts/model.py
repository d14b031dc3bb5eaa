"""What every depth network must satisfy. ``ALL_MODELS`` holds a tiny variant of each architecture; a new one adds a row."""

import copy
import pickle
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.models import (
    DepthNet,
    LightRefineNetDecoder,
    LogDisparityHead,
    MidasDecoder,
    MidasHead,
    Monodepth2Net,
    RedWebDecoder,
    RedWebHead,
    TimmEncoder,
    build,
    dpt_timm,
    lrn_timm,
    midas_timm,
    monodepth2_timm,
    zoedepth,
)
from depthkit.types import Representation

_TINY = "test_efficientnet"  # timm's own test network, 82 k parameters


_DPT = {"architecture": "dpt_timm", "backbone": "test_vit", "features": 16}


def _of_parts(decoder, head, strides=(4, 8, 16, 32)) -> DepthNet:
    return DepthNet(TimmEncoder(_TINY, pretrained=False, strides=strides), decoder, head)


ALL_MODELS: Mapping[str, partial[DepthNet]] = {
    "midas": partial(midas_timm, "test_resnet", pretrained=False, features=16),
    "midas_log": partial(
        midas_timm, _TINY, pretrained=False, features=16, representation=Representation.LOG_DEPTH, output_activation="none"
    ),
    "midas_expand": partial(_of_parts, partial(MidasDecoder, features=8, expand=True), MidasHead),
    "redweb": partial(_of_parts, partial(RedWebDecoder, features=16), RedWebHead),
    "lrn": partial(lrn_timm, _TINY, pretrained=False),
    "lrn_plain": partial(
        _of_parts,
        partial(LightRefineNetDecoder, crp_stages=2, crp_average=False, crp_bn=False),
        LogDisparityHead,
        strides=(2, 4, 8, 16, 32),
    ),
    "dpt_vit": partial(dpt_timm, "test_vit", pretrained=False, features=16),
    "dpt_vit_registers": partial(dpt_timm, "test_vit2", pretrained=False, features=16, hooks="v1", max_depth=10.0),
    "dpt_conv": partial(dpt_timm, _TINY, pretrained=False, features=16, output_activation="softplus"),
    "zoedepth": partial(zoedepth, _DPT, pretrained=False),
    "zoedepth_bounded": partial(zoedepth, _DPT, pretrained=False, bins=8, depth_range=(0.1, 80.0)),
    "monodepth2": partial(monodepth2_timm, _TINY, pretrained=False),
    "monodepth2_no_stem": partial(monodepth2_timm, _TINY, pretrained=False, strides=(4, 8, 16, 32), scales=2),
}


class Patches(nn.Module):
    """An encoder of one layer, and a decoder of none."""

    channels, strides, stride, mean, std = (8,), (32,), 32, (0.5,) * 3, (0.5,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 32, 32)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(x)]


class First(nn.Module):
    channels, stride = 8, 32

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return features[0]


def smallest() -> DepthNet:
    """A network of one layer, which takes images of any multiple of 32."""
    return DepthNet(Patches(), First(), LogDisparityHead(8, 32)).eval()


class ModelContract:
    """Subclass it in a test file and give it ``model``, a fixture that is a fresh network in evaluation mode."""

    @pytest.fixture
    def image(self, model: DepthNet) -> torch.Tensor:
        return torch.rand(2, 3, 2 * model.size_multiple, 3 * model.size_multiple)

    def test_predicts_a_float32_map_of_the_image_size_in_its_representation(self, model, image):
        prediction = model(image)
        assert prediction.shape == (2, 1, *image.shape[-2:])
        assert prediction.dtype == torch.float32
        assert prediction.isfinite().all()
        assert prediction.std() > 0
        assert isinstance(model.representation, Representation)

    def test_an_illegal_size_is_refused_with_the_next_legal_one(self, model):
        m = model.size_multiple
        with pytest.raises(ShapeError, match=rf"multiples of {m}; got {m + 1}x{2 * m - 1}\. .* {2 * m}x{2 * m}, the next"):
            model(torch.rand(1, 3, m + 1, 2 * m - 1))
        model(torch.rand(1, 3, 2 * m, 2 * m))

    def test_an_image_of_another_kind_is_refused(self, model, image):
        for wrong in (image[:, :1], image[0], (image * 255).to(torch.uint8)):
            with pytest.raises(ShapeError, match=r"expected image as float RGB of shape \(B, 3, H, W\) in \[0, 1\]; got"):
                model(wrong)

    def test_every_trainable_parameter_receives_a_finite_gradient(self, model, image):
        model.train()
        outputs = model.multiscale(image) if isinstance(model, Monodepth2Net) else [model(image)]
        sum(output.square().sum() for output in outputs).backward()
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert [name for name, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()] == []
        assert all(p.requires_grad and p.grad.abs().sum() > 0 for p in model.last_layer.parameters())

    def test_weights_survive_state_dict_pickle_and_deepcopy(self, model, image):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.normal_()
        other.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
        for same in (other, pickle.loads(pickle.dumps(model))):
            assert_close(same(image), model(image), rtol=0, atol=0)

    @pytest.mark.only(model=lambda name: ALL_MODELS[name].func is not _of_parts)
    def test_its_config_builds_it_again(self, model, image):
        again = build(model.config).eval()
        again.load_state_dict(model.state_dict())
        assert again.representation == model.representation
        assert_close(again(image), model(image), rtol=0, atol=0)

    def test_normalises_its_own_input_with_what_the_encoder_publishes(self, model, image):
        seen = []
        model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(image)
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (model.encoder.mean, model.encoder.std))
        assert_close(seen[0] * std + mean, image)
        assert {"mean", "std"} <= model.state_dict().keys()

    def test_an_image_is_predicted_as_if_it_were_alone(self, model, image):
        assert_close(model(image)[1:], model(image[1:]), rtol=1e-4, atol=1e-5)

    def test_channels_last_changes_only_the_rounding(self, model, image):
        expected = model(image)
        other = model.to(memory_format=torch.channels_last)
        assert_close(other(image.to(memory_format=torch.channels_last)), expected, rtol=1e-3, atol=1e-4)

    def test_bf16_autocast_stays_finite_close_and_float32_at_the_output(self, model, image):
        expected = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = model(image)
        assert prediction.dtype == torch.float32
        assert (prediction - expected).abs().max() < 0.1 * expected.abs().max()

    def test_runs_with_all_weights_in_bf16(self, model, image):
        assert model.to(torch.bfloat16)(image.to(torch.bfloat16)).isfinite().all()

    @pytest.mark.slow
    def test_compiles_in_one_graph(self, model, image):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        with torch.no_grad():
            assert_close(compiled(image), model(image), rtol=1e-4, atol=1e-5)

    @pytest.mark.quick(model=("midas", "lrn", "dpt_vit"))
    def test_exported_program_predicts_the_same(self, model, image):
        with torch.no_grad():
            exported = torch.export.export(model, (image,))
            assert_close(exported.module()(image), model(image), rtol=1e-4, atol=1e-5)
