"""Data modules, the stream that reads shards, mixing and transforms.

Names are imported when they are first used, so that one who writes shards need not load Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthkit.data.datamodule import DepthDataModule, ShardSource
    from depthkit.data.datamodule_video import VideoDataModule
    from depthkit.data.stream.mixing import EqualParts, LabelledUnlabelled, Mixing, OneDatasetPerBatch, Proportional, Weighted
    from depthkit.data.transforms import Transform
    from depthkit.shards import ShardIndex, ShardWriter, verify
    from depthkit.shards.remote.cache import ShardCache

__all__ = [
    "DepthDataModule",
    "EqualParts",
    "LabelledUnlabelled",
    "Mixing",
    "OneDatasetPerBatch",
    "Proportional",
    "ShardCache",
    "ShardIndex",
    "ShardSource",
    "ShardWriter",
    "Transform",
    "VideoDataModule",
    "Weighted",
    "verify",
]

_MODULES = {
    "depthkit.data.datamodule": ("DepthDataModule", "ShardSource"),
    "depthkit.data.datamodule_video": ("VideoDataModule",),
    "depthkit.data.stream.mixing": (
        "EqualParts",
        "LabelledUnlabelled",
        "Mixing",
        "OneDatasetPerBatch",
        "Proportional",
        "Weighted",
    ),
    "depthkit.data.transforms": ("Transform",),
    "depthkit.shards.remote.cache": ("ShardCache",),
    "depthkit.shards": ("ShardIndex", "ShardWriter", "verify"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
