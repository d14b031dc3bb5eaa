"""What saves time or memory changes nothing that a step computes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.callbacks import Compiled, RecomputedActivations
from depthkit.errors import RecipeError
from depthkit.models import dpt_timm
from depthkit.paradigms import AffineInvariantModule, MetricModule, SemiSupervisedModule
from depthkit.paradigms.optim.optimizers import LookaheadRAdam, build_optimizer
from tests.contracts.device import Device, moved
from tests.contracts.paradigm import METRIC_DEPTH, Memory, TinyNet, batch, trainer
from tests.contracts.student import network

DATA = Memory([batch([(0, METRIC_DEPTH)] * 2, seed=seed, size=(32, 48)) for seed in range(2)], (METRIC_DEPTH,))


def trained(make: Any, root: Path, *callbacks: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = make(optimizer=partial(torch.optim.SGD, lr=1e-2))
    run = trainer(root, max_steps=2, callbacks=list(callbacks), limit_val_batches=1, enable_checkpointing=False)
    run.fit(module, datamodule=DATA)
    return module.state_dict()


def semi(**options: Any) -> Any:
    return SemiSupervisedModule(network(), teacher=network(1), feature_weight=0.0, unlabelled_weight=0.0, **options)


@pytest.mark.parametrize(
    "make",
    [pytest.param(lambda **o: AffineInvariantModule(TinyNet(norm=True), **o), marks=pytest.mark.slow), semi],
    ids=["affine", "semi"],
)
def test_compiled_steps_are_the_steps_and_names_stay(make: Any, tmp_path: Path) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    expected, found = trained(make, tmp_path), trained(make, tmp_path, Compiled(backend="eager"))
    assert found.keys() == expected.keys()
    assert_close(found, expected, rtol=0, atol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3  # something was compiled
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_part_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    class Breaks(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum().item() > 0 else -x

    def broken(**options: Any) -> Any:
        net = TinyNet()
        net.decoder.append(Breaks())
        return AffineInvariantModule(net, **options)

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        trained(broken, tmp_path, Compiled(backend="eager"))


def vit(**options: Any) -> Any:
    net = dpt_timm("test_vit", pretrained=False, features=16, max_depth=10.0)
    return MetricModule(net, **options)


def test_activations_computed_again_give_the_same_gradients(tmp_path: Path) -> None:
    made = []

    def kept(**options: Any) -> Any:
        made.append(vit(**options))
        return made[-1]

    expected, found = trained(kept, tmp_path), trained(kept, tmp_path, RecomputedActivations())
    assert [m.model.encoder.backbone.grad_checkpointing for m in made] == [False, True]
    assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(RecipeError, match="expected a network on a ViTEncoder"):
        trained(lambda **o: AffineInvariantModule(TinyNet(), **o), tmp_path, RecomputedActivations())


def test_an_optimizer_is_fused_where_its_weights_are_on_cuda_and_the_recipe_is_silent() -> None:
    def fused(factory: Any, there: bool) -> Any:
        net = moved(nn.Linear(2, 2)) if there else nn.Linear(2, 2)
        return [group.get("fused") for group in build_optimizer(factory, [{"params": list(net.parameters())}]).param_groups]

    adam = partial(torch.optim.Adam, lr=0.1)
    with Device():
        assert fused(adam, there=True) == fused(partial(torch.optim.SGD, lr=0.1), there=True) == [True]
        assert fused(partial(adam, fused=False), there=True) == [False]
        assert fused(partial(adam, foreach=True), there=True) == [None]
        assert fused(LookaheadRAdam, there=True) == [None]
    assert fused(adam, there=False) == [None]
