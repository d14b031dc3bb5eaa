"""Masked statistics are the statistics of the valid pixels alone, and nothing else reaches them."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit import masked

ON_VALID_PIXELS = {
    "mean": (masked.masked_mean, np.mean),
    "sum": (masked.masked_sum, np.sum),
    "variance": (masked.masked_variance, np.var),
    "sample variance": (lambda x, v: masked.masked_variance(x, v, correction=1), lambda x: np.var(x, ddof=1)),
    "median": (masked.masked_median, np.median),
    "deviation": (masked.masked_mean_absolute_deviation, lambda x: np.abs(x - np.median(x)).mean()),
    "quantile 0": (lambda x, v: masked.masked_quantile(x, v, 0.0), np.min),
    "quantile 0.37": (lambda x, v: masked.masked_quantile(x, v, 0.37), lambda x: np.quantile(x, 0.37)),
    "quantile 1": (lambda x, v: masked.masked_quantile(x, v, 1.0), np.max),
    "trimmed": (
        lambda x, v: masked.masked_trimmed_mean(x, v, 0.2),
        lambda x: np.sort(x)[: int(np.round(0.8 * len(x), 6))].sum() / len(x),
    ),
    "mean difference": (masked.masked_mean_difference, lambda x: np.abs(x[:, None] - x[None]).mean()),
    "low": (lambda x, v: masked.masked_range(x, v)[0], np.min),
    "high": (lambda x, v: masked.masked_range(x, v)[1], np.max),
}
every_statistic = pytest.mark.parametrize(("statistic", "oracle"), ON_VALID_PIXELS.values(), ids=ON_VALID_PIXELS)


def maps(batch=6, shape=(1, 7, 9), dtype=torch.double):
    """Values in which some tie, and a mask with odd and even counts."""
    x = torch.randn(batch, *shape, dtype=dtype).mul(8).round() / 8 + torch.randn(batch, *shape, dtype=dtype) * (
        torch.rand(batch, *shape) < 0.5
    )
    return x, torch.rand(batch, *shape) < 0.6


@every_statistic
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf, 0.0])
def test_a_statistic_is_numpys_on_the_valid_pixels(statistic, oracle, poison):
    x, valid = maps()
    expected = torch.tensor([oracle(row[keep].numpy()) for row, keep in zip(x, valid, strict=True)])
    assert_close(statistic(x.where(valid, poison), valid), expected)


@every_statistic
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_valid_pixels_are_no_special_case(statistic, oracle, count):
    if count == 1 and statistic is ON_VALID_PIXELS["sample variance"][0]:
        oracle = np.ptp  # NumPy divides by zero; here one value has no spread
    x = torch.randn(1, 1, 1, 9, dtype=torch.double)
    valid = torch.arange(9).view_as(x) < count
    assert_close(statistic(x, valid), torch.tensor([oracle(x[valid].numpy())]))


@every_statistic
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf, 0.0])
def test_invalid_pixels_get_gradient_zero_and_an_image_of_them_statistic_zero(statistic, oracle, poison):
    x, valid = maps()
    valid[0] = False
    x = x.where(valid, poison).requires_grad_()
    value = statistic(x, valid)
    assert value[0] == 0
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert (gradient[~valid] == 0).all()
    assert gradient.isfinite().all()


@every_statistic
def test_the_gradient_is_that_of_finite_differences(statistic, oracle):
    x = torch.randn(2, 1, 3, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: statistic(x, torch.rand_like(x) < 2), x)
    valid = torch.rand(2, 1, 3, 5) < 0.6
    assert torch.autograd.gradcheck(lambda x: statistic(x, valid), x)


@every_statistic
def test_any_shape_behind_the_batch_axis_will_do(statistic, oracle):
    x, valid = maps(shape=(12,))
    assert_close(statistic(x, valid), statistic(x[:, None, :, None], valid[:, None, :, None]))


@every_statistic
def test_a_view_of_another_layout_gives_the_same(statistic, oracle):
    x, valid = maps()
    other = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)[..., ::2]
    assert_close(statistic(other, valid[..., ::2]), statistic(x[..., ::2].contiguous(), valid[..., ::2].contiguous()))


def test_counts_are_int64():
    _, valid = maps()
    assert masked.masked_count(valid).dtype == torch.int64
    assert masked.masked_count(valid).tolist() == [int(v.sum()) for v in valid]


def test_half_precision_counts_and_sums_do_not_saturate():
    """384 x 384 is more than half precision can count, and its sum more than it can hold."""
    x = torch.ones(1, 1, 384, 384, dtype=torch.float16)
    assert masked.masked_sum(x, x > 0).item() == 384**2
    assert masked.masked_mean(x, x > 0).item() == 1


def test_the_median_of_minus_x_is_minus_the_median():
    x, valid = maps()
    assert_close(masked.masked_median(-x, valid), -masked.masked_median(x, valid), rtol=0, atol=0)


def test_an_even_count_splits_the_medians_gradient_between_the_two_middle_values():
    x = torch.tensor([[4.0, 1.0, 3.0, 2.0]], requires_grad=True)
    masked.masked_median(x, x > 0).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0, 0.5, 0.5]]


def test_a_mean_can_be_taken_over_another_count():
    x, valid = maps()
    assert_close(masked.masked_mean(x, valid, count=torch.full((6,), 10)), masked.masked_sum(x, valid) / 10)


def test_variance_and_mean_difference_of_a_map_far_from_zero_keep_their_digits():
    x = 1000 + torch.rand(1, 1, 64, 64)
    assert_close(masked.masked_variance(x, x > 0), x.double().var(correction=0).float()[None], rtol=1e-4, atol=0)
    exact = masked.masked_mean_difference(x.double(), x > 0).float()
    assert_close(masked.masked_mean_difference(x, x > 0), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [1, 5])
def test_picking_a_rank_agrees_with_a_full_sort_and_puts_nan_last(rows):
    x = torch.randint(20, (rows, 50)).float()
    x[:, :3] = torch.nan
    x[:, 3:5] = torch.inf
    ranks = torch.stack([torch.randperm(50)[:4].sort().values for _ in range(rows)])
    ranks[:, -1] = 49
    picked, sorted_ = (x.gather(1, f(x, ranks)) for f in (masked._index_of_rank, masked._index_of_rank_by_sort))
    assert_close(picked, sorted_, rtol=0, atol=0, equal_nan=True)
    assert picked[:, -1].isnan().all()


def test_both_orders_sort_with_nan_last():
    x = torch.randn(3, 50)
    x[:, 7] = torch.nan
    for order in (masked._ascending(x), masked._ascending_by_sort(x)):
        assert_close(x.gather(1, order), x.sort(1).values, rtol=0, atol=0, equal_nan=True)
