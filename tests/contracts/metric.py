"""What every metric owes: ``class TestMine(MetricContract)`` parametrised over ``case``, one ``MetricCase`` per metric."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchmetrics import Metric, MetricCollection

from tests.contracts.device import Device, moved

Inputs = tuple[Tensor, ...]


def depth_maps(seed: int = 0, images: int = 4, height: int = 9, width: int = 11) -> Inputs:
    """Predicted and labelled depth with steps in both, and a mask with holes of a different size in each image."""
    g = torch.Generator().manual_seed(seed)
    target = 1 + 4 * torch.rand(images, 1, height, width, generator=g)
    pred = target * (0.8 + 0.5 * torch.rand(target.shape, generator=g)) + 0.1
    holes = torch.linspace(0.1, 0.6, images).view(-1, 1, 1, 1)
    return pred, target, torch.rand(target.shape, generator=g) > holes


def point_pairs(seed: int = 0, images: int = 4, height: int = 9, width: int = 11, pairs: int = 12) -> Inputs:
    """A map and ordered pairs, padded by -1 to a different number in each image."""
    g = torch.Generator().manual_seed(seed)
    size = torch.tensor([height, width, height, width])
    points = (torch.rand(images, pairs, 4, generator=g) * size).long()
    order = torch.randint(-1, 2, (images, pairs, 1), generator=g)
    padding = torch.arange(pairs) >= (pairs - torch.arange(images))[:, None]
    labels = torch.cat([points, order], -1).masked_fill(padding[..., None], -1)
    return 1 + torch.rand(images, 1, height, width, generator=g), labels


@dataclass(frozen=True)
class MetricCase:
    """A metric, its function, and an independent implementation.

    Attributes:
        name: of the case.
        metric: makes the metric; takes ``reduction``.
        function: inputs -> ``(B,)``.
        reference: NumPy arrays of one image -> its value. For dense metrics the arrays are the compacted valid pixels
            (pred, target), else the whole inputs of the image.
        inputs: makes a batch from a seed.
        compacted: the reference takes compacted pixels, and so also states the pooled value.
        waits: why its update waits for the device, if it does.
    """

    name: str
    metric: Callable[..., Metric]
    function: Callable[..., Tensor]
    reference: Callable[..., float]
    inputs: Callable[..., Inputs] = depth_maps
    compacted: bool = True
    waits: str = ""

    def expected(self, inputs: Inputs) -> list[float]:
        arrays = [x.double().numpy() if x.is_floating_point() else x.numpy() for x in inputs]
        images = range(len(arrays[0]))
        if not self.compacted:
            return [self.reference(*(a[i] for a in arrays)) for i in images]
        pred, target, valid = arrays
        return [self.reference(pred[i][valid[i]], target[i][valid[i]]) for i in images]

    def nothing_valid(self, inputs: Inputs, image: int) -> Inputs:
        """The inputs with nothing to score in one image."""
        *others, last = inputs
        last = last.clone()
        last[image] = False if last.dtype == torch.bool else -1
        return *others, last


def run(metric: Metric, inputs: Inputs, sizes: tuple[int, ...]) -> Metric:
    """The metric after updates with batches of these sizes."""
    for batch in zip(*(x.split(sizes) for x in inputs), strict=True):
        metric.update(*batch)
    return metric


class MetricContract:
    def test_value_of_each_image_is_that_of_an_independent_implementation(self, case: MetricCase) -> None:
        inputs = case.inputs()
        assert_close(case.function(*inputs), torch.tensor(case.expected(inputs), dtype=torch.float64), rtol=1e-6, atol=1e-9)

    @pytest.mark.only(case=lambda case: case.compacted)  # neighbours and pairs of different images cannot be one image
    def test_pooled_value_is_that_of_all_pixels_as_one_image(self, case: MetricCase) -> None:
        pred, target, valid = inputs = case.inputs()
        expected = case.reference(pred[valid].double().numpy(), target[valid].double().numpy())
        result = run(case.metric(reduction="pixel"), inputs, (1, 3)).compute()
        assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("reduction", ["image", "pixel"])
    def test_batching_is_invisible(self, case: MetricCase, reduction: str) -> None:
        inputs = case.inputs()
        whole = run(case.metric(reduction=reduction), inputs, (4,)).compute()
        for sizes in [(1, 1, 1, 1), (1, 3), (2, 2)]:
            assert_close(run(case.metric(reduction=reduction), inputs, sizes).compute(), whole, rtol=1e-12, atol=0)

    def test_metric_is_the_mean_over_images_of_the_function(self, case: MetricCase) -> None:
        inputs = case.inputs()
        assert_close(run(case.metric(), inputs, (2, 2)).compute(), case.function(*inputs).mean(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("reduction", ["image", "pixel"])
    @pytest.mark.parametrize("ranks", [1, 2, 3])
    def test_number_of_ranks_is_invisible(self, case: MetricCase, ranks: int, reduction: str) -> None:
        inputs = case.inputs()
        alone = run(case.metric(reduction=reduction), inputs, (4,))
        parts = [
            run(case.metric(reduction=reduction), tuple(x[r::ranks] for x in inputs), (len(inputs[0][r::ranks]),))
            for r in range(ranks)
        ]
        for part in parts[1:]:
            parts[0].merge_state(part)
        assert_close(parts[0].compute(), alone.compute(), rtol=1e-12, atol=0)
        assert parts[0].n_images == alone.n_images == 4

    @pytest.mark.only(case=lambda case: case.inputs is depth_maps)  # pairs have no mask
    @pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1.0, 0.0])
    def test_pixels_nobody_may_read_change_nothing(self, case: MetricCase, poison: float) -> None:
        pred, target, valid = case.inputs()
        dirty = pred.where(valid, poison), target.where(valid, poison), valid
        assert_close(case.function(*dirty), case.function(pred, target, valid), rtol=0, atol=0)
        for reduction in ("image", "pixel"):
            clean = run(case.metric(reduction=reduction), (pred, target, valid), (4,))
            assert_close(run(case.metric(reduction=reduction), dirty, (4,)).compute(), clean.compute(), rtol=0, atol=0)

    @pytest.mark.parametrize("reduction", ["image", "pixel"])
    def test_image_with_nothing_valid_is_left_out_and_counted(self, case: MetricCase, reduction: str) -> None:
        inputs = case.nothing_valid(case.inputs(), 2)
        metric = run(case.metric(reduction=reduction), inputs, (2, 2))
        others = tuple(x[[0, 1, 3]] for x in inputs)
        assert_close(metric.compute(), run(case.metric(reduction=reduction), others, (3,)).compute(), rtol=1e-12, atol=0)
        assert (int(metric.n_images), int(metric.n_left_out)) == (3, 1)
        assert case.function(*inputs).isnan().tolist() == [False, False, True, False]

    @pytest.mark.parametrize("reduction", ["image", "pixel"])
    @pytest.mark.filterwarnings("ignore:The ``compute`` method")
    def test_nothing_seen_is_nan(self, case: MetricCase, reduction: str) -> None:
        assert case.metric(reduction=reduction).compute().isnan()
        inputs = case.nothing_valid(tuple(x[:1] for x in case.inputs()), 0)
        assert run(case.metric(reduction=reduction), inputs, (1,)).compute().isnan()

    @pytest.mark.parametrize("reduction", ["image", "pixel"])
    def test_nan_prediction_where_valid_is_never_repaired(self, case: MetricCase, reduction: str) -> None:
        inputs = case.inputs()
        pred = inputs[0].clone()
        pred[1] = torch.nan
        assert run(case.metric(reduction=reduction), (pred, *inputs[1:]), (4,)).compute().isnan()
        assert case.function(pred, *inputs[1:]).isnan().tolist() == [False, True, False, False]

    def test_reset_forgets_and_clone_and_pickle_remember(self, case: MetricCase) -> None:
        first, second = case.inputs(0), case.inputs(1)
        metric = run(case.metric(), first, (4,))
        copies = [metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))]
        both = run(metric, second, (4,)).compute()
        for each in copies:
            assert_close(run(each, second, (4,)).compute(), both)
            assert each.n_images == 8
        metric.reset()
        assert_close(run(metric, second, (4,)).compute(), run(case.metric(), second, (4,)).compute())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_inputs_are_scored_in_full_precision(self, case: MetricCase, dtype: torch.dtype) -> None:
        half = tuple(x.to(dtype) if x.is_floating_point() else x for x in case.inputs())
        full = tuple(x.float() if x.is_floating_point() else x for x in half)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_close(case.function(*half), case.function(*full), rtol=0, atol=0)

    @pytest.mark.parametrize(
        "cast", [torch.nn.Module.half, torch.nn.Module.bfloat16, lambda m: m.to(torch.bfloat16), lambda m: m.to(torch.float16)]
    )
    def test_casting_the_parent_module_keeps_the_sums_exact(self, case: MetricCase, cast: Any) -> None:
        parent = torch.nn.Module()
        parent.metric = run(case.metric(), case.inputs(0), (4,))
        before = parent.metric.compute().clone()
        cast(parent)
        parent.metric._computed = None
        assert_close(parent.metric.compute(), before, rtol=0, atol=0)
        run(parent.metric, case.inputs(1), (4,))
        dtypes = {getattr(parent.metric, state).dtype for state in parent.metric._defaults}
        assert dtypes == {torch.float64, torch.int64}
        parent.metric.reset()
        assert {getattr(parent.metric, state).dtype for state in parent.metric._defaults} == dtypes

    def test_states_have_fixed_shapes_and_reduce_by_summing(self, case: MetricCase) -> None:
        for reduction in ("image", "pixel"):
            metric = case.metric(reduction=reduction)
            before = {name: getattr(metric, name).shape for name in metric._defaults}
            run(metric, case.inputs(), (1, 3))
            assert {name: getattr(metric, name).shape for name in metric._defaults} == before
            assert {f.__name__ for f in metric._reductions.values()} == {"dim_zero_sum"}

    def test_two_instances_in_a_collection_agree_with_one_alone(self, case: MetricCase) -> None:
        inputs = case.inputs()
        together = MetricCollection({"a": case.metric(), "b": case.metric(reduction="pixel")}, prefix="val/")
        for batch in zip(*(x.split((1, 3)) for x in inputs), strict=True):
            together.update(*batch)
        assert together.compute().keys() == {"val/a", "val/b"}
        assert_close(together.compute()["val/a"], run(case.metric(), inputs, (4,)).compute())
        assert_close(together.compute()["val/b"], run(case.metric(reduction="pixel"), inputs, (4,)).compute())

    @pytest.mark.parametrize("reduction", ["image", "pixel"])
    def test_update_stays_on_the_device_and_waits_for_nothing_without_a_reason(self, case: MetricCase, reduction: str) -> None:
        metric, inputs = case.metric(reduction=reduction), case.inputs()
        expected = run(metric.clone(), inputs, (4,)).compute()
        with Device() as device:
            for state in metric._defaults:
                setattr(metric, state, moved(getattr(metric, state)))
            there = [moved(x) for x in inputs]
            metric.update(*there)
            waits = dict(device.waits)
            assert_close(metric.compute().cpu(), expected)
        assert bool(waits) == bool(case.waits), waits

    def test_forward_gives_the_batch_and_keeps_the_total(self, case: MetricCase) -> None:
        first, second = case.inputs(0), case.inputs(1)
        metric = case.metric()
        metric(*first)
        assert_close(metric(*second), run(case.metric(), second, (4,)).compute())
        assert_close(metric.compute(), run(run(case.metric(), first, (4,)), second, (4,)).compute())

    def test_unknown_reduction_is_refused(self, case: MetricCase) -> None:
        with pytest.raises(ValueError, match=r"expected reduction to be one of image, pixel; got 'batch'"):
            case.metric(reduction="batch")


def mean(x: Any) -> float:
    """Plain mean, for references."""
    return float(np.mean(x))
