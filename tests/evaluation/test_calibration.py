"""One scale, or one line, for all images: known answers, laws, and what determines nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from depthkit.errors import LabelError, RecipeError
from depthkit.evaluation.calibration import calibrate
from depthkit.resize import InputResize
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (12, 16)


def samples(count=5, seed=0, ambiguity=Ambiguity.METRIC):
    rng = np.random.default_rng(seed)
    for i in range(count):
        depth = rng.uniform(2, 40, SIZE).astype(np.float32)
        image = np.repeat((depth * 6)[..., None], 3, 2).astype(np.uint8)  # the network below reads it
        yield Sample(f"s{i}", image, depth, rng.random(SIZE) < 0.3, ambiguity, Representation.DEPTH)


class FromImage(nn.Module):
    """Predicts ``make(depth)`` of the depth that the image shows in whole sixths of a metre."""

    size_multiple, input_rule = 1, InputResize(rule="native", multiple=1)

    def __init__(self, make, representation, ambiguity):
        super().__init__()
        self.make, self.representation, self.ambiguity = make, representation, ambiguity

    def forward(self, image):
        return self.make(image[:, :1] * 255 / 6)


def exact(count=5):
    """Samples whose labels are what their images show."""
    for sample in samples(count):
        yield sample.replace(label=(sample.image[..., 0] / 6).astype(np.float32))


@pytest.mark.parametrize(
    ("make", "representation", "expected"),
    [
        (lambda d: d / 5.4, Representation.DEPTH, 5.4),
        (lambda d: 5.4 / d, Representation.DISPARITY, 1 / 5.4),
        (lambda d: -(d / 5.4).log(), Representation.LOG_DISPARITY, 1 / 5.4),
        (lambda d: (d / 5.4).log(), Representation.LOG_DEPTH, 5.4),
    ],
)
def test_a_network_up_to_scale_gets_its_factor(make, representation, expected):
    found = calibrate(FromImage(make, representation, Ambiguity.SCALE), exact())
    assert (found.scale, found.shift, found.images) == (pytest.approx(expected, rel=1e-5), 0, 5)
    assert found.spread < 1e-5


@pytest.mark.parametrize("representation", [Representation.DEPTH, Representation.DISPARITY])
def test_a_network_up_to_a_line_gets_its_line(representation):
    def make(depth):
        return ((1 / depth if representation == Representation.DISPARITY else depth) + 0.7) / 3

    found = calibrate(FromImage(make, representation, Ambiguity.SHIFT_SCALE), exact())
    assert (found.scale, found.shift) == (pytest.approx(3, rel=1e-4), pytest.approx(-0.7, rel=1e-3))


def test_the_scale_is_the_median_over_images_of_the_ratio_of_medians():
    network = FromImage(lambda d: d * (1 + 0.02 * d), Representation.DEPTH, Ambiguity.SCALE)
    given = list(exact(7))
    ratios = []
    for sample in given[:5]:
        depth = sample.image[..., 0] / 6
        pred = depth * (1 + 0.02 * depth)
        ratios.append(np.median(sample.label[sample.valid]) / np.median(pred[sample.valid]))
    found = calibrate(network, given, images=5)
    assert found.scale == pytest.approx(np.median(ratios), rel=1e-5)
    assert found.spread == pytest.approx(np.std(ratios / np.median(ratios)), rel=1e-3)
    near = calibrate(network, given, label_range=(2.0, 10.0))
    assert near.images == 7
    assert near.scale > 1.1 * found.scale


def test_images_weigh_alike_in_the_line_whatever_their_labels_number():
    """Two images whose own lines differ: the pooled one lies between, unmoved by a repetition of one image's pixels."""
    given = list(exact(2))
    network = FromImage(lambda d: 1 / d, Representation.DISPARITY, Ambiguity.SHIFT_SCALE)
    bent = [given[0], given[1].replace(label=given[1].label * 2)]
    x, y = ([] for _ in range(2))
    for sample in bent:
        x.append(6.0 / sample.image[..., 0][sample.valid])
        y.append(1 / sample.label[sample.valid])
    weights = np.concatenate([np.full(len(a), 1 / len(a)) for a in x])
    slope, height = np.polyfit(np.concatenate(x), np.concatenate(y), 1, w=np.sqrt(weights))
    found = calibrate(network, bent)
    assert (found.scale, found.shift) == (pytest.approx(slope, rel=1e-4), pytest.approx(height, rel=1e-3, abs=1e-6))


def test_what_determines_no_scale_is_named():
    network = FromImage(lambda d: d, Representation.DEPTH, Ambiguity.SCALE)
    with pytest.raises(RecipeError, match="expected an image that determines a scale; got none"):
        calibrate(network, exact(), label_range=(100.0, 200.0))
    with pytest.raises(LabelError, match="s0: expected a label in metres to calibrate with; got scale"):
        calibrate(network, samples(ambiguity=Ambiguity.SCALE))
    falling = FromImage(lambda d: d, Representation.DISPARITY, Ambiguity.SHIFT_SCALE)
    with pytest.raises(RecipeError, match="expected predictions that grow with the labels"):
        calibrate(falling, exact())
    with pytest.raises(RecipeError, match="constant or fall"):
        calibrate(FromImage(torch.ones_like, Representation.DEPTH, Ambiguity.SHIFT_SCALE), exact())
