"""One way from an image to its map: ``label``, ``predict``, ``DepthPredictor`` and validation agree on the same photograph."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthkit.data.stream.collate import collate, to_float
from depthkit.evaluation import PROTOCOLS
from depthkit.images import find_images, read_image
from depthkit.inference import DepthPredictor
from depthkit.inference.files import ImageReader
from depthkit.inference.labelling import PoolReader, open_pool, stored_kind
from depthkit.inference.labelling.module import PseudoLabelModule
from depthkit.inference.teacher import Teacher
from depthkit.models import AffineDepth, LinearDepth, LogDepth, latent_diffusion_tiny
from depthkit.paradigms import DepthModule
from depthkit.representation import convert
from depthkit.resize import InputResize, OutputResize, input_rule_of, native_map, network_map
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, LabelKind, Representation, Sample

SIZES = [(37, 53), (64, 48)]
SEEN = InputResize(32, "area", antialias=True)


class Steps(nn.Module):
    """Depth that jumps by a factor of 20, at half the input's size, in any representation."""

    size_multiple = 8

    def __init__(self, representation, resize_space=None, output_rule=None):
        super().__init__()
        self.representation, self.resize_space = representation, resize_space
        self.input_rule, self.output_rule = SEEN, output_rule

    def forward(self, image):
        depth = 1 + 19 * (image[:, :1, ::2, ::2] > 0.5)
        return convert(depth + image[:, 1:2, ::2, ::2], Representation.DEPTH, self.representation)


def diffusion(codec):
    torch.manual_seed(0)
    model = latent_diffusion_tiny(codec=codec)
    model.processing_size = 32
    return model


NETWORKS = {
    **{f"{r}": (lambda r=r: Steps(r)) for r in REPRESENTATIONS},
    "depth resized as disparity": lambda: Steps(Representation.DEPTH, Representation.DISPARITY),
    "its own rule": lambda: Steps(Representation.DEPTH, None, OutputResize(Representation.LOG_DEPTH, "bicubic", True)),
    "log codec": lambda: diffusion(LogDepth(0.5, 80.0)),
    "linear codec": lambda: diffusion(LinearDepth(0.5, 80.0)),
    "affine codec": lambda: diffusion(AffineDepth()),
}


class Module(DepthModule):
    """A paradigm that is not trained."""

    accepts = ambiguity = losses = None


def of_label(model, ambiguity, folder):
    """The map that ``depthkit label`` stores, before it is rounded."""
    kind = LabelKind(ambiguity, model.representation)
    pool = open_pool(folder)
    teacher = Teacher("model", model, kind, input_rule_of(model))
    reader = PoolReader(pool, pool.pieces, resize=teacher.resize, multiple=teacher.multiple, batch_size=2)
    found = {}
    store = SimpleNamespace(encode=lambda image, label, valid, sky: found.__setitem__(image.key, label) or {})
    module = PseudoLabelModule(model, kind, store, reader)
    with torch.inference_mode():
        for batch in reader:
            assert not batch.broken
            if batch.entries:
                module._hand_over(batch, network_map(model, batch.images, batch.entries[0].shown).map, None)
    module._encoders.shutdown()
    return found, stored_kind(kind).representation


def of_validation(model, batch):
    """The map that a protocol compares, which states no space and the network's own size."""
    protocol = replace(
        PROTOCOLS["synthetic_metric"],
        input=input_rule_of(model),
        output=OutputResize(),
        min_depth=0.0,
        max_depth=torch.inf,
        space=model.representation,
    )
    module, seen = Module(model, protocols="synthetic_metric"), {}
    row = torch.full((1,), AMBIGUITIES.index(Ambiguity.METRIC)), torch.full((1,), REPRESENTATIONS.index(Representation.DEPTH))
    shape = batch.image[:, :1]
    batch = replace(batch, target=torch.ones_like(shape), valid=torch.ones_like(shape, dtype=torch.bool), ambiguity=row[0])
    batch = replace(batch, representation=row[1])

    class Metrics:
        def __init__(self):
            self.protocol = protocol

        def update(self, pred, representation, batch, *, resize_space=None):
            seen["map"] = protocol.compare(pred, representation, batch, resize_space=resize_space).pred

    type(module).ambiguity = Ambiguity.METRIC
    with torch.inference_mode():
        module._score(batch, Metrics())
    return seen["map"]


@pytest.mark.parametrize("name", NETWORKS)
def test_label_predict_predictor_and_validation_agree(name, tmp_path):
    for number, size in enumerate(SIZES):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.NEAREST)
        image.save(tmp_path / f"{number}.{('jpg', 'png')[number]}")
    model = NETWORKS[name]().eval()
    own = model.representation
    ambiguity = getattr(model, "ambiguity", Ambiguity.METRIC)
    predictor, files = DepthPredictor(model, ambiguity=ambiguity), find_images(tmp_path)
    groups = list(ImageReader(files, predictor.input_rule, getattr(model, "size_multiple", 1), 1))
    labels = of_label(model, ambiguity, tmp_path) if ambiguity == Ambiguity.METRIC else None
    for number, (size, file) in enumerate(zip(SIZES, files, strict=True)):
        expected, batch = predictor(file).map, to_float(collate([Sample(str(file), read_image(file))], [0]))
        assert expected.shape == size
        images = groups[number].images
        np.testing.assert_array_equal(next(predictor.predictions(images, predictor.maps(images))).map, expected)
        with torch.inference_mode():
            np.testing.assert_allclose(native_map(model, batch.image).map[0, 0].numpy(), expected, rtol=1e-5)
        if model.__class__ is not Steps or model.output_rule is None:  # a protocol states its own rule
            np.testing.assert_allclose(of_validation(model, batch)[0, 0].numpy(), expected, rtol=1e-5)
        if labels is not None:
            found, stored = labels
            label = next(values for key, values in found.items() if key.startswith(str(number)))
            np.testing.assert_allclose(label, convert(torch.from_numpy(expected), own, stored).numpy(), rtol=1e-4)
