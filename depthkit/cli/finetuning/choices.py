"""What is chosen for a network and its labels: paradigm, protocol, rates, augmentation; as a recipe of ``depthkit fit``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthkit.data import ShardSource
from depthkit.errors import RecipeError
from depthkit.models import ViTEncoder
from depthkit.types import Ambiguity, LabelKind, Representation

HELD_OUT = "held_out"
"""What logs call the images that stop the training."""
FEW = 200
"""Training images below which the encoder stays as it is."""
_CHECKS = 12  # validations in a run
_PATIENCE = 4  # of them without a gain, after which it stops
_SMALL = 48  # training images below which no processes of their own read them
_BATCH = 8
_COLOURS: dict[str, dict[str, float]] = {
    "RandomBrightnessContrast": {"brightness": 0.15, "contrast": 0.15},
    "HueSaturationValue": {"hue_shift": 5, "sat_shift": 15, "val_shift": 10},
}
_POSITIVE = (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)


@dataclass(frozen=True)
class Method:
    """What labels of a kind teach a network.

    Attributes:
        paradigm: class of ``depthkit.paradigms``.
        options: of it.
        ambiguity: of the network's predictions from then on.
        protocol: that scores them, without the size of the input.
    """

    paradigm: str
    options: dict[str, Any]
    ambiguity: Ambiguity
    protocol: str


def method_for(kind: LabelKind, representation: Representation, ambiguity: Ambiguity) -> Method:
    """Choose by what labels say and what a network predicts.

    Args:
        kind: of the labels.
        representation: that the network predicts.
        ambiguity: of its predictions.
    """
    affine = {"geometric_weight": 0.0}
    if kind.ambiguity == Ambiguity.METRIC:
        return Method("MetricModule", {}, Ambiguity.METRIC, "small_metric")
    shape = Ambiguity.SHIFT_SCALE
    if kind.ambiguity == Ambiguity.SCALE and (representation in _POSITIVE or ambiguity != shape):
        return Method("GeometryPreservingModule", {}, Ambiguity.SCALE, "small_scale")
    protocol = "small_affine" if kind.ambiguity == Ambiguity.SCALE else "held_out_affine_384"
    if representation == Representation.DISPARITY:
        return Method("AffineInvariantModule", {"freeze_batch_norm": True}, shape, protocol)
    return Method("GeometryPreservingModule", affine, shape, protocol)


def rates_for(network: Any, lr: float | None) -> tuple[float, float]:
    """Choose the learning rates of the decoder and of the encoder: a tenth, and low ones for transformers."""
    rate = lr or (5e-5 if isinstance(network.encoder, ViTEncoder) else 5e-4)
    return rate, rate / 10


def frozen(images: int, adapters: int, freeze: bool | None) -> bool:
    """Tell whether the encoder's weights stay: as ``freeze`` says, else with few images or with adapters of a rank above 0.

    Raises:
        RecipeError: the encoder shall be trained, and have adapters instead.
    """
    if adapters < 0 or (adapters and freeze is False):
        raise RecipeError(
            f"expected adapters of rank 0 or more, beside which the encoder stays as it is; got {adapters}, freeze {freeze}. "
            "Leave one out."
        )
    return bool(adapters) or (images < FEW if freeze is None else freeze)


def recipe_for(
    network: Any,
    method: Method,
    *,
    start: Path,
    places: dict[str, ShardSource],
    images: int,
    size: tuple[int, int],
    steps: int,
    lr: float | None,
    freeze: bool,
    adapters: int,
    seed: int,
    devices: int,
    allow: list[str],
    out: Path,
) -> dict[str, Any]:
    """Write down everything that shapes a run, so that ``depthkit fit --config`` does the same again.

    Args:
        network: where training starts.
        method: as ``method_for`` chose.
        start: checkpoint of the network.
        places: shards of ``train`` and ``val``.
        images: to train on.
        size: (height, width) of training images [px].
        steps: of the optimizer.
        lr: of decoder and head; None chooses.
        freeze: whether the encoder stays as it is.
        adapters: rank of what is trained beside its attention; 0 for none.
        seed: of all that is drawn.
        devices: to train on.
        allow: further names that may be imported to build the network.
        out: folder of the run.
    """
    rate, encoder_rate = rates_for(network, lr)
    encoder_rate = 2 * rate if adapters else encoder_rate
    kept: list[dict[str, Any]] = [
        {"class_path": "depthkit.callbacks.Frozen", "init_args": {"encoder": freeze and not adapters}}
    ]
    if adapters:
        kept.append({"class_path": "depthkit.callbacks.Adapters", "init_args": {"rank": adapters}})
    every, batch = max(1, steps // _CHECKS), min(_BATCH, max(1, images // devices))
    monitor = {"monitor": f"val/{HELD_OUT}/{metric_of(method)}", "mode": "min"}
    zoom = 0.85 if method.ambiguity == Ambiguity.METRIC else 0.6  # a crop looks nearer, and its label in metres does not
    colours = [
        {"class_path": f"albumentations.{name}", "init_args": {f"{what}_limit": [-most, most] for what, most in limits.items()}}
        for name, limits in _COLOURS.items()
    ]
    transforms = [
        {"class_path": "depthkit.data.transforms.RandomResizedCrop", "init_args": {"size": [*size], "scale": [zoom, 1.0]}},
        {"class_path": "depthkit.data.transforms.HorizontalFlip"},
        {"class_path": "depthkit.data.transforms.Photometric", "init_args": {"transforms": colours, "p": 0.5}},
    ]
    return {
        "seed_everything": seed,
        "model": {
            "class_path": f"depthkit.paradigms.{method.paradigm}",
            "init_args": {
                "model": {"class_path": "depthkit.models.from_pretrained", "init_args": {"model": str(start), "allow": allow}},
                **method.options,
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": rate, "weight_decay": 0.01}},
                "encoder_lr": encoder_rate,
                "schedule": {"class_path": "depthkit.paradigms.CosineDecay", "init_args": {"warmup": min(20, steps // 5)}},
                "protocols": protocol_of(method, size),
            },
        },
        "data": {
            "class_path": "depthkit.data.DepthDataModule",
            "init_args": {
                "sources": [_source(places["train"])],
                "val_sources": [_source(places["val"]) | {"name": HELD_OUT}],
                "size": [*size],
                "transform": {"class_path": "depthkit.data.transforms.Compose", "init_args": {"transforms": transforms}},
                "batch_size": batch,
                "num_workers": 0 if images < _SMALL else 2,
                "seed": seed,
            },
        },
        "trainer": {
            "devices": devices,
            "default_root_dir": str(out),
            "max_epochs": -1,
            "max_steps": steps,
            "val_check_interval": every,
            "check_val_every_n_epoch": None,
            "gradient_clip_val": 1.0,
            "callbacks": [
                *kept,
                {"class_path": "EarlyStopping", "init_args": {**monitor, "patience": _PATIENCE}},
                {
                    "class_path": "ModelCheckpoint",
                    "init_args": {
                        **monitor,
                        "dirpath": str(out / "run"),
                        "filename": "best",
                        "save_last": True,
                        "enable_version_counter": False,
                    },
                },
            ],
        },
    }


def protocol_of(method: Method, size: tuple[int, int]) -> str:
    """Name the protocol at the size at which the network sees images."""
    return f"{method.protocol}@{size[0]}x{size[1]}"


def metric_of(method: Method) -> str:
    """Name the number by which networks are compared; less is better."""
    return "rmse" if method.protocol.startswith("held_out_affine") else "abs_rel"


def _source(source: ShardSource) -> dict[str, Any]:
    return {"root": source.root, "split": source.split}
