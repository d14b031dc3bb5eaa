"""What happens to a loader whose worker processes are killed or told to stop."""

import multiprocessing
import os
import signal
import time

import pytest

from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.stream import loader as reading
from depthkit.errors import TrainingError


def loader(scenes, workers=2):
    data = DepthDataModule([ShardSource(str(scenes))], size=(16, 24), batch_size=2, epoch_size=200, num_workers=workers)
    return iter(data.train_dataloader())


def test_a_killed_worker_is_one_sentence_with_a_remedy(scenes):
    batches = loader(scenes)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"expected 2 workers that read; one ended: .*data\.num_workers"):
        list(batches)


def test_workers_leave_ctrl_c_to_the_trainer(scenes):
    batches = loader(scenes)
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == 99


def test_a_worker_still_starting_leaves_ctrl_c_to_the_trainer(scenes, monkeypatch):
    leave = reading._leave_signals
    monkeypatch.setattr(reading, "_leave_signals", lambda worker: (time.sleep(1), leave(worker)))
    batches = iter(loader(scenes))
    wrapped = reading.DataLoader.__iter__

    def interrupted(self):
        running = wrapped(self)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGINT)
        return running

    monkeypatch.setattr(reading.DataLoader, "__iter__", interrupted)
    assert len(list(batches)) == 100
