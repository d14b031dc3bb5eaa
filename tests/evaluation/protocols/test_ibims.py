"""Laws of iBims-1's edge errors, from marked edges in shards to the numbers of a report."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.data import ShardWriter
from depthkit.errors import LabelError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.metrics import functional
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (40, 60)


class Step(nn.Module):
    """A wall that begins at the column where the image becomes bright."""

    ambiguity = Ambiguity.SCALE

    def __init__(self, representation):
        super().__init__()
        self.representation = representation

    def forward(self, image):
        depth = 1 + 3 * (image.mean(1, keepdim=True) > 0.5)
        return depth if self.representation == Representation.DEPTH else 1 / depth


def sample(key, found, marked):
    """A picture in which the network sees its step at one column, and marked edges at another."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, found:] = 255
    edges = np.zeros(SIZE, bool)
    edges[:, marked] = True
    depth = np.where(np.arange(SIZE[1]) < marked, 1.0, 4.0).astype(np.float32)
    return Sample(key, image, np.tile(depth, (SIZE[0], 1)), np.ones(SIZE, bool), Ambiguity.METRIC, edges=edges)


def native(name):
    return replace(PROTOCOLS[name], input=replace(PROTOCOLS[name].input, rule="native", multiple=1))


@pytest.mark.parametrize("name", ["ibims_edges", "ibims_edges_affine"])
def test_edges_go_through_shards_to_the_distance_that_the_metric_finds(name, tmp_path):
    samples = [sample("near", 30, 33), sample("far", 30, 45)]
    with ShardWriter(tmp_path, split="test", dataset="rooms", image_format="png") as writer:
        for one in samples:
            writer.write(one)
    network = Step(Representation.DEPTH if name == "ibims_edges" else Representation.DISPARITY)
    report = evaluate(network, evaluation_samples(tmp_path), native(name), progress=False)
    maps = [1.0 + 3 * (torch.arange(SIZE[1]) >= 30).expand(1, 1, *SIZE) for _ in samples]
    for side in ("accuracy", "completeness"):
        expected = [
            float(functional.depth_boundary_error(pred, torch.from_numpy(one.edges)[None, None], side=side))
            for pred, one in zip(maps, samples, strict=True)
        ]
        assert report.summary[f"dbe_{side}"] == pytest.approx(np.mean(expected))
    assert report.summary["dbe_accuracy"] == pytest.approx((3 + 10) / 2, abs=1)  # beyond 10 px there is no counterpart


def test_samples_without_marked_edges_are_refused_by_name():
    with pytest.raises(LabelError, match=r"'ibims_edges': expected labelled edges.*such as ibims"):
        evaluate(Step(Representation.DEPTH), [sample("a", 30, 33).replace(edges=None)], native("ibims_edges"), progress=False)


def test_an_image_without_an_edge_is_left_out():
    none = sample("none", 30, 33).replace(edges=np.zeros(SIZE, bool))
    alone = evaluate(Step(Representation.DEPTH), [sample("a", 30, 33)], native("ibims_edges"), progress=False)
    both = evaluate(Step(Representation.DEPTH), [sample("a", 30, 33), none], native("ibims_edges"), progress=False)
    assert both.summary == alone.summary
