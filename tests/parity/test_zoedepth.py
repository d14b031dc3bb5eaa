"""ZoeDepth's head on our features against that of the package ``transformers``, same random weights and images."""

import pytest
import torch
from torch import nn

from depthkit.errors import CheckpointError
from depthkit.models import DepthNet, dpt_timm, load_published, zoedepth

transformers = pytest.importorskip("transformers")

from tests.parity.test_depth_anything import TINY, V1_TINY, backbone_config, difference, published_names, randomize  # noqa: E402

_RANGE = (1e-3, 10.0)  # as in the configuration's default


def _oracle(kind: str) -> nn.Module:
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone_config(V1_TINY, **TINY),
        readout_type="ignore",
        backbone_hidden_size=TINY["hidden_size"],
        neck_hidden_sizes=[12, 24, 48, 96],
        fusion_hidden_size=16,
        bottleneck_features=16,
        bin_centers_type=kind,
    )
    model = transformers.ZoeDepthForDepthEstimation(config).eval()
    randomize(model)
    with torch.no_grad():  # a low temperature, which shows the distribution's details
        model.metric_head.conditional_log_binomial.mlp[2].bias.copy_(torch.tensor([0.0, 0.0, -6.0, 2.0]))
    stage = model.neck.reassemble_stage

    def reassembled(states: list[torch.Tensor], height: int, width: int) -> list[torch.Tensor]:
        """What the package's own means to do without a readout, where it fails on a tensor of four dimensions."""
        maps = [x[:, 1:].transpose(1, 2).unflatten(2, (height, width)) for x in states]
        return [layer(x) for layer, x in zip(stage.layers, maps, strict=True)]

    stage.forward = reassembled
    return model


def _ours(kind: str) -> DepthNet:
    base = dpt_timm("test_vit", pretrained=False, hooks="v1", features=16, options={"init_values": 1e-5})
    return zoedepth(base, depth_range=_RANGE if kind == "normed" else None).eval()


def _published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names in the file of ZoeDepth's authors, with the constants it holds."""
    names = {
        f"metric_head.{part}": part for part in ("conv2", "conditional_log_binomial.mlp.0", "conditional_log_binomial.mlp.2")
    }
    for part in ("seed_bin_regressor", "seed_projector", *(f"{x}.{i}" for x in ("projectors", "attractors") for i in range(4))):
        names |= {f"metric_head.{part}.conv{k}": f"{part}._net.{2 * (k - 1)}" for k in (1, 2)}
    bins = {f"{new}.{leaf}": state[f"{old}.{leaf}"] for old, new in names.items() for leaf in ("weight", "bias")}
    base = {key.replace("relative_head.", "head."): x for key, x in state.items() if not key.startswith("metric_head.")}
    constants = {f"conditional_log_binomial.log_binomial_transform.{name}": torch.zeros(1) for name in ("k_idx", "K_minus_1")}
    return bins | {f"core.core.{key}": x for key, x in published_names(base).items()} | constants


@pytest.mark.parametrize("kind", ["softplus", "normed"])
def test_metric_bins_are_those_of_transformers(kind, record_property):
    theirs, ours = _oracle(kind), _ours(kind)
    load_published(ours, theirs.state_dict(), source="zoedepth")
    # 0 and 1e-6 where both round alike; a low temperature enlarges another rounding a thousand times
    assert difference(ours, theirs, 96, 160, record_property) < 1e-3


def test_the_authors_file_holds_the_same_network():
    theirs = _oracle("softplus").state_dict()
    ours, again = _ours("softplus"), _ours("softplus")
    load_published(ours, theirs, source="zoedepth")
    load_published(again, _published(theirs), source="zoedepth")
    assert all(torch.equal(x, y) for x, y in zip(ours.state_dict().values(), again.state_dict().values(), strict=True))


def test_bounded_and_unbounded_bins_are_not_mistaken_for_each_other():
    with pytest.raises(CheckpointError, match=r"of another shape: head\.attractors\.0\.2\.weight \(32, 128, 1, 1\) instead of"):
        load_published(_ours("softplus"), _oracle("normed").state_dict(), source="zoedepth")
