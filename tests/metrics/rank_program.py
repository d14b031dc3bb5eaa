"""One rank of test_ranks.py: ``rank_program.py RANK WORLD RENDEZVOUS RESULT``; each rank scores every WORLD-th image."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from depthkit.alignment import Alignment
from depthkit.metrics import BoundaryF1, depth_metrics
from depthkit.types import Representation


class Protocol:
    alignment = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)
    min_depth, max_depth = 0.0, 20.0

    def __init__(self, reduction: str):
        self.reduction = reduction


def maps() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(3)
    target = 1 + 4 * torch.rand(5, 1, 8, 8, generator=g)
    pred = target * (0.8 + 0.4 * torch.rand(target.shape, generator=g))
    valid = torch.rand(target.shape, generator=g) > torch.linspace(0, 1, 5).view(5, 1, 1, 1)  # the last image has none
    return pred, target, valid


def score(rank: int, world: int) -> dict[str, float]:
    result = {}
    for reduction in ("image", "pixel"):
        collection = depth_metrics(Protocol(reduction), prefix=f"{reduction}/")  # type: ignore[arg-type]
        collection.add_metrics({"boundary": BoundaryF1(reduction=reduction)})  # type: ignore[arg-type]
        for image in range(rank, 5, world):  # 3 and 2 updates on two ranks
            collection.update(*(x[image : image + 1] for x in maps()))
        result |= {name: value.item() for name, value in collection.compute().items()}
        with collection["abs_rel"].sync_context(should_sync=world > 1):
            result |= {f"{reduction}/{n}": getattr(collection["abs_rel"], n).item() for n in ("n_images", "n_left_out")}
    return result


if __name__ == "__main__":
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    Path(sys.argv[4]).write_text(json.dumps(score(rank, world)))
    dist.destroy_process_group()
