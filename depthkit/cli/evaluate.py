"""``depthkit evaluate``: score a checkpoint on shards under a named protocol."""

from pathlib import Path

from rich.console import Console

from depthkit.checks import check_device
from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.stream.loader import Loader
from depthkit.errors import RecipeError
from depthkit.evaluation import evaluate as score
from depthkit.evaluation import find_protocol
from depthkit.inference import read_checkpoint
from depthkit.models import FlipAverage, LatentDiffusionDepth, Sampling


def evaluate(
    checkpoint: Path,
    shards: list[str],
    protocol: str = "synthetic_affine",
    *,
    split: str = "test",
    out: Path | None = None,
    pictures: int = 8,
    num_workers: int = 0,
    device: str = "cpu",
    allow: list[str] | None = None,
    flip: bool = False,
    sampling: Sampling | None = None,
) -> None:
    """Score a checkpoint on shards under a published protocol; print the table, and write it with pictures.

    Samples that cannot be read are named, and the command then fails after it has written what it found.

    Args:
        checkpoint: written by `depthkit fit`, or a folder of diffusers.
        shards: folders or URLs of shards, each scored by itself.
        protocol: name of the protocol; the message on an unknown name lists all.
        split: of the shards.
        out: folder for one JSON and one HTML file per dataset; without it no files are written.
        pictures: images to show in the HTML file, spread evenly over the dataset.
        num_workers: processes that read and decode.
        device: of the network, such as `cuda`.
        allow: beginnings of further Python names that may be imported to build the checkpoint's network.
        flip: also predict each mirrored image and average, as Monodepth2 (disparity) and ZoeDepth (depth) do for their scores.
        sampling: settings of a latent diffusion model instead of its own: `--sampling.steps 10 --sampling.members 5`.
    """
    console = Console(soft_wrap=True, highlight=False)
    rules = find_protocol(protocol)
    network = read_checkpoint(checkpoint, allow=allow or ())
    name_of, suffix = (f"{checkpoint.stem} + flip", ".flip") if flip else (checkpoint.stem, "")
    if sampling is not None:
        if not isinstance(network.model, LatentDiffusionDepth):
            holds = type(network.model).__name__
            raise RecipeError(f"expected a latent diffusion model for --sampling; {checkpoint} holds a {holds}. Leave it out.")
        network.model.sampling = sampling
        name_of = f"{name_of}, {sampling.steps} steps, {sampling.members} members"
        suffix = f"{suffix}.{sampling.steps}x{sampling.members}"
    model = (FlipAverage(network.model) if flip else network.model).to(check_device(device))
    names = [root.rstrip("/").rpartition("/")[2] for root in shards]
    reports = []
    for root, name in zip(shards, names, strict=True):
        report = score(
            model,
            evaluation_samples(root, split, num_workers=num_workers),
            rules,
            ambiguity=network.ambiguity,
            name=name_of,
            pictures=pictures if out else 0,
        )
        reports.append(report)
        console.print(f"{root} ({split})\n{report.table()}\n", markup=False)
        if out is not None:
            unique = name if names.count(name) == 1 else root.strip("/").replace("/", "-").replace(":", "")
            stem = f"{unique}.{split}.{protocol}{suffix}"
            for file in (report.to_json(out / f"{stem}.json"), report.to_html(out / f"{stem}.html")):
                console.print(f"wrote {file}", markup=False)
    for report in reports:
        report.check_complete()


def evaluation_samples(root: Path | str, split: str = "test", *, num_workers: int = 0) -> Loader:
    """Read every sample of a split exactly once, in order, as batches of one in their own size; can be iterated repeatedly.

    Broken samples are skipped with a warning and named in the report; more than a few raise a ``ShardError``.
    """
    return DepthDataModule(test_sources=[ShardSource(str(root), split)], num_workers=num_workers).test_dataloader()[0]
