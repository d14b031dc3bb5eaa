"""MetricModule against Bhat et al. (2023), as Depth Anything fine-tunes (section 4.3): 10 roots of SILog."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from depthkit.paradigms import MetricModule
from depthkit.types import Batch, Representation
from tests.contracts.objective import METRIC_LOG, assert_same_step, disparity_of
from tests.contracts.paradigm import METRIC_DEPTH, TinyNet, batch


def labelled(seed: int) -> Batch:
    rows = [(0, METRIC_DEPTH), (1, METRIC_LOG), (0, METRIC_DEPTH), (1, METRIC_DEPTH)]
    b = batch(rows, seed=seed, unlabelled=[2])
    scale = torch.tensor([1.0, 1.0, 1.0, 30.0])[:, None, None, None]  # the last reaches beyond 80 m
    noise = torch.rand(b.target.shape, generator=torch.Generator().manual_seed(seed + 1))
    target = b.target * scale * (0.7 + 0.6 * noise)
    target[1] = target[1].log()
    target[0, :, :2] = torch.inf  # sky
    image = b.image + 0.05 * torch.rand(b.image.shape, generator=torch.Generator().manual_seed(seed + 2))
    return replace(b, image=image, target=target)


def reference(prediction: Tensor, b: Batch, limits: tuple[float, float] = (1e-3, 80.0)) -> Tensor:
    losses = []
    for row in range(len(b)):
        disparity, valid = disparity_of(b, row)
        depth = 1 / disparity
        read = valid & (depth >= limits[0]) & (depth <= limits[1])
        if read.any():
            g = prediction[row, 0].double()[read].log() - depth[read].log()
            losses.append(10 * (((g - g.mean()) ** 2).mean() + 0.15 * g.mean() ** 2).sqrt())
    assert 2 <= len(losses) <= 3
    return torch.stack(losses).mean()


def module(representation: Representation = Representation.DEPTH, **options: Any) -> MetricModule:
    torch.manual_seed(1)
    return MetricModule(TinyNet(representation), **options)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("representation", [Representation.DEPTH, Representation.DISPARITY, Representation.LOG_DEPTH])
def test_the_step_is_the_mean_over_images_of_ten_roots(seed: int, representation: Representation) -> None:
    m, b = module(representation), labelled(seed)
    x = m.model(b.image)
    depth = {Representation.DEPTH: x, Representation.DISPARITY: 1 / x, Representation.LOG_DEPTH: x.exp()}[representation]
    assert_same_step(m, b, reference(depth, b))


def test_labels_outside_the_range_are_not_read() -> None:
    m, b = module(label_range=(2.0, 10.0)), labelled(0)
    b.target[0, 0, 6, 6:8], b.valid[0, 0, 6, 6:8] = torch.tensor([2.0, 10.0]), True  # its ends are read
    assert_same_step(m, b, reference(m.model(b.image), b, (2.0, 10.0)))


def test_depth_is_enlarged_to_the_labels_with_aligned_corners() -> None:
    """ZoeDepth's way: the network sees a stretched image, no label is resized."""
    m, b = module(network_size=(8, 12)), labelled(0)
    shown = interpolate(b.image, (8, 12), mode="bilinear")
    depth = interpolate(m.model(shown), b.image.shape[-2:], mode="bilinear", align_corners=True)
    assert_same_step(m, b, reference(depth, b))
