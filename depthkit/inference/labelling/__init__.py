"""Pseudo-labels for pools of any size: reading, labelling, writing, and resuming after an interruption."""

from depthkit.inference.labelling.output import LabelFolder
from depthkit.inference.labelling.pool import Piece, Pool, PoolImage, open_pool
from depthkit.inference.labelling.reading import Broken, LabelBatch, PoolReader, pool_loader
from depthkit.inference.labelling.values import stored_kind, stored_label

__all__ = [
    "Broken",
    "LabelBatch",
    "LabelFolder",
    "Piece",
    "Pool",
    "PoolImage",
    "PoolReader",
    "open_pool",
    "pool_loader",
    "stored_kind",
    "stored_label",
]
