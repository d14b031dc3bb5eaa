"""What the tests of every paradigm share: a tiny network without batch statistics, batches from memory, and runs on ranks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation

METRIC_DEPTH = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
FILM = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)


class TinyNet(nn.Module):
    """The smallest thing with the parts of a depth network."""

    size_multiple = 1
    config = None

    def __init__(self, representation: Representation = Representation.DISPARITY, norm: bool = False) -> None:
        super().__init__()
        self.representation = representation
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.GELU())
        self.decoder = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GELU())
        self.head = nn.Conv2d(6, 1, 1)

    @property
    def last_layer(self) -> nn.Module:
        return self.decoder[0]

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.softplus(self.head(self.decoder(self.encoder(image))))


def batch(
    rows: Sequence[tuple[int, LabelKind]], *, size: tuple[int, int] = (16, 24), seed: int = 0, unlabelled: Sequence[int] = ()
) -> Batch:
    """Random images, one per (dataset, label kind), disparity readable from their colours; some without a valid pixel."""
    generator = torch.Generator().manual_seed(seed)
    count = len(rows)
    coarse = torch.rand(count, 3, 4, 6, generator=generator)
    image = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    disparity = (0.1 + image.mean(1, keepdim=True) * 0.5 + image[:, :1] * 0.3).clone()
    target = disparity.clone()
    for i, (_, kind) in enumerate(rows):
        target[i] = 3 * disparity[i] - 1 if kind.ambiguity == Ambiguity.SHIFT_SCALE else 1 / disparity[i]
    valid = torch.rand(count, 1, *size, generator=generator) > 0.2
    for i in unlabelled:
        valid[i] = False
    return Batch(
        image=image,
        target=target.where(valid, torch.nan),
        valid=valid,
        sky=torch.zeros_like(valid),
        ambiguity=torch.tensor([AMBIGUITIES.index(kind.ambiguity) for _, kind in rows]),
        representation=torch.tensor([REPRESENTATIONS.index(kind.representation) for _, kind in rows]),
        dataset=torch.tensor([dataset for dataset, _ in rows]),
        intrinsics=torch.full((count, 3, 3), torch.nan),
        real=torch.ones(count, dtype=torch.bool),
        keys=tuple(f"{seed}-{i}" for i in range(count)),
        pairs=torch.zeros(count, 0, 5, dtype=torch.int64),
    )


class Memory(LightningDataModule):
    """Batches from memory; on several ranks each batch is split into consecutive runs of rows of the given lengths."""

    val_names = test_names = ("memory",)

    def __init__(self, batches: Sequence[Batch], kinds: Sequence[LabelKind], split: Sequence[int] | None = None) -> None:
        super().__init__()
        self.batches, self.split = list(batches), split
        self.label_kinds = tuple(frozenset({kind}) for kind in kinds)
        self.dataset_names = tuple(f"set{i}" for i in range(len(kinds)))
        self.size = tuple(batches[0].image.shape[-2:])

    def train_dataloader(self) -> DataLoader:
        rank = self.trainer.global_rank if self.trainer else 0
        if self.split is None or self.trainer.world_size == 1:
            return _loader(self.batches)
        first = sum(self.split[:rank])
        mine = torch.arange(sum(self.split)).sub(first)
        return _loader([b.rows((mine >= 0) & (mine < self.split[rank])) for b in self.batches])

    def val_dataloader(self) -> DataLoader:
        return _loader(self.batches)


def _loader(batches: list[Batch]) -> DataLoader:
    return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]


def _as_it_is(batch: Batch) -> Batch:
    return batch


def trainer(root: Path, *, ranks: int = 1, **options: Any) -> Trainer:
    """A quiet CPU trainer; more than one rank inside ``on_ranks`` only."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
    strategy = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {"devices": 1}
    defaults: dict[str, Any] = {"num_sanity_val_steps": 0, "limit_val_batches": 0, "max_steps": 1}
    return Trainer(default_root_dir=root, accelerator="cpu", **{**quiet, **strategy, **defaults, **options})


def weights_after(module: Any, data: Memory, root: Path, **options: Any) -> dict[str, Tensor]:
    """Trainable weights after a short training."""
    trainer(root, **options).fit(module, datamodule=data)
    return {name: p.detach().clone() for name, p in module.model.named_parameters()}


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """Plain descent, so that one step's change is the gradient."""
    return torch.optim.SGD(parameters, lr=1.0)
