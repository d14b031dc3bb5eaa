"""``depthkit app``: a page in the browser for one network, or two side by side."""

import sys
from functools import partial
from typing import Any, Literal

from depthkit.app.server import HOST, build, check_port, launch
from depthkit.checks import optional_import
from depthkit.cli.options import shown_name
from depthkit.errors import RecipeError
from depthkit.inference import DepthPredictor


def app(
    models: list[str],
    *,
    port: int = 7860,
    device: str = "cpu",
    precision: Literal["32", "bf16", "16"] = "32",
    flip: bool | None = None,
    allow: list[str] | None = None,
) -> None:
    """Serve a page on this machine: drop an image or a film, see depth with its colour bar, point at it, turn its points.

    Nothing leaves the machine; no other machine reaches the page. Ctrl-C ends it.

    Args:
        models: a checkpoint, a folder, or a name that `depthkit models` lists; two are shown side by side.
        port: of this machine.
        device: where the networks run, such as `cuda`.
        precision: of the networks; maps are float32 in any case.
        flip: also predict each mirrored image and average the two; by default as the network's authors do.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.

    Raises:
        DepthKitError: there is no such network, gradio is not installed, or the port is in use.
    """
    if len(models) > 2:
        raise RecipeError(f"expected one MODEL, or two to compare; got {len(models)}.")
    optional_import("gradio", "app")
    check_port(port)
    options: dict[str, Any] = {"device": device, "precision": precision, "flip": flip, "allow": allow or ()}
    predictors = [DepthPredictor.from_pretrained(model, **options) for model in models]
    names = [shown_name(model) for model in models]
    if len(set(names)) < len(names):
        names = [f"{name} ({place})" for name, place in zip(names, ("first", "second"), strict=True)]
    networks = {name: partial(predictor, progress=False) for name, predictor in zip(names, predictors, strict=True)}
    page = build(networks, [predictor.ambiguity for predictor in predictors])  # type: ignore[arg-type]
    sys.stdout.write(f"http://{HOST}:{port} shows {' and '.join(names)}; Ctrl-C ends it.\n")
    sys.stdout.flush()
    launch(page, port)
