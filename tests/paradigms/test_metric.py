from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from depthkit.errors import LabelError, RecipeError
from depthkit.losses import SILogLoss
from depthkit.models import dpt_timm, zoedepth
from depthkit.paradigms import MetricModule, SemiSupervisedModule
from depthkit.types import Ambiguity, Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, TinyNet, batch, sgd, trainer, weights_after
from tests.contracts.ranks import on_ranks

ROWS = [(0, METRIC_DEPTH)] * 6


def module(**options: Any) -> MetricModule:
    torch.manual_seed(0)
    return MetricModule(TinyNet(Representation.DEPTH), **{"optimizer": sgd, **options})


def test_the_loss_is_zoedepths_on_labels_in_range() -> None:
    m, b = module(label_range=(2.0, 5.0)), batch(ROWS)
    losses, counted, _ = m.losses(b)["metric"]
    prediction = m(b.image).detach()
    for row, loss in enumerate(losses):
        depth, known = b.target[row], b.valid[row]
        kept = known & (depth >= 2) & (depth <= 5)
        g = prediction[row][kept].log() - depth[kept].log()
        if kept.any():
            assert_close(loss, 10 * (g.var(correction=0) + 0.15 * g.mean() ** 2).sqrt())
        assert bool(counted[row]) == bool(kept.any())


@pytest.mark.parametrize("representation", [Representation.LOG_DEPTH, Representation.DISPARITY])
def test_what_the_network_outputs_does_not_matter(representation: Representation) -> None:
    b, depth_net, other = batch(ROWS), module(), module()

    class Converted(TinyNet):
        def forward(self, image: Tensor) -> Tensor:
            depth = super().forward(image)
            return depth.log() if representation == Representation.LOG_DEPTH else 1 / depth

    torch.manual_seed(0)
    other.model = Converted(representation)
    assert_close(other.losses(b)["metric"].values, depth_net.losses(b)["metric"].values)


def ranks_agree(_: int, root: Path, ranks: int) -> list[dict[str, Tensor]]:
    data = [Memory([batch(ROWS, unlabelled=[1])], (METRIC_DEPTH,), split) for split in ((3, 3), (1, 5))]
    return [weights_after(module(), memory, root, ranks=ranks) for memory in data]


def test_a_step_on_two_ranks_is_the_step_on_one(tmp_path: Path) -> None:
    start = torch.cat([p.detach().flatten() for p in module().model.parameters()])
    one, (two, other) = ranks_agree(0, tmp_path, 1), on_ranks(2, ranks_agree, tmp_path, 2)
    for alone, together, rival in zip(one, two, other, strict=True):
        flat = [torch.cat([p.flatten() for p in weights.values()]) for weights in (alone, together, rival)]
        change = flat[0] - start
        assert change.norm() > 1e-3
        assert_close(flat[1] - start, change, rtol=0, atol=1e-4 * change.norm().item())
        assert_close(flat[2], flat[1], rtol=0, atol=0)


def test_a_relative_model_becomes_a_metric_one(tmp_path: Path) -> None:
    """Teacher, then a sigmoid network on its encoder, then more of the same, and ZoeDepth's bins on the teacher."""
    relative = partial(dpt_timm, "test_vit", pretrained=False, features=16)
    memory = Memory([batch(ROWS[:2], size=(32, 48))], (METRIC_DEPTH,))
    first = SemiSupervisedModule(relative(), unlabelled_weight=0.0, feature_weight=0.0)
    run = trainer(tmp_path)
    run.fit(first, datamodule=memory)
    run.save_checkpoint(tmp_path / "relative.ckpt")
    still = partial(torch.optim.SGD, lr=0.0)
    second = MetricModule(relative(max_depth=10.0), weights=tmp_path / "relative.ckpt", optimizer=still)
    fresh = {name: x.clone() for name, x in second.model.decoder.state_dict().items()}
    run = trainer(tmp_path)
    run.fit(second, datamodule=memory)
    assert_close(second.model.encoder.state_dict(), first.model.encoder.state_dict(), rtol=0, atol=0)
    assert_close(dict(second.model.decoder.state_dict()), fresh, rtol=0, atol=0)
    run.save_checkpoint(tmp_path / "metric.ckpt")
    more = MetricModule(relative(max_depth=10.0), weights=tmp_path / "metric.ckpt", optimizer=still)
    trainer(tmp_path).fit(more, datamodule=memory)
    assert_close(more.model.state_dict(), second.model.state_dict(), rtol=0, atol=0)
    third = MetricModule(zoedepth(first.model), optimizer=partial(torch.optim.Adam, lr=1e-4), encoder_lr=2e-6)
    trainer(tmp_path).fit(third, datamodule=memory)
    assert (third(memory.batches[0].image) > 0).all()
    assert third.ambiguity == Ambiguity.METRIC


def test_what_bins_are_put_on_learns_at_a_rate_of_its_own() -> None:
    """Encoder, the base's decoder and head, and what is new: every weight is in one group."""
    torch.manual_seed(0)
    base = dpt_timm("test_vit", pretrained=False, features=16)
    old = {id(p) for p in base.parameters()}
    m = MetricModule(zoedepth(base), encoder_lr=1e-6, base_lr=2e-6)
    groups = m.parameter_groups()
    assert [group.get("lr") for group in groups] == [1e-6, 2e-6, None]
    assert {id(p) for group in groups[:2] for p in group["params"]} == {id(p) for p in base.parameters() if p.requires_grad}
    assert not {id(p) for p in groups[2]["params"]} & old
    kept = [id(p) for group in groups for p in group["params"]]
    assert sorted(kept) == sorted(id(p) for p in m.parameters() if p.requires_grad)
    assert len(MetricModule(zoedepth(base)).parameter_groups()) == 2


def test_depth_of_another_size_is_compared_at_the_labels_own(tmp_path: Path) -> None:
    shown: list[Tensor] = []
    m, b = module(network_size=(10, 20)), batch(ROWS)
    m.model.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    losses = m.losses(b)["metric"].values
    assert shown[0].shape == (6, 3, 10, 20)
    assert_close(shown[0], torch.nn.functional.interpolate(b.image, (10, 20), mode="bilinear"))
    depth = torch.nn.functional.interpolate(m.model(shown[0]), b.target.shape[-2:], mode="bilinear", align_corners=True)
    assert_close(losses, m.loss(depth, b.target, b.valid & (b.target <= 80)))
    run = trainer(tmp_path)
    run.fit(m, datamodule=Memory([b], (METRIC_DEPTH,)))
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["depthkit"]["size"] == [10, 20]
    own = module(network_size=tuple(b.image.shape[-2:]))
    assert_close(own.losses(b)["metric"].values, module().losses(b)["metric"].values, rtol=0, atol=0)


def test_it_learns(tmp_path: Path) -> None:
    batches = [batch(ROWS, seed=seed) for seed in range(4)]
    learner = module(optimizer=partial(torch.optim.Adam, lr=1e-2))

    def total() -> float:
        return sum(float(learner.losses(b)["metric"].values.detach().sum()) for b in batches)

    before = total()
    trainer(tmp_path, max_steps=80, max_epochs=-1).fit(learner, datamodule=Memory(batches, (METRIC_DEPTH,)))
    assert total() < 0.6 * before


def test_what_is_not_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="holds shift_scale disparity labels"):
        trainer(tmp_path).fit(module(), datamodule=Memory([batch([(0, FILM)])], (FILM,)))
    with pytest.raises(RecipeError, match="0 <= least < greatest"):
        module(label_range=(5.0, 5.0))
    with pytest.raises(RecipeError, match="expected a network of zoedepth for base_lr=1e-06; got TinyNet"):
        module(base_lr=1e-6)
    with pytest.raises(LabelError, match="expected a loss on metric labels; Film accepts shift_scale"):
        module(loss=type("Film", (SILogLoss,), {"accepts": frozenset({Ambiguity.SHIFT_SCALE})})())
    with pytest.raises(LabelError, match="expected loss to say what it reads; L1Loss does not"):
        module(loss=torch.nn.L1Loss())


def test_slopes_of_the_logarithm_are_a_second_term_that_no_factor_changes() -> None:
    b = batch(ROWS)
    exact = module(gradient_weight=0.5)
    exact.model.forward = lambda image: 3 * b.target  # type: ignore[method-assign]
    terms = exact.losses(b)
    assert terms["gradient"].weight == 0.5
    assert_close(terms["gradient"].values, torch.zeros(len(b)), atol=1e-5, rtol=0)
    assert terms["metric"].values[terms["metric"].counted].min() > 1
    assert (module(gradient_weight=0.5).losses(b)["gradient"].values > 0.01).any()
    with pytest.raises(RecipeError, match="gradient_weight of 0 or more"):
        module(gradient_weight=-1.0)


def test_the_likelihood_is_a_second_term_and_off_by_default(tmp_path: Path) -> None:
    """Off, the numbers are as without it; on, the map begins as without it, and the part learns from labels alone."""
    network = partial(dpt_timm, "test_vit", pretrained=False, features=16, max_depth=10.0)
    b = batch(ROWS, size=(32, 48))
    torch.manual_seed(0)
    plain = MetricModule(network(), optimizer=sgd).eval()
    torch.manual_seed(0)
    both = MetricModule(network(), optimizer=sgd, uncertainty_weight=0.5).eval()
    own = {name: x for name, x in both.model.state_dict().items() if not name.startswith("log_scale.")}
    assert_close(own, dict(plain.model.state_dict()), rtol=0, atol=0)
    assert plain.model.log_scale is None
    one, two = plain.losses(b), both.losses(b)
    assert set(one) == {"metric"}
    assert_close(two["metric"].values, one["metric"].values, rtol=0, atol=0)
    depth, b_scale = both.model.with_uncertainty(b.image)
    kept = b.valid & (b.target <= 80)
    error = (depth.log() - b.target.where(kept, 1).log()).abs()
    values = error / b_scale + b_scale.log()
    assert_close(two["uncertainty"].values, torch.stack([x[m].mean() for x, m in zip(values, kept, strict=True)]))
    assert two["uncertainty"].weight == 0.5
    two["uncertainty"].values.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in both.model.log_scale.parameters())
    run = trainer(tmp_path)
    run.fit(plain, datamodule=Memory([b], (METRIC_DEPTH,)))
    run.save_checkpoint(tmp_path / "plain.ckpt")
    still = partial(torch.optim.SGD, lr=0.0)
    later = MetricModule(network(), weights=tmp_path / "plain.ckpt", optimizer=still, uncertainty_weight=1.0)
    run = trainer(tmp_path)
    run.fit(later, datamodule=Memory([b], (METRIC_DEPTH,)))
    assert_close(later.model.decoder.state_dict(), plain.model.decoder.state_dict(), rtol=0, atol=0)
    run.save_checkpoint(tmp_path / "both.ckpt")
    again: Any = MetricModule.load_from_checkpoint(tmp_path / "both.ckpt", uncertainty_weight=1.0)
    assert again.model.gives_uncertainty
    resized = MetricModule(network(), network_size=(16, 32), uncertainty_weight=1.0)
    assert resized.losses(b)["uncertainty"].values.shape == (6,)
    with pytest.raises(RecipeError, match="uncertainty_weight of 0 or more"):
        module(uncertainty_weight=-1.0)
