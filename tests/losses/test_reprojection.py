"""Minimum reprojection: what the minimum, the automask and the mask of visible pixels must do."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import inside_image, pose_from_axis_angle, reproject, sample_pixels, warp
from depthkit.losses import FeatureL1Error, MinReprojectionLoss, PhotometricError
from depthkit.losses.functional import min_reprojection, min_reprojection_loss, photometric_error, source_errors


def _views(batch: int = 2, sources: int = 2, height: int = 8, width: int = 10, **options) -> tuple[torch.Tensor, ...]:
    """Target, warped sources, sources: unrelated noise."""
    target = torch.rand(batch, 3, height, width, **options)
    return target, *torch.rand(2, batch, sources, 3, height, width, **options)


def _gradient(warped: torch.Tensor, **arguments) -> torch.Tensor:
    warped = warped.clone().requires_grad_()
    loss = min_reprojection_loss(warped=warped, **arguments)
    return torch.autograd.grad(loss.sum(), warped)[0]


def test_the_identity_pose_gives_zero_loss():
    image = torch.rand(1, 3, 12, 16)
    intrinsics = torch.tensor([[[10.0, 0, 7.5], [0, 10, 5.5], [0, 0, 1]]])
    pose = pose_from_axis_angle(torch.zeros(1, 3), torch.zeros(1, 3))
    again = warp(image, 1 + torch.rand(1, 1, 12, 16), intrinsics, pose)[:, None]
    assert min_reprojection_loss(image, again, image[:, None], automask=False) < 1e-6


def test_without_automask_it_is_the_mean_of_the_least_error():
    target, warped, sources = _views()
    errors = torch.cat([photometric_error(warped[:, s], target) for s in range(2)], 1)
    assert_close(min_reprojection_loss(target, warped, sources, automask=False), errors.amin(1).mean((1, 2)))
    mean = min_reprojection_loss(target, warped, sources, automask=False, reduction="mean")
    assert_close(mean, errors.mean((1, 2, 3)))


def test_the_order_of_the_sources_does_not_matter():
    target, warped, sources = _views(sources=3)
    for reduction in ("min", "mean"):
        loss = min_reprojection_loss(target, warped, sources, automask=False, reduction=reduction)
        flipped = min_reprojection_loss(target, warped.flip(1), sources.flip(1), automask=False, reduction=reduction)
        assert_close(flipped, loss)


def test_an_occluded_pixel_costs_nothing_if_another_source_shows_it():
    target, warped, sources = _views()
    warped[:, 0] = target
    warped[:, 0, :, :, :3], warped[:, 1, :, :, -6:] = 0.0, target[..., -6:]
    warped[:, 1, :, :, :6] = target[..., :6]
    assert (min_reprojection_loss(target, warped, sources, automask=False) == 0).all()
    assert (min_reprojection_loss(target, warped, sources, automask=False, reduction="mean") > 0.01).all()


def test_a_static_camera_teaches_nothing():
    target, warped, _ = _views()
    static = target[:, None].expand_as(warped)
    found = min_reprojection(target, warped, static)
    assert (found.selected == -1).all()
    assert found.loss.abs().max() < 1e-4  # the noise alone
    for reduction in ("min", "mean"):
        assert (_gradient(warped, target=target, sources=static, reduction=reduction) == 0).all()


def test_an_object_that_moves_with_the_camera_is_masked_and_stays_in_the_mean():
    target, _, sources = _views(height=16, width=16)
    warped = target[:, None].expand_as(sources).clone()
    sources, object_ = sources.clone(), (slice(None), slice(None), slice(None), slice(4, 12), slice(4, 12))
    sources[object_] = target[:, None][object_]
    warped[object_] = 0.5
    found = min_reprojection(target, warped, sources)
    assert (found.selected[..., 5:11, 5:11] == -1).all()
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[3:13, 3:13] = False
    assert (found.selected[..., outside] >= 0).all()
    assert_close(found.loss, found.error.mean((1, 2, 3)))


def test_selected_names_the_source_each_pixel_learns_from():
    target, _, sources = _views(sources=3)
    warped = 1 - target[:, None].expand_as(sources).clone()
    warped[:, 2] = target
    assert (min_reprojection(target, warped, sources).selected == 2).all()
    gradient = _gradient(0.99 * warped, target=target, sources=sources)
    assert gradient[:, 2].abs().sum() > 0
    assert (gradient[:, :2] == 0).all()


def test_ties_are_broken_at_random_by_the_given_generator():
    target, _, _ = _views(batch=1, height=32, width=32)
    same = target[:, None]

    def selected(seed: int) -> torch.Tensor:
        return min_reprojection(target, same, same, generator=torch.Generator().manual_seed(seed)).selected

    assert_close(selected(1), selected(1))
    assert (selected(1) != selected(2)).any()
    assert 0.4 < (selected(1) == -1).float().mean() < 0.6


def test_mean_and_automask_compare_the_two_means():
    target, warped, sources = _views(batch=1)
    errors, still = (source_errors(target, x).mean(1, keepdim=True) for x in (warped, sources))
    found = min_reprojection(target, warped, sources, reduction="mean")
    assert_close(found.error, torch.minimum(errors, still), rtol=0, atol=1e-3)
    assert set(found.selected.unique().tolist()) == {-1, 0}


def test_errors_of_the_unwarped_sources_may_be_computed_once():
    target, warped, sources = _views()
    loss = MinReprojectionLoss(error=PhotometricError(ssim_weight=0))
    known = loss.identity(target, sources)
    seeds = (torch.Generator().manual_seed(3) for _ in range(2))
    expected = loss(target, warped, sources, generator=next(seeds))
    assert_close(loss(target, warped, sources, identity=known, generator=next(seeds)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0, 0.0])
@pytest.mark.parametrize("automask", [True, False])
@pytest.mark.parametrize("reduction", ["min", "mean"])
def test_what_a_source_does_not_show_changes_neither_value_nor_gradient(poison, automask, reduction):
    target, warped, sources = _views()
    visible = torch.rand(2, 2, 8, 10) < 0.7
    options = {"target": target, "sources": sources, "visible": visible, "automask": automask, "reduction": reduction}

    def value_and_gradient(x):
        generator = torch.Generator().manual_seed(0)
        x = x.clone().requires_grad_()
        value = min_reprojection_loss(warped=x, generator=generator, **options)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    clean = value_and_gradient(warped)
    assert_close(value_and_gradient(warped.where(visible[:, :, None], poison)), clean, rtol=0, atol=0)
    assert clean[0].isfinite().all()
    assert (clean[1].movedim(2, -1)[~visible] == 0).all()


@pytest.mark.parametrize("reduction", ["min", "mean"])
def test_an_image_that_no_source_shows_gives_zero_with_zero_gradient(reduction):
    target, warped, sources = _views()
    visible = torch.ones(2, 2, 8, 10, dtype=torch.bool)
    visible[1] = False
    options = {"target": target, "sources": sources, "visible": visible, "automask": False, "reduction": reduction}
    value = min_reprojection_loss(warped=warped, **options)
    assert value[1] == 0
    assert value[0] > 0
    assert (_gradient(warped, **options)[1] == 0).all()
    assert (min_reprojection(warped=warped, **options).selected[1] == -1).all()


@pytest.mark.parametrize("reduction", ["min", "mean"])
def test_a_pixel_that_no_source_shows_costs_what_standing_still_costs(reduction):
    target, warped, sources = _views()
    visible = torch.ones(2, 2, 8, 10, dtype=torch.bool)
    visible[..., :4] = False
    found = min_reprojection(target, warped, sources, visible=visible, reduction=reduction)
    still = source_errors(target, sources)
    expected = still.amin(1) if reduction == "min" else still.mean(1)
    assert_close(found.error[:, 0, :, :4], expected[..., :4], rtol=0, atol=1e-4)  # but for the noise
    assert (found.selected[..., :4] == -1).all()
    assert (found.selected[..., 4:] >= 0).any()


def test_all_visible_is_the_loss_without_a_mask():
    target, warped, sources = _views()
    everywhere = torch.ones(2, 2, 8, 10, dtype=torch.bool)
    for reduction in ("min", "mean"):
        plain = min_reprojection_loss(target, warped, sources, automask=False, reduction=reduction)
        masked = min_reprojection_loss(target, warped, sources, automask=False, reduction=reduction, visible=everywhere)
        assert_close(masked, plain)


def test_pixels_from_beyond_the_border_cost_as_released_and_nothing_when_masked():
    wide = F.interpolate(torch.rand(1, 3, 6, 9), size=(24, 36), mode="bicubic").clamp(0, 1)
    target, source = wide[..., 6:30], wide[..., :24]  # the camera moved right by 6 pixels at this depth
    intrinsics = torch.tensor([[[24.0, 0, 11.5], [0, 24, 11.5], [0, 0, 1]]])
    pose = pose_from_axis_angle(torch.zeros(1, 3), torch.tensor([[0.25, 0, 0]]))
    pixels = reproject(torch.ones(1, 1, 24, 24), intrinsics, pose)
    warped, visible = sample_pixels(source, pixels)[:, None], inside_image(pixels, (24, 24))
    assert visible.float().mean() == 18 / 24
    assert min_reprojection_loss(target, warped, source[:, None], automask=False) > 0.01
    assert min_reprojection_loss(target, warped, source[:, None], automask=False, visible=visible) < 1e-5


def test_a_predictive_mask_weighs_the_errors_and_pays_for_what_it_hides():
    target, warped, sources = _views()
    plain = min_reprojection_loss(target, warped, sources, automask=False)
    everything = torch.ones(2, 2, 8, 10)
    assert_close(min_reprojection_loss(target, warped, sources, automask=False, predictive_mask=everything), plain)
    half = min_reprojection_loss(target, warped, sources, automask=False, predictive_mask=0.5 * everything)
    assert_close(half, 0.5 * plain + 0.2 * torch.tensor(2.0).log())
    cheap = MinReprojectionLoss(automask=False, mask_weight=0.0)
    assert_close(cheap(target, warped, sources, predictive_mask=0.5 * everything), 0.5 * plain)


def test_any_error_per_pixel_takes_the_place_of_ssim_and_l1():
    target, warped, sources = _views()
    features = torch.nn.Conv2d(3, 4, 3, padding=1)
    loss = MinReprojectionLoss(error=FeatureL1Error(features), automask=False)
    expected = torch.cat([FeatureL1Error(features)(warped[:, s], target) for s in range(2)], 1).amin(1).mean((1, 2))
    assert_close(loss(target, warped, sources), expected)


def test_half_precision_is_computed_in_float32():
    target, warped, sources = (x.bfloat16() for x in _views())
    full = [x.float() for x in (target, warped, sources)]
    with torch.autocast("cpu", torch.bfloat16):
        value = min_reprojection_loss(target, warped, sources, generator=torch.Generator().manual_seed(0))
    assert_close(value, min_reprojection_loss(*full, generator=torch.Generator().manual_seed(0)), rtol=0, atol=0)


def test_shapes_and_options_that_do_not_fit_are_refused():
    target, warped, sources = _views()
    for wrong in (sources[:, :1], sources[..., 1:], sources[:, 0], sources[:, :0]):
        with pytest.raises(ShapeError, match=r"expected (sources|warped) of shape \(B, S, 3, H, W\).*Stack the sources"):
            min_reprojection_loss(target, warped, wrong)
    with pytest.raises(ShapeError, match="expected visible as bool of shape"):
        min_reprojection_loss(target, warped, sources, visible=torch.ones(2, 2, 8, 10))
    with pytest.raises(ShapeError, match="expected predictive_mask as float of shape"):
        min_reprojection_loss(target, warped, sources, automask=False, predictive_mask=torch.ones(2, 1, 8, 10))
    with pytest.raises(RecipeError, match="expected reduction to be one of min, mean; got 'median'"):
        min_reprojection_loss(target, warped, sources, reduction="median")
    with pytest.raises(RecipeError, match="expected either automask or a predictive mask; got both"):
        min_reprojection_loss(target, warped, sources, predictive_mask=torch.ones(2, 2, 8, 10))
