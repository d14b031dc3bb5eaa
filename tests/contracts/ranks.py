"""Run a function on several gloo ranks of this machine, as a cluster launcher would start it.

Ranks are forked from a server that has imported what takes seconds, once per test process.
"""

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing

multiprocessing.set_forkserver_preload(["lightning.pytorch", "depthkit.paradigms", "depthkit.evaluation"])


def on_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """``function(rank, *args)`` in ``world`` fresh processes with a process group; what each returned, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(_main, (world, port, folder, function, args), world, start_method="forkserver")
        return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(world)]


def _main(rank: int, world: int, port: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests"})
    distributed.init_process_group("gloo")
    torch.save(function(rank, *args), f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
