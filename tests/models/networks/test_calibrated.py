"""A scale and a shift behind a head: what comes out, and that a checkpoint holds them."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.models import (
    build,
    calibrated,
    dpt_timm,
    from_pretrained,
    lrn_timm,
    midas_timm,
    monodepth2_timm,
    save_network,
    zoedepth,
)
from depthkit.resize import InputResize, OutputResize

BUILDERS = {
    "midas": lambda: midas_timm("mobilenetv2_035", pretrained=False, features=8),
    "lrn": lambda: lrn_timm("mobilenetv2_035", pretrained=False),
    "monodepth2": lambda: monodepth2_timm("test_resnet", pretrained=False),
    "zoedepth": lambda: zoedepth(dpt_timm("test_vit", pretrained=False, features=16)),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_its_map_is_scaled_and_shifted_and_a_checkpoint_gives_it_back(name, tmp_path):
    torch.manual_seed(0)
    base = BUILDERS[name]().eval()
    logarithm, image = name == "lrn", torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        plain = base(image)
    shift = 0.0 if logarithm else 0.2
    net = calibrated(base, scale=3.0, shift=shift).eval()
    expected = plain + torch.tensor(3.0).log() if logarithm else (3 * plain + shift).clamp_min(1e-3)
    with torch.inference_mode():
        assert_close(net(image), expected)
    rules = {"input_rule": InputResize((64, 96), "stretch", 32), "output_rule": OutputResize(mode="bicubic")}
    net.input_rule, net.output_rule = rules.values()
    save_network(net, tmp_path / "net.ckpt", ambiguity="metric")
    again = from_pretrained(tmp_path / "net.ckpt")
    assert (again.ambiguity, again.representation) == ("metric", net.representation)
    assert (again.input_rule, again.output_rule) == (rules["input_rule"], rules["output_rule"])
    with torch.inference_mode():
        assert_close(again(image), net(image))
    assert type(build(net.config)) is type(base)


def test_what_is_no_calibration_is_refused():
    for options in ({"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"scale": 1.0, "shift": float("inf")}):
        with pytest.raises(RecipeError, match="expected a positive scale and a finite shift"):
            calibrated(BUILDERS["midas"](), **options)
    with pytest.raises(RecipeError, match="expected no shift for log_disparity"):
        calibrated(BUILDERS["lrn"](), scale=1.0, shift=0.1)
