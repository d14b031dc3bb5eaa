"""Laws of multi-scale gradient matching."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.losses.functional import gradient_matching_loss
from tests.contracts.loss import random_pair


def by_hand(pred, target, valid, scales, divisor):
    """Pixel by pixel, one image at a time."""
    values = []
    for r, v in zip((pred - target)[:, 0].tolist(), valid[:, 0].tolist(), strict=True):
        total, full = 0.0, sum(map(sum, v))
        for k in range(scales):
            rk, vk = ([row[:: 2**k] for row in x[:: 2**k]] for x in (r, v))
            level = 0.0
            for y in range(len(rk)):
                for x in range(len(rk[0])):
                    for ny, nx in [(y, x + 1), (y + 1, x)]:
                        if ny < len(rk) and nx < len(rk[0]) and vk[y][x] and vk[ny][nx]:
                            level += abs(rk[ny][nx] - rk[y][x])
            total += level / max(1, sum(map(sum, vk)) if divisor == "level" else full)
        values.append(total)
    return torch.tensor(values, dtype=torch.double)


@pytest.mark.parametrize("divisor", ["level", "image"])
@pytest.mark.parametrize("scales", [1, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 9), (1, 7)])
def test_it_equals_the_formula_pixel_by_pixel(divisor, scales, size):
    pred, target, valid = random_pair(2, *size, dtype=torch.double)
    assert_close(
        gradient_matching_loss(pred, target, valid, scales=scales, divisor=divisor),
        by_hand(pred, target, valid, scales, divisor),
    )


def test_a_ramp_of_error_costs_its_slope_once_per_level_and_twice_as_much_on_the_next():
    width, slope = 64, 0.25
    error = (slope * torch.arange(width)).expand(1, 1, width, width)
    valid = torch.ones_like(error, dtype=torch.bool)
    expected = sum(slope * 2**k * (width / 2**k - 1) / (width / 2**k) for k in range(4))
    assert_close(gradient_matching_loss(error, 0 * error, valid), torch.tensor([expected]))


def test_an_offset_is_no_gradient():
    _, target, valid = random_pair()
    assert (gradient_matching_loss(target + 3, target, valid) < 1e-5).all()


@pytest.mark.parametrize("align", ["least_squares", "median"])
@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (0.5, 2.0), (7.0, -4.0), (1.0, 100.0)])
def test_aligned_it_ignores_scale_and_shift_of_the_prediction(align, a, b):
    pred, target, valid = random_pair()
    moved = gradient_matching_loss(a * pred + b, target, valid, align=align)
    assert_close(moved, gradient_matching_loss(pred, target, valid, align=align), rtol=2e-4, atol=1e-6)


def test_the_printed_divisor_weighs_level_k_by_its_share_of_pixels():
    target = torch.rand(1, 1, 64, 64, dtype=torch.double)
    pred, valid = torch.rand_like(target), target >= 0

    def levels(divisor):
        return torch.cat([gradient_matching_loss(pred, target, valid, scales=k, divisor=divisor) for k in (1, 2, 3, 4)]).diff()

    assert_close(levels("image"), levels("level") / torch.tensor([4.0, 16.0, 64.0], dtype=torch.double))
