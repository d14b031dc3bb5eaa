"""``depthkit finetune``: from a network and your own depth to the better of the two."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console

from depthkit.callbacks import Adapters
from depthkit.callbacks.adapters import attention_layers
from depthkit.cli.finetuning.choices import Method, frozen, method_for, metric_of, protocol_of, recipe_for
from depthkit.cli.finetuning.division import Division, divided
from depthkit.cli.finetuning.sources import Chosen, Source, StoredSamples, opened
from depthkit.cli.finetuning.survey import Survey, survey
from depthkit.cli.options import shown_name
from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.cli.training.command import run
from depthkit.data import ShardSource
from depthkit.errors import RecipeError
from depthkit.evaluation import PairedReport, Report, compare_reports, evaluate, find_protocol
from depthkit.evaluation.calibration import Calibration, calibrate
from depthkit.models import DepthNet, LatentDiffusionDepth, calibrated, from_pretrained, save_network
from depthkit.representation import convert
from depthkit.resize import input_rule_of, multiple_of
from depthkit.shards import ShardIndex, write_shards
from depthkit.shards.files import replace_text
from depthkit.types import Ambiguity, Representation
from depthkit.writing import replacing

_FACTS, _RECIPE, _START, _MODEL, _REPORT = "data.json", "recipe.yaml", "start.ckpt", "model.ckpt", "report.txt"
_SPREAD = 0.2  # that is left of predictions which do not grow with the labels
_SHARDS = 8  # that a split is spread over


@dataclass(frozen=True)
class Finetuned:
    """What came of it.

    Attributes:
        model: file of the network that was kept.
        improved: whether it is the fine-tuned one; else the start.
        comparison: zero-shot and fine-tuned on the images that judge.
    """

    model: Path
    improved: bool
    comparison: PairedReport


def finetune(
    model: str,
    data: str,
    *,
    out: Path = Path("finetuned"),
    steps: int = 300,
    lr: float | None = None,
    freeze: bool | None = None,
    adapters: int = 0,
    seed: int = 0,
    devices: int = 1,
    hold_out: float = 0.2,
    allow: list[str] | None = None,
) -> Finetuned:
    """Fine-tune a network on your own depth; score it before and after on images that it has not seen; keep the better one.

    Repeated after an interruption, the same command goes on.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        data: folder of rgb/ and depth/ (or disparity/), a folder of such folders, or shards.
        out: folder for the network, both reports, what the data is like, the recipe and the run.
        steps: of the optimizer, at most; it stops early where images that are held out no longer gain.
        lr: learning rate of decoder and head; the encoder's is a tenth. By default as suits the kind of encoder.
        freeze: leave the encoder as it is; by default with fewer than 200 training images.
        adapters: rank of low-rank adapters that are trained beside a transformer's attention while its own weights stay, such
            as 8; they are merged into what is written. 0 trains none.
        seed: of all that is drawn.
        devices: how many to train on.
        hold_out: share of the images that judges, whole scenes where there are several; a part of the rest stops the training.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.

    Raises:
        DepthKitError: the network cannot be trained so, the data is not as expected, or `out` holds another run.
    """
    console = Console(soft_wrap=True, highlight=False)
    if steps < 1 or devices < 1 or (lr is not None and lr <= 0):
        raise RecipeError(f"expected steps, devices and lr above 0; got {steps}, {devices} and {lr}.")
    _check_place(out)
    network = _trainable(model, allow)
    if adapters:
        Adapters(adapters)
        attention_layers(network)
    samples = opened(data)
    found = survey(samples, data)
    parts = _parts(samples, found, hold_out)
    stays = frozen(len(parts.train), adapters, freeze)
    settings = {
        "model": model,
        "data": data,
        "steps": steps,
        "lr": lr,
        "freeze": freeze,
        "adapters": adapters,
        "seed": seed,
        "hold_out": hold_out,
    }
    counts = {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test), "neither": parts.left_out}
    _begin(out, {"settings": settings, "data": found.facts(), "division": {"by": parts.by, **counts}})
    for line in (*found.lines(), f"divided by {parts.by}: " + ", ".join(f"{n} {name}" for name, n in counts.items())):
        console.print(line, markup=False)

    places = _write(samples, found, parts, out)
    method = method_for(found.kind, network.representation, network.ambiguity)
    size = input_rule_of(network).size(*found.size, multiple_of(network))
    network = _start(network, method, places["train"], size, out / _START)
    recipe = recipe_for(
        network, method, start=out / _START, places=places, images=len(parts.train), size=size, steps=steps, lr=lr,
        freeze=stays, adapters=adapters, seed=seed, devices=devices, allow=allow or [], out=out,
    )  # fmt: skip
    replace_text(out / _RECIPE, OmegaConf.to_yaml(OmegaConf.create(recipe)))
    chosen = recipe["model"]["init_args"]
    encoder = (
        f"adapters of the encoder {chosen['encoder_lr']:g}" if adapters else f"encoder {0 if stays else chosen['encoder_lr']:g}"
    )
    rates = f"decoder and head {chosen['optimizer']['init_args']['lr']:g}, {encoder}"
    console.print(f"{method.paradigm} at {size[0]}x{size[1]}, at most {steps} steps; learning rates: {rates}", markup=False)

    if not (out / _REPORT).exists():  # or it would go on behind its early stop
        _train(out, devices)
    protocol = find_protocol(protocol_of(method, size))
    reports = {}
    for name, file in (("zero-shot", out / _START), ("fine-tuned", out / "run" / "best.ckpt")):
        test = evaluation_samples(places["test"].root, places["test"].split)
        reports[name] = evaluate(
            from_pretrained(file, allow=allow or ()), test, protocol, name=name, ambiguity=method.ambiguity
        )
        reports[name].to_json(out / f"{name}.json")
    result = _verdict(reports, metric_of(method), network, method, size, out, allow)
    console.print(f"\n{result.comparison.table()}\n", markup=False)
    console.print(
        f"{shown_name(model)} is better for it: wrote the fine-tuned network to {result.model}"
        if result.improved
        else f"no gain on the images held out: wrote the start, {shown_name(model)} as it was, to {result.model}",
        markup=False,
    )
    return result


def _trainable(model: str, allow: list[str] | None) -> Any:
    """Return the network of MODEL.

    Raises:
        RecipeError: it is none that this command can train and store.
    """
    network: Any = from_pretrained(model, allow=allow or ())
    if isinstance(network, LatentDiffusionDepth):
        raise RecipeError(
            f"expected a network of encoder and decoder; {model} is a latent diffusion model, which learns to denoise. "
            "Train it by the recipe diffusion/end_to_end: `depthkit recipes end_to_end`."
        )
    if not isinstance(network, DepthNet) or network.config is None:
        raise RecipeError(
            f"expected a network that can be trained and stored again; {model} is a {type(network).__name__}. Give a "
            "checkpoint, or one of the names that `depthkit models` lists."
        )
    return network


def _parts(samples: Source, found: Survey, share: float) -> Division:
    """Divide the samples as their shards do, as far as these have splits for it, else by scene or blocks."""
    splits = [samples.split_of[position] for position in found.positions] if isinstance(samples, StoredSamples) else []
    of = {name: tuple(n for n, split in enumerate(splits) if split == name) for name in dict.fromkeys(splits)}
    if of.keys() >= {"train", "val", "test"}:
        left_out = len(splits) - sum(len(of[name]) for name in ("train", "val", "test"))
        return Division(of["train"], of["val"], of["test"], "splits", left_out)
    judging = of.get("test", of.get("val", ())) if len(of) > 1 else ()
    return divided(found.keys, found.signatures, share, judging=judging)


def _check_place(out: Path) -> None:
    """Refuse, before anything is read, a folder that cannot be one of this command.

    Raises:
        RecipeError: it cannot.
    """
    if files := [place for place in (out, *out.parents) if place.is_file()]:
        raise RecipeError(f"expected a folder for --out; {files[0]} is a file. Choose another.")
    if not (out / _FACTS).is_file() and out.is_dir() and any(out.iterdir()):
        raise RecipeError(f"expected an empty folder, or none, for --out; {out} holds other files. Choose another.")


def _begin(out: Path, facts: dict[str, Any]) -> None:
    """Keep what was found beside the result.

    Raises:
        RecipeError: the folder holds another run.
    """
    file = out / _FACTS
    text = json.dumps(facts, indent=1) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise RecipeError(
            f"expected --out {out} to hold this run, to go on with it; it holds one of other settings or data (see "
            f"{file.name}). Choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    replace_text(file, text)


def _write(samples: Source, found: Survey, parts: Division, out: Path) -> dict[str, ShardSource]:
    """Store each part as shards, unless it lies there as such."""
    if parts.by == "splits":
        return {name: ShardSource(str(samples.root), name) for name in ("train", "val", "test")}
    root = out / "shards"
    for name in ("train", "val", "test"):
        chosen = Chosen(samples, [found.positions[n] for n in getattr(parts, name)])
        write_shards(
            chosen, root, split=name, dataset="own", samples_per_shard=max(1, -(-len(chosen) // _SHARDS)), image_format="png",
            originals=None if isinstance(samples, StoredSamples) else samples.root, resume=True, progress=True,
        )  # fmt: skip
    return {name: ShardSource(str(root), name) for name in ("train", "val", "test")}


def _start(network: Any, method: Method, train: ShardSource, size: tuple[int, int], file: Path) -> Any:
    """Bring a network to metres if the labels have them and it does not, and store where training starts."""
    if method.ambiguity == Ambiguity.METRIC != network.ambiguity:
        logarithm = network.representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)
        if logarithm:  # has no shift to fit
            network.ambiguity = Ambiguity.SCALE
        labels = evaluation_samples(train.root, train.split)
        try:
            found = calibrate(network, labels)
        except RecipeError:  # its predictions do not grow with the labels, as those of an untrained decoder
            network.ambiguity = Ambiguity.SCALE
            found = calibrate(network, labels)
            found = found if logarithm else _flattened(found, network.representation, train)
        network = calibrated(network, scale=found.scale, shift=found.shift)
    save_network(network, file, ambiguity=method.ambiguity, size=size)
    return network


def _flattened(found: Calibration, representation: Representation, train: ShardSource) -> Calibration:
    """Bring predictions that say nothing near to a constant, the labels' median: a fair start, with a gradient."""
    index = ShardIndex.load(train.root)
    median, kind = (index.splits[train.split].range or (1.0,) * 3)[1], index.kind(train.split)
    middle = float(convert(torch.tensor([median]), kind.representation, representation))
    return found._replace(scale=_SPREAD * found.scale, shift=(1 - _SPREAD) * middle)


def _train(out: Path, devices: int) -> None:
    """Run the recipe as ``depthkit fit`` does; on several devices by that command, whose processes start it again."""
    arguments = ["fit", f"--config={out / _RECIPE}", "--ckpt_path=auto"]
    if devices == 1:
        run(arguments)
        return
    done = subprocess.run([sys.executable, "-m", "depthkit.cli.main", *arguments], env=os.environ, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _verdict(
    reports: dict[str, Report], metric: str, network: Any, method: Method, size: tuple[int, int], out: Path, allow: Any
) -> Finetuned:
    """Keep the better network, and the comparison."""
    zero, tuned = reports.values()
    zero.check_complete()
    comparison = compare_reports(out / "zero-shot.json", out / "fine-tuned.json")
    improved = comparison.metrics[metric].difference < 0
    if improved:
        best: Any = from_pretrained(out / "run" / "best.ckpt", allow=allow or ())
        save_network(best, out / _MODEL, ambiguity=method.ambiguity, size=size)
    else:
        with replacing(out / _MODEL) as part:
            shutil.copyfile(out / _START, part)
    replace(tuned, beside={"zero-shot": zero.summary}).to_html(out / "report.html")
    replace_text(out / _REPORT, f"{comparison.table()}\n")
    return Finetuned(out / _MODEL, improved, comparison)
