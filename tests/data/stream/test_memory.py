"""Laws of memory that is used again: never while anybody holds it."""

import gc

import torch

from depthkit.data.stream import memory
from depthkit.data.stream.memory import borrowed


def test_memory_that_nobody_holds_is_lent_again_and_only_then():
    memory._idle.clear()
    first = borrowed((3, 1000))
    place, part = first.data_ptr(), first[1].view(10, 100)
    del first
    gc.collect()
    part.fill_(7)
    second = borrowed((3, 1000))
    assert second.data_ptr() != place
    second.fill_(1)
    assert (part == 7).all()
    del part
    third = borrowed((1000, 3))
    assert third.data_ptr() == place
    assert borrowed((1000, 3)).data_ptr() not in (place, second.data_ptr())


def test_shape_and_type_are_those_asked_for_and_what_is_kept_is_bounded():
    for shape, dtype in (((2, 0, 3), torch.uint8), ((5,), torch.bool), ((2, 3), torch.float32)):
        found = borrowed(shape, dtype)
        assert (found.shape, found.dtype) == (shape, dtype)
    many = [borrowed((n + 1,)) for n in range(100)]
    del many
    assert len(memory._idle) <= 12
