"""Small shards and a loader of them, and how their batches are compared."""

import numpy as np
import torch

from depthkit.data import ShardIndex, ShardWriter
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.mixing import EqualParts, Mixture
from depthkit.data.stream.plan import Plan
from depthkit.data.stream.rows import evaluation_rows, training_rows
from depthkit.data.stream.stream import Dataset, Stream
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop
from depthkit.types import Ambiguity, Sample

SAMPLES, PER_SHARD = 27, 4


SAMPLES, PER_SHARD = 27, 4


def make(i: int, size=(12, 16)) -> Sample:
    image = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
    label = np.full(size, 1 + i, np.float32)
    return Sample(f"s{i:03d}", image, label, np.ones(size, bool), Ambiguity.METRIC, frames={"next": image})


def write(root, samples, per_shard=PER_SHARD, **options):
    with ShardWriter(root, split="train", dataset="a", samples_per_shard=per_shard, image_format="png", **options) as writer:
        for sample in samples:
            writer.write(sample)
    return root


def loader(root, *, world=1, rank=0, workers=0, batch_size=4, training=True, seed=0, context=None, window=6, broken=0.5):
    index = ShardIndex.load(root)
    shards = index.shards("train")
    counts, urls = tuple(s.samples for s in shards), tuple(map(index.url, shards))
    digest = " ".join(s.sha256 for s in shards)
    if training:
        rows = training_rows(sum(counts), world=world, batch_size=batch_size, drop_last=False)
        dataset = Dataset("a", urls, counts, Compose([RandomResizedCrop((8, 8)), HorizontalFlip()]), digest)
    else:
        rows, dataset = evaluation_rows(sum(counts), world=world, batch_size=batch_size), Dataset("a", urls, counts)
    mixture = Mixture(EqualParts(), (sum(counts),), (True,))
    plan = Plan(rows, mixture, (counts,), workers=max(workers, 1), seed=seed, shuffle=training, window=window)
    stream = Stream((dataset,), plan, rank, world, replace=training)
    return Loader(stream, num_workers=workers, multiprocessing_context=context, max_broken_fraction=broken)


def keys(batches):
    return [key for batch in batches for key, real in zip(batch.keys, batch.real.tolist(), strict=True) if real]


def same(batches, others):
    for a, b in zip(batches, others, strict=True):
        assert a.keys == b.keys
        for name in ("image", "target", "valid", "intrinsics"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0, equal_nan=True)
