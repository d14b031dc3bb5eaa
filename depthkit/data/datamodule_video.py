"""Video and stereo shards into Lightning: images with their neighbours in time, their stereo partner, or both."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from depthkit.data.datamodule import DepthDataModule, ShardSource, unique_names
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.stream import Dataset
from depthkit.data.transforms import Compose, HorizontalFlip, Resize, Transform
from depthkit.errors import RecipeError
from depthkit.shards import ShardIndex
from depthkit.shards.index import shared_views
from depthkit.types import Views


class VideoDataModule(DepthDataModule):
    """Streams images with further views and known cameras for training; evaluation and prediction are those of its base.

    Views of a sample are resized and mirrored together, and intrinsics and poses with them: mirrored, a right camera's
    picture is a left camera's. Colours are not changed here: networks should see other colours than losses do, which is for
    the training step.

    Args:
        sources: datasets to train on; every one must hold the ``views``, and intrinsics unless ``learned_intrinsics``.
        views: what comes beside each image: ``video`` (``prev`` and ``next``), ``stereo``, or both.
        learned_intrinsics: whether the model finds the cameras itself, so that samples need not know theirs.
        val_loss_sources: datasets with the ``views`` on which validation computes the training loss, for videos that nobody has
            labelled; one loader each, after those of ``val_sources``.
        size: (height, width) [px] of training images (Monodepth2, section 4).
        transform: what happens to training samples; None for Monodepth2's: resized to ``size`` whatever their aspect, and
            mirrored half of the time.
        kwargs: of ``DepthDataModule``.

    Raises:
        RecipeError: ``views`` is single, or a source lacks what is asked of it.
    """

    def __init__(
        self,
        sources: Sequence[ShardSource] = (),
        *,
        views: Views | Literal["video", "stereo", "video_stereo"] = Views.VIDEO,
        learned_intrinsics: bool = False,
        val_loss_sources: Sequence[ShardSource] = (),
        size: tuple[int, int] = (192, 640),
        transform: Transform | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(sources, size=size, transform=transform or Compose([Resize(size), HorizontalFlip()]), **kwargs)
        self.views, self.learned_intrinsics = Views(views), learned_intrinsics
        self.val_loss_sources = tuple(val_loss_sources)
        if self.views == Views.SINGLE:
            raise RecipeError("expected data.views video, stereo or video_stereo; got single. Use DepthDataModule for it.")

    @property
    def val_loss_names(self) -> tuple[str, ...]:
        """Names of ``val_loss_sources``, in the order of their loaders."""
        return unique_names(self.val_loss_sources)

    def val_dataloader(self) -> list[Loader]:
        """One loader per validation source: those with labels, then those for the loss."""
        return [*super().val_dataloader(), *map(self.views_dataloader, self.val_loss_sources)]

    def views_dataloader(self, source: ShardSource) -> Loader:
        """Every sample of a source once, in order, with its views, resized to ``size``: for what scores motion.

        Args:
            source: any split with the ``views``; it need not be one of the module's.
        """
        dataset = super()._training_dataset(replace(source, size=None))
        return self._every_sample_once(self._with_views(replace(dataset, transform=Resize(self.size)), source))

    def _training_dataset(self, source: ShardSource) -> Dataset:
        dataset = self._with_views(super()._training_dataset(source), source)
        if not (ShardIndex.load(source.root).split(source.split).intrinsics or self.learned_intrinsics):
            raise RecipeError(
                f"expected intrinsics with every sample of dataset '{dataset.name}'; some have none. Write its shards with "
                "intrinsics, or set data.learned_intrinsics for a model that finds them."
            )
        return dataset

    def _with_views(self, dataset: Dataset, source: ShardSource) -> Dataset:
        split = ShardIndex.load(source.root).split(source.split)
        if shared_views(self.views, split.views) != self.views:
            raise RecipeError(
                f"expected samples of dataset '{dataset.name}' with views {self.views}, as data.views says; they have "
                f"{split.views}. Write its shards with views={self.views}, or ask for less."
            )
        return replace(dataset, views=self.views)
