"""Shards with neighbouring views into Lightning: what learning without labels reads."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from depthkit.data.datamodule import DepthDataModule, ShardSource
from depthkit.data.stream import Dataset
from depthkit.data.transforms import Compose, HorizontalFlip, Resize, Transform
from depthkit.errors import RecipeError
from depthkit.types import Views


class VideoDataModule(DepthDataModule):
    """Streams images with their neighbours in time, their stereo partner, or both, for training; else as ``DepthDataModule``.

    ``Batch.frames`` holds the views in the order of ``Views.frames``. A sample without one of them is skipped and counted as
    broken. Colours are left alone: the paradigm changes them for the networks only, once for all views of a sample.

    Args:
        sources: datasets to train on, written with these views.
        views: which views to read.
        size: (height, width) [px] of training images.
        transform: what happens to training samples; None for Monodepth2's: mirrored half of the time, resized to ``size``.
        kwargs: see ``DepthDataModule``.

    Raises:
        RecipeError: no views to read.
    """

    def __init__(
        self,
        sources: Sequence[ShardSource] = (),
        *,
        views: Views = Views.VIDEO,
        size: tuple[int, int] = (192, 640),
        transform: Transform | None = None,
        **kwargs: Any,
    ) -> None:
        if Views(views) is Views.SINGLE:
            raise RecipeError("expected data.views video, stereo or video_stereo; got single. Use DepthDataModule for images.")
        usual = Compose([HorizontalFlip(), Resize((size[0], size[1]))])
        super().__init__(sources, size=size, transform=transform or usual, **kwargs)
        self.views = Views(views)

    def _training_dataset(self, source: ShardSource) -> Dataset:
        return replace(super()._training_dataset(source), views=self.views)
