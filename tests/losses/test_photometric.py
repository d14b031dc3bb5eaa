"""The photometric errors: bounds, symmetry, an independent SSIM."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.losses import FeatureL1Error, PhotometricError
from depthkit.losses.functional import feature_l1_error, photometric_error
from depthkit.losses.photometric import _window_mean


def test_equal_images_have_no_error_and_any_two_at_most_one():
    a, b = torch.rand(2, 2, 3, 9, 11)
    assert (photometric_error(a, a) == 0).all()
    bright = 0.999 + 1e-6 * a  # whose variance is rounding alone
    assert photometric_error(bright, 0.999 + 1e-6 * b).min() >= 0
    worst = photometric_error((a > 0.5).float(), (a <= 0.5).float())
    assert photometric_error(a, b).min() >= 0
    assert 0.8 < worst.max() <= 1


def test_the_images_may_be_swapped_mirrored_and_rotated():
    a, b = torch.rand(2, 1, 3, 8, 10, dtype=torch.float64)
    error = photometric_error(a, b)
    assert_close(photometric_error(b, a), error)
    for axes in ((3,), (2,), (2, 3)):
        assert_close(photometric_error(a.flip(axes), b.flip(axes)).flip(axes), error)
    assert_close(photometric_error(a.mT, b.mT).mT, error)


def test_without_ssim_it_is_plain_l1():
    a, b = torch.rand(2, 1, 3, 5, 6)
    assert_close(photometric_error(a, b, ssim_weight=0), (a - b).abs().mean(1, keepdim=True), rtol=0, atol=0)


def test_constant_images_have_the_closed_form():
    a, b = torch.full((1, 3, 4, 5), 0.2), torch.full((1, 3, 4, 5), 0.6)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert_close(photometric_error(a, b), torch.full((1, 1, 4, 5), 0.85 * (1 - luminance) / 2 + 0.15 * 0.4), rtol=1e-3, atol=0)


def test_ssim_is_that_of_windows_looked_at_one_by_one():
    a, b = np.random.default_rng(0).random((2, 3, 5, 6))
    wide_a, wide_b = (np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect") for x in (a, b))
    expected = np.zeros((5, 6))
    for row, column in np.ndindex(5, 6):
        for c in range(3):
            x, y = (w[c, row : row + 3, column : column + 3] for w in (wide_a, wide_b))
            similarity = (2 * x.mean() * y.mean() + 0.01**2) * (2 * ((x - x.mean()) * (y - y.mean())).mean() + 0.03**2)
            similarity /= (x.mean() ** 2 + y.mean() ** 2 + 0.01**2) * (x.var() + y.var() + 0.03**2)
            expected[row, column] += 0.85 * (1 - similarity) / 2 / 3 + 0.15 * abs(a[c, row, column] - b[c, row, column]) / 3
    found = photometric_error(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
    assert_close(found[0, 0], torch.from_numpy(expected))


def test_several_images_are_compared_with_one_as_each_alone():
    a, b = torch.rand(2, 4, 3, 6, 7), torch.rand(2, 3, 6, 7)
    for error in (PhotometricError(), FeatureL1Error(nn.Conv2d(3, 5, 3, padding=1))):
        together = error(a, b[:, None])
        assert together.shape == (2, 4, 1, 6, 7)
        for k in range(4):
            assert_close(together[:, k], error(a[:, k], b))


def test_feature_error_is_the_mean_difference_of_unit_vectors():
    a, b = (torch.tensor(v).view(1, 2, 1, 1) for v in ((3.0, 4.0), (-50.0, 0.0)))
    assert_close(feature_l1_error(a, b), torch.full((1, 1, 1, 1), (1.6 + 0.8) / 2))


def test_feature_error_is_blind_to_the_extractors_gain_and_finite_where_nothing_fires():
    a, b = torch.rand(2, 1, 8, 5, 6)
    assert_close(feature_l1_error(7 * a, 7 * b), feature_l1_error(a, b), rtol=1e-4, atol=1e-6)
    assert (feature_l1_error(a, a) == 0).all()
    faint = torch.full((1, 1, 5, 6), 1e-3)  # as long as what keeps a vector of zeros finite
    assert_close(feature_l1_error(faint, 0 * faint), torch.full((1, 1, 5, 6), 0.5**0.5))
    dark = torch.zeros(1, 8, 5, 6, requires_grad=True)
    feature_l1_error(dark, b).sum().backward()
    assert dark.grad.isfinite().all()


def test_the_extractor_is_frozen_stays_in_evaluation_mode_and_passes_gradients():
    error = FeatureL1Error(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))).train()
    a, b = torch.rand(2, 1, 3, 6, 7)
    error(a.requires_grad_(), b).sum().backward()
    assert a.grad.abs().sum() > 0
    assert error.training
    assert not error.features.training
    assert not any(p.requires_grad for p in error.parameters())


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(RecipeError, match=r"expected ssim_weight in \[0, 1\]; got"):
        photometric_error(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), ssim_weight=weight)


def test_images_that_cannot_be_compared_are_refused():
    a = torch.rand(1, 3, 4, 4)
    for other in (a[..., 1:], a[:, :1], a[0]):
        with pytest.raises(ShapeError, match=r"expected two images of one shape \(B, 3, H, W\); got"):
            photometric_error(a, other)
    with pytest.raises(ShapeError, match="at least 2 x 2 pixels"):
        photometric_error(a[..., :1], a[..., :1])
    with pytest.raises(ShapeError, match="expected features of the image's size"):
        FeatureL1Error(nn.MaxPool2d(2))(a, a)
    with pytest.raises(ShapeError, match="expected two feature maps of one shape"):
        feature_l1_error(a, a[:, 1:])


def test_window_means_are_those_of_pooling_to_the_last_bit_with_its_gradient():
    x, upstream = torch.rand(2, 3, 9, 11, requires_grad=True), torch.randn(2, 3, 7, 9)
    found, pooled = _window_mean(x), F.avg_pool2d(x, 3, 1)
    assert_close(found, pooled, rtol=0, atol=0)
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (found, pooled)]
    assert_close(*gradients)
