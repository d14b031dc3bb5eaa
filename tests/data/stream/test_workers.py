"""What happens to a loader whose worker processes are killed or told to stop."""

import multiprocessing
import os
import signal

import pytest

from depthkit.data import DepthDataModule, ShardSource
from depthkit.errors import TrainingError


def loader(scenes, workers=2):
    data = DepthDataModule([ShardSource(str(scenes))], size=(64, 96), batch_size=2, epoch_size=600, num_workers=workers)
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
    assert len(list(batches)) == 299
