"""Shards, the stream that reads them, mixing, transforms, and scenes to train on without a download.

Names are imported when they are first used, so that one who writes shards need not load Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthkit.data.datamodule import DepthDataModule, ShardSource
    from depthkit.data.datamodule_video import VideoDataModule
    from depthkit.data.mixing import EqualParts, LabelledUnlabelled, OneDatasetPerBatch, Proportional, Weighted
    from depthkit.data.shards import ShardIndex, ShardWriter, verify
    from depthkit.data.synthetic import SyntheticScenes

__all__ = [
    "DepthDataModule",
    "EqualParts",
    "LabelledUnlabelled",
    "OneDatasetPerBatch",
    "Proportional",
    "ShardIndex",
    "ShardSource",
    "ShardWriter",
    "SyntheticScenes",
    "VideoDataModule",
    "Weighted",
    "verify",
]

_MODULES = {
    "datamodule": ("DepthDataModule", "ShardSource"),
    "datamodule_video": ("VideoDataModule",),
    "mixing": ("EqualParts", "LabelledUnlabelled", "OneDatasetPerBatch", "Proportional", "Weighted"),
    "shards": ("ShardIndex", "ShardWriter", "verify"),
    "synthetic": ("SyntheticScenes",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
