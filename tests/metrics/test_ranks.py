"""Real processes: the numbers of two ranks are those of one, on both."""

import pytest
import torch

from depthkit.alignment import Alignment
from depthkit.metrics import BoundaryF1, depth_metrics
from depthkit.types import Representation
from tests.contracts.ranks import on_ranks


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
        collection = depth_metrics(Protocol(reduction), prefix=f"{reduction}/")
        collection.add_metrics({"boundary": BoundaryF1(reduction=reduction)})
        for image in range(rank, 5, world):  # 3 and 2 updates on two ranks
            collection.update(*(x[image : image + 1] for x in maps()))
        result |= {name: value.item() for name, value in collection.compute().items()}
        with collection["abs_rel"].sync_context(should_sync=world > 1):
            result |= {f"{reduction}/{n}": getattr(collection["abs_rel"], n).item() for n in ("n_images", "n_left_out")}
    return result


def test_two_processes_with_unequal_images_give_the_numbers_of_one():
    first, second = on_ranks(2, score, 2)
    assert first == second == pytest.approx(score(0, 1), rel=1e-12)
    assert (first["image/n_images"], first["image/n_left_out"]) == (4, 1)
