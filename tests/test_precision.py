"""What wears ``in_float32`` computes in full precision whatever surrounds it."""

import pytest
import torch

from depthkit.precision import in_float32


@in_float32
def product(a, b, *, scale=1.0):
    """The doc."""
    return (a @ b) * scale


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_arguments_arrive_in_float32(half):
    a = torch.rand(4, 4).to(half)
    scale = torch.tensor(2.0, dtype=half)
    assert product(a, b=a, scale=scale).dtype == torch.float32
    assert torch.equal(product(a, b=a, scale=scale), (a.float() @ a.float()) * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_passes_unchanged(dtype):
    a = torch.rand(4, 4, dtype=dtype)
    assert product(a, a).dtype == dtype


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_is_off_inside_and_on_again_after(half):
    a = torch.rand(16, 16)
    with torch.autocast("cpu", half):
        inside = product(a, a)
        assert (a @ a).dtype == half
    assert inside.dtype == torch.float32
    assert torch.equal(inside, a @ a)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_is_off_inside_a_function_that_is_given_no_tensor(half):
    made = in_float32(lambda size: torch.rand(size, size) @ torch.rand(size, size))
    with torch.autocast("cpu", half):
        assert made(4).dtype == torch.float32
    assert made(4).dtype == torch.float32


def test_gradients_return_in_the_callers_precision():
    a = torch.rand(4, 4).bfloat16().requires_grad_()
    product(a, a).sum().backward()
    assert a.grad.dtype == torch.bfloat16


def test_integers_masks_and_options_pass_unchanged():
    seen = in_float32(lambda *args, **kwargs: (args, kwargs))
    mask, index = torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.int64)
    (first, second), options = seen(mask, index, name="x", half=None)
    assert (first.dtype, second.dtype) == (torch.bool, torch.int64)
    assert options == {"name": "x", "half": None}


def test_the_function_keeps_its_name_and_doc():
    assert (product.__name__, product.__doc__) == ("product", "The doc.")
