"""A training that is killed and resumed sees the batches, and ends with the weights, of one that was not."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from depthkit.data import DepthDataModule, ShardSource, ShardWriter
from depthkit.paradigms.checkpoints import ResumePosition
from depthkit.types import Ambiguity, Sample

SIZE = (8, 8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, split="train", dataset="a", samples_per_shard=5) as writer:
        for i in range(42):
            image = np.random.default_rng(i).integers(0, 256, (10, 12, 3), dtype=np.uint8)
            writer.write(
                Sample(f"s{i:02d}", image, np.full((10, 12), 1.0 + i, np.float32), np.ones((10, 12), bool), Ambiguity.METRIC)
            )
    return folder


class Probe(LightningModule):
    """Writes down what it is given; dies when told."""

    def __init__(self, die_after=None, dropout=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, *SIZE))
        self.seen, self.losses, self.die_after = [], [], die_after

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.keys))
        loss = ((batch.image * self.weight).sum((1, 2, 3)) - batch.target.mean((1, 2, 3))).square().mean()
        self.losses.append(loss.item())
        return loss

    def on_train_batch_end(self, *_):
        if len(self.seen) == self.die_after:
            raise RuntimeError("killed")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def trainer(folder, every, **options):
    checkpoint = ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1, filename="{step}")
    options = {"max_epochs": 3, **options}
    return Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def data(root, **options):
    return DepthDataModule([ShardSource(str(root))], **{"batch_size": 4, "size": SIZE, "shuffle_window": 6, **options})


@pytest.mark.quick(stop=["3", "20"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (3, 2), (10, 0), (13, 2), (20, 0)])
def test_resume_goes_on_with_the_next_unseen_batch(root, tmp_path, stop, workers):
    """There are 10 batches in an epoch: mid-epoch, at its last batch, in the next, at the end of that."""
    whole = Probe()
    trainer(tmp_path / "whole", every=100).fit(whole, data(root, num_workers=workers))
    assert len(whole.seen) == 30
    killed = Probe(die_after=stop + 1)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "killed", every=stop).fit(killed, data(root, num_workers=workers))
    resumed = Probe()
    trainer(tmp_path / "resumed", every=100).fit(
        resumed, data(root, num_workers=workers), ckpt_path=str(tmp_path / "killed" / f"step={stop}.ckpt")
    )
    assert killed.seen[:stop] + resumed.seen == whole.seen
    assert killed.losses[:stop] + resumed.losses == whole.losses
    assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.filterwarnings("ignore")
def test_resume_from_a_checkpoint_of_an_epochs_end(root, tmp_path):
    whole = Probe()
    trainer(tmp_path, every=None).fit(whole, data(root))
    first = trainer(tmp_path / "first", every=None, max_epochs=2)
    first.fit(part := Probe(), data(root))
    first.save_checkpoint(tmp_path / "end.ckpt")
    resumed = Probe()
    trainer(tmp_path / "second", every=None).fit(resumed, data(root), ckpt_path=str(tmp_path / "end.ckpt"))
    assert part.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stop", [2, 4])
def test_resume_under_max_steps_and_limited_epochs(root, tmp_path, stop):
    options = {"max_epochs": -1, "max_steps": 17, "limit_train_batches": 4}
    whole = Probe()
    trainer(tmp_path / "whole", every=100, **options).fit(whole, data(root))
    killed = Probe(die_after=stop + 1)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "killed", every=stop, **options).fit(killed, data(root))
    resumed = Probe()
    trainer(tmp_path / "resumed", every=100, **options).fit(
        resumed, data(root), ckpt_path=str(tmp_path / "killed" / f"step={stop}.ckpt")
    )
    assert killed.seen[:stop] + resumed.seen == whole.seen
    assert len({keys for _, _, keys in whole.seen}) == 17


class Positioned(Probe):
    """As every module of depthkit."""

    def configure_callbacks(self):
        return [ResumePosition()]

    def validation_step(self, *_):  # with one, the trainer counts batches in another way
        pass


@pytest.mark.quick(every=["None", "after"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("every", [None, 1, "after"])
@pytest.mark.parametrize("limit", [{"max_steps": 14, "max_epochs": -1}, {"max_steps": 14}, {"max_epochs": 4}])
@pytest.mark.parametrize(("stops", "batches"), [((6, 8, 11), 4), ((4, 8, 12), 4), ((10,), 1.0)])
def test_a_run_goes_on_from_what_was_written_as_its_steps_ended(root, tmp_path, stops, batches, limit, every):
    """Within an epoch of four batches, at its end, and at that of one of all ten; one time after the other.

    It is written by the checkpoint callback, or by hand when the run is over.
    """
    limit = {**limit, "limit_train_batches": batches}
    whole = Positioned()
    trainer(tmp_path / "whole", every=100, **limit).fit(whole, data(root))
    seen, losses, checkpoint = [], [], None
    for stop in (*stops, None):
        part = Positioned()
        run = trainer(
            tmp_path / f"to {stop}",
            every=100 if every == "after" else every,
            **(limit if stop is None else {**limit, "max_steps": stop}),
        )
        run.fit(part, data(root), ckpt_path=checkpoint)
        seen, losses, checkpoint = seen + part.seen, losses + part.losses, str(tmp_path / f"to {stop}" / f"step={stop}.ckpt")
        if every == "after":
            run.save_checkpoint(checkpoint)
        assert run.fit_loop.epoch_loop._batches_that_stepped == run.global_step == len(seen)
    assert seen == whole.seen
    assert losses == whole.losses


@pytest.mark.filterwarnings("ignore")
def test_accumulated_windows_end_with_the_epoch(root, tmp_path):
    probe = Probe()
    run = trainer(tmp_path, every=100, max_epochs=2, accumulate_grad_batches=4)
    run.fit(probe, data(root))
    assert len(probe.seen) == 2 * 8
    assert run.global_step == 4


@pytest.mark.filterwarnings("ignore")
def test_overfitting_reads_the_same_batches_in_every_epoch(root, tmp_path):
    probe = Probe()
    trainer(tmp_path, every=100, overfit_batches=2).fit(probe, data(root))
    epochs = [[keys for e, _, keys in probe.seen if e == epoch] for epoch in range(3)]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]


SCRIPT = """
import sys, os, signal, importlib.util
spec = importlib.util.spec_from_file_location("resume", sys.argv[1])
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)
class Victim(test.Probe):
    def on_train_batch_end(self, *_):
        print(self.seen[-1], self.losses[-1], flush=True)
        if len(self.seen) == 16: os.kill(os.getpid(), signal.SIGKILL)
test.trainer(sys.argv[3], every=7).fit(Victim(), test.data(sys.argv[2], num_workers=2))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_resume_after_sigkill_is_exact(root, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, __file__, str(root), str(tmp_path / "killed")]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoint = max(Path(tmp_path / "killed").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert checkpoint.stem == "step=14"
    whole, resumed = Probe(), Probe()
    trainer(tmp_path / "whole", every=100).fit(whole, data(root, num_workers=2))
    trainer(tmp_path / "resumed", every=100).fit(resumed, data(root, num_workers=2), ckpt_path=str(checkpoint))
    before = [line for line in killed.stdout.splitlines() if line.startswith("(")]
    assert before == [f"{seen} {loss}" for seen, loss in zip(whole.seen[:16], whole.losses, strict=False)]
    assert resumed.seen == whole.seen[14:]
    assert resumed.losses == whole.losses[14:]
    assert torch.equal(resumed.weight, whole.weight)
