import torch
from torch import Tensor
from torch.testing import assert_close

from depthkit.paradigms.terms.labels import has_label, labels, mean_over_pixels, unit_range
from depthkit.paradigms.terms.term import Term, means_per_group
from depthkit.types import Ambiguity, LabelKind, Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, batch
from tests.contracts.ranks import on_ranks

LOG_SCALE = LabelKind(Ambiguity.SCALE, Representation.LOG_DEPTH)


def test_each_row_is_converted_from_what_it_is_stored_in() -> None:
    b = batch([(0, METRIC_DEPTH), (1, FILM)])
    target, valid = labels(b, Representation.DISPARITY)
    assert_close(target[:1][valid[:1]], 1 / b.target[:1][valid[:1]])
    assert_close(target[1:][valid[1:]], b.target[1:][valid[1:]])
    assert valid.equal(b.valid)


def test_a_film_disparity_is_no_label_for_a_loss_in_log_depth() -> None:
    target, valid = labels(batch([(0, METRIC_DEPTH), (1, FILM)]), Representation.LOG_DEPTH)
    assert valid[0].any()
    assert not valid[1].any()
    assert target.isfinite().all()


def test_only_the_ambiguities_asked_for_are_read() -> None:
    _, valid = labels(batch([(0, METRIC_DEPTH), (1, FILM)]), Representation.DISPARITY, {Ambiguity.SHIFT_SCALE})
    assert has_label(valid).tolist() == [False, True]


def test_sky_is_disparity_zero_and_has_no_logarithm() -> None:
    b = batch([(0, METRIC_DEPTH)])
    b.target[0, 0, 0, 0], b.valid[0, 0, 0, 0] = torch.inf, True
    disparity, valid = labels(b, Representation.DISPARITY)
    assert valid[0, 0, 0, 0]
    assert disparity[0, 0, 0, 0] == 0
    assert not labels(b, Representation.LOG_DISPARITY)[1][0, 0, 0, 0]


def test_unit_range_maps_the_valid_extremes_to_zero_and_one() -> None:
    x = torch.randn(3, 1, 5, 6) * 7 - 2
    valid = torch.rand(3, 1, 5, 6) > 0.3
    valid[2] = False
    unit = unit_range(x.where(valid, torch.nan), valid)
    assert_close(unit[:2].flatten(1).amax(1), torch.ones(2))
    assert unit.min() == 0
    assert_close(unit_range(x * 3 + 100, valid), unit, rtol=1e-4, atol=1e-5)
    assert (unit_range(torch.full_like(x, 4.0), valid) == 0).all()


def test_an_absent_group_is_said_to_be_absent() -> None:
    means, present = means_per_group(
        Term(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])), torch.tensor([0, 0, 2]), 3
    )
    assert_close(means, torch.tensor([2.0, 0.0, 0.0]))
    assert present.tolist() == [True, False, False]


def test_the_mean_loss_is_taken_in_full_precision_under_autocast() -> None:
    loss, counted, group = torch.tensor([1.2345678, 2.3456789]), torch.tensor([True, True]), torch.tensor([0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(means_per_group(Term(loss, counted), group, 2)[0], loss, rtol=0, atol=0)


def rows_of(rank: int, loss: Tensor, counted: Tensor, group: Tensor) -> Tensor:
    rows = slice(0, 1) if rank == 0 else slice(1, None)
    return means_per_group(Term(loss[rows], counted[rows]), group[rows], 3)[0]


def test_the_average_over_ranks_is_the_mean_over_all_images_however_they_are_spread() -> None:
    loss = torch.rand(6)
    counted, group = torch.tensor([True, True, False, True, True, True]), torch.tensor([0, 1, 1, 1, 0, 2])
    first, second = on_ranks(2, rows_of, loss, counted, group)
    assert_close((first + second) / 2, means_per_group(Term(loss, counted), group, 3)[0])


def test_a_mean_over_pixels_weighs_images_by_their_valid_pixels() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, torch.nan, torch.inf]])[:, None, None].requires_grad_()
    valid = torch.tensor([[True, True, True], [True, False, False]])[:, None, None]
    mean, some = mean_over_pixels(x, valid)
    assert_close(mean, torch.tensor(4.0))
    assert some
    mean.backward()
    assert_close(x.grad, valid / 4)
    none, some = mean_over_pixels(x, torch.zeros_like(valid))
    assert none == 0
    assert not some
