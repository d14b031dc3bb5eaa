"""Every loss against what all of them owe."""

import inspect

import pytest
import torch
from torch.testing import assert_close

from depthkit import losses
from depthkit.errors import DepthKitError, RecipeError, ShapeError
from depthkit.losses import functional
from depthkit.types import Ambiguity, Representation
from tests.contracts.loss import ALL_LOSSES, UNLABELLED_LOSSES, random_pair, value_and_gradient

every_loss = pytest.mark.parametrize("case", ALL_LOSSES, ids=str)


def test_every_public_loss_is_under_contract():
    cases = [*ALL_LOSSES, *UNLABELLED_LOSSES]
    takes_a_network = {"FeatureL1Error", "feature_l1_error"}
    of_a_scale = {"LaplaceNLLLoss", "laplace_nll_loss"}  # tests/losses/test_laplace.py
    parts = {"Reprojection", "min_reprojection", "source_errors", "drawn_pairs"}
    assert {case.module.__name__ for case in cases} == set(losses.__all__) - takes_a_network - of_a_scale
    assert {case.function.__name__ for case in cases} == set(functional.__all__) - takes_a_network - of_a_scale - parts


@every_loss
def test_a_loss_is_one_number_per_image(case):
    assert case.call(*random_pair(batch=4)).shape == (4,)


@every_loss
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0, 0.0])
def test_invalid_pixels_change_neither_value_nor_gradient(case, poison):
    pred, target, valid = random_pair()
    clean = value_and_gradient(case.call, pred, target, valid)
    assert_close(value_and_gradient(case.call, pred, target.where(valid, poison), valid), clean, rtol=0, atol=0)
    poisoned = value_and_gradient(case.call, pred.where(valid, poison), target.where(valid, poison), valid)
    assert_close(poisoned, clean, rtol=0, atol=0)
    assert (clean[1][~valid] == 0).all()


@every_loss
def test_an_image_without_a_valid_pixel_gives_exactly_zero_with_zero_gradient(case):
    pred, target, valid = random_pair()
    valid[1] = False
    target[1] = torch.nan
    value, gradient = value_and_gradient(case.call, pred, target, valid)
    assert value[1] == 0
    assert (gradient[1] == 0).all()
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert (value[[0, 2]] > 0).all()


@every_loss
def test_the_loss_of_a_batch_is_the_loss_of_its_images(case):
    pred, target, valid = random_pair()
    rows = [case.call(pred[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(len(pred))]
    assert_close(case.call(pred, target, valid), torch.cat(rows))


@every_loss
def test_the_gradient_is_that_of_finite_differences(case):
    pred, target, valid = random_pair(batch=2, height=5, width=6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: case.call(x, target, valid), pred.requires_grad_())


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(case, dtype):
    pred, target, valid = random_pair()
    pred, target = pred.to(dtype), target.to(dtype)
    full = case.call(pred.float(), target.float(), valid)
    assert_close(case.call(pred, target, valid), full, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(case.call(pred.float(), target.float(), valid), full, rtol=0, atol=0)


@every_loss
def test_the_module_agrees_with_its_function(case):
    pair = random_pair()
    assert_close(case.twin(*pair), case.call(*pair), rtol=0, atol=0)


@pytest.mark.parametrize("module", sorted({case.module.__name__ for case in ALL_LOSSES}))
def test_a_module_takes_its_functions_options_with_the_same_defaults(module):
    case = next(case for case in ALL_LOSSES if case.module.__name__ == module)
    options = {p.name: p.default for p in inspect.signature(case.function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if "__init__" not in vars(case.module):
        assert not options
        return
    ours = {p.name: p.default for p in inspect.signature(case.module).parameters.values() if p.name != "representation"}
    assert ours == options


@every_loss
def test_a_module_says_what_it_reads(case):
    module = case.module(**case.options)
    assert isinstance(module.representation, Representation)
    assert module.accepts
    assert module.accepts <= set(Ambiguity)


@pytest.mark.quick(case=[str(case) for case in ALL_LOSSES][::8])
@every_loss
def test_a_compiled_loss_has_one_graph_and_the_same_value_and_gradient(case):
    pair = random_pair()
    torch.compiler.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    assert_close(value_and_gradient(compiled, *pair), value_and_gradient(case.call, *pair))


@every_loss
def test_a_nan_in_a_valid_pixel_is_not_hidden(case):
    pred, target, valid = random_pair()
    pred[valid] = torch.where(torch.rand(int(valid.sum())) < 0.05, torch.nan, pred[valid])
    assert case.call(pred, target, valid).isnan().all()


@pytest.mark.parametrize("case", [c for c in ALL_LOSSES if c.module is not losses.RankingLoss], ids=str)
def test_maps_of_different_size_are_refused_with_the_remedy(case):
    pred, target, valid = random_pair()
    with pytest.raises(ShapeError, match="Resize the prediction to the label"):
        case.call(pred[..., 1:], target, valid)
    with pytest.raises(ShapeError, match="expected valid as bool"):
        case.call(pred, target, valid.float())


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("ssi_loss", {"align": "mean"}, "expected align to be one of least_squares, median, scale; got 'mean'"),
        ("ssi_loss", {"penalty": "huber"}, "expected penalty to be one of l1, l2; got 'huber'"),
        ("ssi_loss", {"trim": 1.0}, r"expected trim, .*, in \[0, 1\); got 1.0"),
        ("ssi_loss", {"align": "median", "require_positive_scale": True}, 'belongs to align="least_squares"'),
        ("gradient_matching_loss", {"divisor": "pairs"}, "expected divisor to be one of level, image; got 'pairs'"),
        ("gradient_matching_loss", {"scales": 0}, "expected scales to be at least 1; got 0"),
        ("normalised_gradient_loss", {"spacings": (2, 0)}, r"expected spacings of at least 1 pixel; got \(2, 0\)"),
        ("ordinal_loss", {"pairs": 0}, "expected pairs of at least 1"),
        ("pointwise_loss", {"norm": "l3"}, "expected norm to be one of l1, l2; got 'l3'"),
    ],
)
def test_an_unknown_option_is_named_with_the_choices(function, options, message):
    with pytest.raises(RecipeError, match=message) as caught:
        getattr(functional, function)(*random_pair(), **options)
    assert isinstance(caught.value, DepthKitError)
