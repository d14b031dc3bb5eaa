"""Adapters: what is stored is an ordinary network that predicts the same, all else stays, and a run goes on as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

from depthkit.callbacks import Adapters, Frozen
from depthkit.callbacks.adapters import attention_layers
from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import RecipeError
from depthkit.models import DepthNet, dpt_timm, from_pretrained, midas_timm, save_network
from depthkit.paradigms import MetricModule
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Batch

STEPS = 4


class Rooms(Dataset[Any]):
    samples = SyntheticScenes(2, size=(32, 48), kind="room")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index].replace(sky=None)


def batch_of(samples: list[Any]) -> Batch:
    return to_float(collate(samples, [0] * len(samples)))


def network() -> DepthNet:
    torch.manual_seed(0)
    return dpt_timm("test_vit", pretrained=False, features=16, max_depth=20.0)


def trained(steps: int, *, start: Path | None = None, rank: int = 2) -> tuple[Trainer, Any, DepthNet]:
    """A trainer after some steps, its module, and the network before."""
    seed_everything(0, verbose=False)
    net = network()
    module = MetricModule(net, optimizer=lambda groups: torch.optim.AdamW(groups, lr=3e-3))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks: Any = [Frozen(), Adapters(rank)]
    trainer = Trainer(max_steps=steps, accelerator="cpu", callbacks=callbacks, limit_val_batches=0, **quiet)
    trainer.fit(module, DataLoader(Rooms(), batch_size=2, collate_fn=batch_of), ckpt_path=start)
    return trainer, module, network()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Any, DepthNet]:
    return trained(STEPS)


def test_what_is_stored_is_an_ordinary_network_that_predicts_the_same(run: Any, tmp_path: Path) -> None:
    trainer, module, plain = run
    assert module.model.state_dict().keys() == plain.state_dict().keys()
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    save_network(module.model, tmp_path / "net.ckpt", ambiguity="metric")
    image = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        adapted = module.model.eval()(image)
        for file in ("run.ckpt", "net.ckpt"):
            again = from_pretrained(tmp_path / file)
            assert not any("lora" in name for name, _ in again.named_parameters())
            assert_close(again(image), adapted, rtol=1e-4, atol=1e-5)
        assert (plain.eval()(image) - adapted).abs().max() > 1e-3


def test_only_attention_moves_by_a_low_rank_and_the_rest_of_the_encoder_stays(run: Any) -> None:
    _, module, plain = run
    before, after = plain.state_dict(), module.model.state_dict()
    layers = {f"encoder.{name}.weight" for name in attention_layers(plain)}
    for name, x in before.items():
        if name in layers:
            values = torch.linalg.svdvals((after[name] - x).double())
            assert values[0] > 1e-5
            assert values[2] < 1e-5 * values[0] + 1e-7  # rank 2, but for the rounding of the sum
        elif name.startswith("encoder."):
            assert torch.equal(x, after[name]), name
    assert any(not torch.equal(x, after[name]) for name, x in before.items() if name.startswith("decoder."))


def test_an_interrupted_run_goes_on_with_the_same_numbers(run: Any, tmp_path: Path) -> None:
    trainer, _, _ = trained(STEPS // 2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed, _ = trained(STEPS, start=tmp_path / "half.ckpt")
    expected = run[1].state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in resumed.state_dict().items())


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224"])
def test_no_adapter_is_dead(name: str) -> None:
    small = {"depth": 4, "embed_dim": 48, "num_heads": 3}
    net = dpt_timm(name, pretrained=False, features=8, options=small)
    module = torch.nn.Module()
    module.model = net
    callback: Any = Adapters(2)
    callback.setup(None, module, "fit")
    side = 2 * net.size_multiple
    net.train()(torch.rand(1, 3, side, side)).sum().backward()
    grads = {key: p.grad for key, p in net.encoder.named_parameters() if "lora_B" in key}
    assert len(grads) >= 4
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads.values())


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(RecipeError, match="expected a transformer as encoder"):
        attention_layers(midas_timm("mobilenetv3_small_050", pretrained=False, features=8))
    with pytest.raises(RecipeError, match="above 0; got 0"):
        Adapters(0)
