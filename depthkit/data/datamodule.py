"""Shards into Lightning: training batches mixed from several datasets, evaluation one dataset at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import BatchSizeFinder

from depthkit.data.stream.collate import to_float
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.mixing import EqualParts, Mixing, Mixture
from depthkit.data.stream.plan import Plan, check_samples
from depthkit.data.stream.rows import evaluation_rows, training_rows
from depthkit.data.stream.stream import Dataset, Stream
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop, Transform
from depthkit.errors import RecipeError
from depthkit.shards import ShardIndex
from depthkit.shards.files import is_remote
from depthkit.shards.remote.cache import ShardCache
from depthkit.types import Ambiguity, Batch, LabelKind


@dataclass(frozen=True)
class ShardSource:
    """One split of one dataset in shards.

    Attributes:
        root: folder of the shards and their ``index.json``, or its URL: ``https://``, ``s3://``, ``gs://``, ``az://``, ``hf://``;
            what follows ``?`` is sent with every file's name.
        split: which shards of it.
        name: what logs and reports call it; None for the name in the index.
        transform: what happens to each sample first, before what the datamodule does to all.
        size: (height, width) [px] of its training images where it is not the datamodule's; then every batch is of one dataset.
    """

    root: str
    split: str = "train"
    name: str | None = None
    transform: Transform | None = None
    size: tuple[int, int] | None = None


class DepthDataModule(LightningDataModule):
    """Streams shards for training, validation and test.

    Args:
        sources: datasets to train on; their order is that of ``Batch.dataset``.
        mixing: how batches are filled from them; None for ``EqualParts()``.
        batch_size: images per batch and rank.
        num_workers: processes per rank that read, decode and augment.
        size: (height, width) [px] of training images.
        transform: what happens to training samples; None for MiDaS's: random crop of the aspect of ``size``, resized to it,
            and mirrored half of the time.
        val_sources: datasets to validate on, one loader each, images in their own size.
        test_sources: datasets to test on, one loader each, images in their own size.
        val_batch_size: images per evaluation batch; more than 1 needs images of one size.
        seed: of sample order and augmentation.
        shuffle_window: consecutive samples per dataset and worker that are shuffled together, held in memory undecoded.
        epoch_size: samples in an epoch over all ranks (MiDaS: 72,000); None for as many as the sources hold.
        drop_last: leave out what fills no batch on every rank; otherwise batches shrink so that nothing is left out.
        max_broken_fraction: share of a rank's samples that may be unreadable before the run stops, rounded up to whole ones.
        multiprocessing_context: how workers start: ``fork``, ``spawn`` or ``forkserver``; None for Python's default.
        cache: where copies of remote shards lie and how much they may take; None for ``ShardCache()``: 50 GB in the folder for
            temporary files. Local shards are read where they are.

    Raises:
        ShardError: from the loaders: a missing index, too few samples, too many broken samples.
        RecipeError: no sources for what is asked, or a mixing that does not fit them.
    """

    def __init__(
        self,
        sources: Sequence[ShardSource] = (),
        *,
        mixing: Mixing | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        size: tuple[int, int] = (384, 384),
        transform: Transform | None = None,
        val_sources: Sequence[ShardSource] = (),
        test_sources: Sequence[ShardSource] = (),
        val_batch_size: int = 1,
        seed: int = 0,
        shuffle_window: int = 256,
        epoch_size: int | None = None,
        drop_last: bool = True,
        max_broken_fraction: float = 0.01,
        multiprocessing_context: str | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_batch_size", val_batch_size, 1),
            ("shuffle_window", shuffle_window, 1),
            ("epoch_size", 1 if epoch_size is None else epoch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise RecipeError(f"expected data.{name} of at least {least}; got {value}.")
        if not 0 <= max_broken_fraction <= 1:
            raise RecipeError(f"expected data.max_broken_fraction between 0 and 1; got {max_broken_fraction}.")
        ways = torch.multiprocessing.get_all_start_methods()
        if multiprocessing_context not in (None, *ways):
            raise RecipeError(
                f"expected data.multiprocessing_context among {', '.join(ways)}; got {multiprocessing_context!r}."
            )
        self.sources, self.val_sources, self.test_sources = tuple(sources), tuple(val_sources), tuple(test_sources)
        self.mixing = mixing or EqualParts()
        self.batch_size, self.val_batch_size, self.num_workers = batch_size, val_batch_size, num_workers
        self.size = _size(size)
        self.transform = transform
        self.seed, self.shuffle_window, self.epoch_size, self.drop_last = seed, shuffle_window, epoch_size, drop_last
        self.max_broken_fraction, self.multiprocessing_context = max_broken_fraction, multiprocessing_context
        self.cache = cache or ShardCache()

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """Names of the training sources, in the order of ``Batch.dataset``."""
        return unique_names(self.sources)

    @property
    def label_kinds(self) -> tuple[frozenset[LabelKind], ...]:
        """What the labels of each training source may be after its transforms."""
        after = [Compose([t for t in (source.transform, self._transform(source)) if t]) for source in self.sources]
        stored = [ShardIndex.load(source.root).kind(source.split) for source in self.sources]
        return tuple(transform.label_kinds(kind) for transform, kind in zip(after, stored, strict=True))

    @property
    def val_names(self) -> tuple[str, ...]:
        """Names of the validation sources, in the order of their loaders."""
        return unique_names(self.val_sources)

    @property
    def test_names(self) -> tuple[str, ...]:
        """Names of the test sources, in the order of their loaders."""
        return unique_names(self.test_sources)

    def setup(self, stage: str) -> None:
        """Begin the trainer's search for a batch size with the size that it tries first, which it sets too late.

        Raises:
            RecipeError: it searches for a size that is not that of the stage's batches.
        """
        name = "batch_size" if stage == "fit" else "val_batch_size"
        trainer: Any = self.trainer
        for search in getattr(trainer, "callbacks", ()):
            if isinstance(search, BatchSizeFinder) and search.optimal_batch_size and not trainer.fast_dev_run:
                if search._batch_arg_name != name:
                    raise RecipeError(
                        f"expected a search for {name}, of the batches read here; got one for {search._batch_arg_name}. "
                        f"Give it batch_arg_name={name!r}, or take it out of the trainer's callbacks."
                    )
                setattr(self, name, search.optimal_batch_size)

    def train_dataloader(self) -> Loader:
        """Return the training stream of this rank."""
        if not self.sources:
            raise RecipeError("no training data: data.sources is empty. Give at least one ShardSource (root, split).")
        rank, world = self._rank_and_world()
        datasets = tuple(self._training_dataset(source) for source in self.sources)
        check_samples([d.name for d in datasets], [d.counts for d in datasets])
        sizes = tuple(sum(d.counts) for d in datasets)
        rows = training_rows(
            sum(sizes),
            world=world,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            accumulate=self.trainer.accumulate_grad_batches if self.trainer else 1,
            epoch_size=self.epoch_size,
        )
        labelled = tuple(any(kind.ambiguity is not Ambiguity.UNLABELLED for kind in kinds) for kinds in self.label_kinds)
        mixture = Mixture(self.mixing, sizes, labelled)
        if len({d.size for d in datasets}) > 1 and not mixture.whole_batches:
            raise RecipeError(
                f"expected images of one size in a batch; {self.mixing} mixes sources of sizes "
                f"{', '.join(str(d.size) for d in datasets)}. Use OneDatasetPerBatch, or one data.size for all."
            )
        plan = Plan(
            rows,
            mixture,
            tuple(d.counts for d in datasets),
            workers=max(self.num_workers, 1),
            seed=self.seed,
            continuing=self.epoch_size is not None,
            window=self.shuffle_window,
        )
        overfit = bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]
        return self._loader(Stream(datasets, plan, rank, world), same_every_epoch=overfit)

    def val_dataloader(self) -> list[Loader]:
        """One loader per validation source."""
        return [self._evaluation_loader(source) for source in self.val_sources]

    def test_dataloader(self) -> list[Loader]:
        """One loader per test source."""
        if not self.test_sources:
            raise RecipeError("no test data: data.test_sources is empty. Give at least one ShardSource (root, split).")
        return [self._evaluation_loader(source) for source in self.test_sources]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make images float32 on the device that trains, where they came in 8 bits."""
        return to_float(batch) if isinstance(batch, Batch) and batch.image.dtype == torch.uint8 else batch

    def _training_dataset(self, source: ShardSource) -> Dataset:
        return self._dataset(source, self._transform(source), _size(source.size or self.size))

    def _dataset(self, source: ShardSource, transform: Transform | None = None, size: tuple[int, int] | None = None) -> Dataset:
        """Return the source as the stream reads it: its own transform first, then that of the datamodule."""
        index = ShardIndex.load(source.root)
        shards, remote = index.shards(source.split), is_remote(index.root)
        transforms = [t for t in (source.transform, transform) if t is not None]
        return Dataset(
            name=source.name or index.dataset,
            urls=tuple(index.url(shard) for shard in shards),
            counts=tuple(shard.samples for shard in shards),
            transform=Compose(transforms) if transforms else None,
            digest=" ".join(shard.sha256 for shard in shards),
            size=size,
            cache=self.cache if remote else None,
            shards=shards if remote else (),
        )

    def _transform(self, source: ShardSource) -> Transform:
        return self.transform or Compose([RandomResizedCrop(_size(source.size or self.size)), HorizontalFlip()])

    def _evaluation_loader(self, source: ShardSource) -> Loader:
        return self._every_sample_once(self._dataset(source))

    def _every_sample_once(self, dataset: Dataset) -> Loader:
        rank, world = self._rank_and_world()
        samples = sum(dataset.counts)
        plan = Plan(
            evaluation_rows(samples, world=world, batch_size=self.val_batch_size),
            Mixture(EqualParts(), (samples,), (True,)),
            (dataset.counts,),
            workers=max(self.num_workers, 1),
            seed=self.seed,
            shuffle=False,
            window=1,
        )
        return self._loader(Stream((dataset,), plan, rank, world, replace=False))

    def _loader(self, stream: Stream, **options: Any) -> Loader:
        return Loader(
            stream,
            num_workers=self.num_workers,
            multiprocessing_context=self._context,
            pin_memory=torch.cuda.is_available(),
            images_in_bytes=self.trainer is not None and self.trainer.strategy.root_device.type != "cpu",
            max_broken_fraction=self.max_broken_fraction,
            **options,
        )

    @property
    def _context(self) -> str | None:
        return self.multiprocessing_context if self.num_workers else None

    def _rank_and_world(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1


def _size(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[1])  # a recipe has lists


def unique_names(sources: Sequence[ShardSource]) -> tuple[str, ...]:
    """Return what logs and reports call these sources.

    Raises:
        RecipeError: two have one name, or a name does not fit into a path of names.
    """
    names = tuple(_name(source) for source in sources)
    wrong = sorted({name for name in names if names.count(name) > 1 or "/" in name})
    if wrong:
        raise RecipeError(
            f"expected a name of its own, without '/', for every source of a list; got {', '.join(wrong)}. "
            "Give each source `name:`."
        )
    return names


def _name(source: ShardSource) -> str:
    return source.name or ShardIndex.load(source.root).dataset
