"""``depthkit evaluate``: score a network on shards under a named protocol."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from depthkit.checks import check_device, check_least
from depthkit.cli.options import OWN_RULES, Resizing, set_sampling, shown_name, with_members
from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.stream.loader import Loader
from depthkit.errors import RecipeError
from depthkit.evaluation import evaluate as score
from depthkit.evaluation import find_protocol
from depthkit.evaluation.page.scores import scores_page
from depthkit.inference.stored import StoredPredictions
from depthkit.models import Sampling, flip_averaged, from_pretrained


def evaluate(
    model: str,
    shards: list[str],
    protocol: str = "synthetic_affine",
    *,
    split: str = "test",
    out: Path | None = None,
    pictures: int = 8,
    num_workers: int = 0,
    device: str = "cpu",
    allow: list[str] | None = None,
    flip: bool | None = None,
    confidence: Literal["flip", "ensemble", "head"] | None = None,
    members: list[str] | None = None,
    flicker: bool = False,
    resize: Resizing = OWN_RULES,
    sampling: Sampling | None = None,
    predictions: Path | None = None,
    representation: Literal["depth", "disparity", "log_depth", "log_disparity"] | None = None,
    ambiguity: Literal["metric", "scale", "shift_scale"] | None = None,
    scale: float | None = None,
) -> None:
    """Score a network on shards under a published protocol; print the table, and write it with pictures.

    Samples that cannot be read are named, and the command then fails after it has written what it found.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        shards: folders or URLs of shards, each scored by itself.
        protocol: name of the protocol; a wrong one is answered with all there are.
        split: of the shards.
        out: folder for a JSON file per dataset, one page (.html) about all of them, and small maps (.maps.zip) of all images,
            from which `depthkit compare` draws; none are written without it.
        pictures: images per dataset to show on the page: the best, median and worst; 0 also leaves out the .maps.zip.
        num_workers: processes that read and decode.
        device: where the network runs, such as `cuda`.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.
        flip: also predict each mirrored image and average the two, as Monodepth2 (disparity) and ZoeDepth (depth) are scored;
            by default as the network's authors predict, of which ZoeDepth's average.
        confidence: also score how far to trust each pixel (AUSE, calibration): flip (compares with the mirror image; for any
            network), ensemble (of --members, or of the members of a diffusion model's sampling) or head (of a network trained
            with MetricModule's uncertainty_weight).
        members: further networks of an ensemble, such as `'[b.ckpt, c.ckpt]'`; the map is then their mean.
        flicker: also score how much successive frames contradict each other, after one fit per film: flow_error (change of ln
            depth along optical flow) and tae (through known poses). Frames are samples in order, with keys of one scene.
        resize: what to change of the protocol's sizes; its numbers are then not comparable with those published.
        predictions: folder with KEY.npy or KEY.png for each sample; they are scored, and `model` is what the table calls them.
        representation: of predictions that do not say it themselves.
        ambiguity: of predictions that do not say it themselves.
        scale: codes per unit of 16-bit PNG that do not say it themselves, such as 256.
        sampling: of a latent diffusion model, instead of its own: `--sampling.steps 10 --sampling.members 5`.
    """
    check_least(0, pictures=pictures, num_workers=num_workers)
    console = Console(soft_wrap=True, highlight=False)
    rules = resize.of_protocol(find_protocol(protocol))
    name_of, suffix = (f"{shown_name(model)} + flip", ".flip") if flip else (shown_name(model), "")
    if predictions is not None:
        if flip or sampling is not None or confidence is not None or members:
            raise RecipeError(
                "expected no --flip, --sampling, --confidence or --members with --predictions, which are scored as they are. "
                "Leave them out."
            )
        stated: dict[str, Any] = {"representation": representation, "ambiguity": ambiguity, "scale": scale}
        scored: Any = StoredPredictions(predictions, shown=rules.shown, **stated)
    else:
        network: Any = from_pretrained(model, allow=allow or ())
        if getattr(network, "fixed_size", None) is not None:
            rules = replace(rules, input=network.input_rule)
        if flip is None and getattr(network, "flip", False):
            name_of, suffix = f"{name_of} + flip", ".flip"
        if sampling is not None:
            set_sampling(network, sampling, model)
            name_of = f"{name_of}, {sampling.steps} steps, {sampling.members} members"
            suffix = f"{suffix}.{sampling.steps}x{sampling.members}"
        scored = flip_averaged(network, flip)
        if confidence is not None or members:
            scored = with_members(scored, confidence, members, allow)
            suffix = f"{suffix}.confidence-{confidence}"
        if members:
            name_of = f"{name_of} and {len(members)} more"
        scored = scored.to(check_device(device))
    names = [root.rstrip("/").rpartition("/")[2] for root in shards]
    unique = {
        root: name if names.count(name) == 1 else root.strip("/").replace("/", "-").replace(":", "")
        for root, name in zip(shards, names, strict=True)
    }
    reports = {}
    for root, name in unique.items():
        samples: Any = evaluation_samples(root, split, num_workers=num_workers)
        stem = f"{name}.{split}.{protocol}{suffix}"
        report = score(
            scored,
            samples if predictions is None else scored.of(samples),
            rules,
            ambiguity=scored.ambiguity,
            name=name_of,
            uncertainty=confidence is not None,
            flicker=flicker,
            pictures=pictures if out else 0,
            maps=out / f"{stem}.maps.zip" if out and pictures else None,
        )
        reports[name] = report
        console.print(f"{root} ({split})\n{report.table()}\n", markup=False)
        if out is not None:
            console.print(f"wrote {report.to_json(out / f'{stem}.json')}", markup=False)
    if out is not None:
        stem = next(iter(reports)) if len(reports) == 1 else "all"
        page = scores_page(out / f"{stem}.{split}.{protocol}{suffix}.html", reports)
        console.print(f"wrote {page}", markup=False)
    for report in reports.values():
        report.check_complete()


def evaluation_samples(root: Path | str, split: str = "test", *, num_workers: int = 0) -> Loader:
    """Read every sample of a split exactly once, in order, as batches of one in their own size; can be iterated repeatedly.

    Broken samples are skipped with a warning and named in the report; more than a few raise a ``ShardError``.
    """
    return DepthDataModule(test_sources=[ShardSource(str(root), split)], num_workers=num_workers).test_dataloader()[0]
