"""``depthkit calibrate``: a scale, and a shift where one is open, from labels in metres; stored with the network."""

from pathlib import Path
from typing import Any

from rich.console import Console

from depthkit.checks import check_device, check_least
from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.errors import RecipeError
from depthkit.evaluation.calibration import calibrate as fit
from depthkit.models import DepthNet, calibrated, from_pretrained, save_network


def calibrate(
    model: str,
    data: str,
    *,
    out: Path = Path("calibrated.ckpt"),
    split: str = "train",
    images: int | None = None,
    range: tuple[float, float] | None = None,
    num_workers: int = 0,
    device: str = "cpu",
    allow: list[str] | None = None,
) -> None:
    """Find the scale (and shift) that brings a network's predictions to metres; write a network that predicts metres.

    One number holds for all images: for a camera, and scenes, like those of the data. What it cost shows `depthkit evaluate`.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        data: folder or URL of shards with labels in metres, be they sparse.
        out: checkpoint of the calibrated network.
        split: of the shards.
        images: how many to use, from the first on; all without it.
        range: nearest and farthest label that counts [m].
        num_workers: processes that read and decode.
        device: where the network runs, such as `cuda`.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.

    Raises:
        DepthKitError: the network cannot be stored again, the labels are not in metres, or nothing determines the scale.
    """
    check_least(1, images=images)
    check_least(0, num_workers=num_workers)
    network: Any = from_pretrained(model, allow=allow or ())
    if not isinstance(network, DepthNet) or network.config is None or not hasattr(network, "head"):
        raise RecipeError(
            f"expected a network that a checkpoint can hold, to calibrate it; {model} is a {type(network).__name__}."
        )
    place = check_device(device)
    limits = {} if range is None else {"label_range": range}
    samples = evaluation_samples(data, split, num_workers=num_workers)
    found = fit(network.to(place), samples, images=images, device=place, **limits)
    result: Any = calibrated(network.cpu(), scale=found.scale, shift=found.shift)
    save_network(result, out, ambiguity="metric")
    console = Console(soft_wrap=True, highlight=False)
    spread = "" if found.spread != found.spread else f", from which those of the images deviate by {found.spread:.1%}"
    shift = f" and shift {found.shift:.6g}" if found.shift else ""
    console.print(f"scale {found.scale:.6g}{shift} of {network.representation} on {found.images} images{spread}", markup=False)
    console.print(f"wrote {out}", markup=False)
