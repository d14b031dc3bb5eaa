"""The page in gradio: bound to this machine, without analytics, fonts or scripts from elsewhere."""

import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.app.views import Look, downloads, plain, view, write_shown_cloud
from depthkit.checks import optional_import
from depthkit.convert.records.chain import FILMS
from depthkit.convert.video import Video
from depthkit.errors import DepthKitError, RecipeError
from depthkit.evaluation.page.html import filled
from depthkit.images import read_image
from depthkit.inference.prediction import Prediction
from depthkit.types import Ambiguity

HOST = "127.0.0.1"
Predict = Callable[[np.ndarray], Prediction]
"""From RGB, uint8 ``(H, W, 3)``, to a prediction."""
BUTTONS = ("16-bit PNG", "picture", "EXR", "PLY", "GLB")
_STYLE = """
.dk-picture { position: relative; line-height: 0; }
.dk-picture img.dk-shown { width: 100%; border-radius: 4px; cursor: crosshair; }
.dk-cross { position: absolute; width: 11px; height: 11px; margin: -6px; border: 2px solid #fff; border-radius: 50%;
  box-shadow: 0 0 2px #000; pointer-events: none; visibility: hidden; }
.dk-value { font-variant-numeric: tabular-nums; font-size: 15px; min-height: 1.5em; }
.dk-title { font-weight: 600; }
"""
_POINTER = """
if (!window.depthkitPointer) {
  window.depthkitPointer = true;
  const codes = new WeakMap();
  const pixels = (image) => {
    if (!codes.has(image)) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      codes.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    return codes.get(image);
  };
  document.addEventListener("pointermove", (event) => {
    const over = event.target.closest?.(".dk-picture");
    if (!over) return;
    const box = over.getBoundingClientRect();
    const [u, v] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    for (const view of document.querySelectorAll(".dk-view")) {
      const cross = view.querySelector(".dk-cross");
      cross.style.cssText = `left:${100 * u}%;top:${100 * v}%;visibility:visible`;
      const image = view.querySelector(".dk-codes"), text = view.querySelector(".dk-value");
      if (!image || !text || !image.naturalWidth) continue;
      const { data, width, height } = pixels(image);
      const [x, y] = [Math.floor(u * width), Math.floor(v * height)];
      const at = 4 * (Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1));
      const code = 256 * data[at] + data[at + 1];
      const value = Number(view.dataset.low) + Number(view.dataset.step) * code;
      text.textContent = code === 65535 ? "no value" : `${value.toPrecision(4)} ${view.dataset.unit}`;
    }
  });
}
"""


def check_port(port: int) -> None:
    """Check that a port of this machine is free.

    Raises:
        RecipeError: it is not, or it is no port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise RecipeError(
                f"expected a free port of this machine; {port} cannot be had ({error}). Choose another: --port {port + 1}."
                if 0 < port < 65535
                else f"expected a port between 1 and 65535; got {port}."
            ) from error


def read_source(file: str | Path, frame: int = 0) -> tuple[np.ndarray, int]:
    """Read an image, or a frame of a film.

    Args:
        file: of either.
        frame: of a film, from 0.

    Returns:
        RGB, uint8 ``(H, W, 3)``, and the number of frames, 1 of an image.

    Raises:
        DepthKitError: it is neither.
    """
    if Path(file).suffix.lower() in FILMS:
        film = Video(file)
        return np.asarray(film[min(frame, len(film) - 1)]), len(film)
    return read_image(file, photo=True), 1


def build(networks: Mapping[str, Predict], ambiguities: Sequence[Ambiguity]) -> Any:
    """Build the page.

    Args:
        networks: what predicts, by the name that the page shows; one or two.
        ambiguities: of their predictions.

    Returns:
        The ``gradio.Blocks``, to be launched.

    Raises:
        MissingPackageError: gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    gr = optional_import("gradio", "app")
    shift_open = Ambiguity.SHIFT_SCALE in ambiguities

    def stated(work: Callable[[], Any], folder: Path | None = None) -> Any:
        try:
            return work()
        except DepthKitError as error:
            text = str(error).replace(f"{folder}{os.sep}", "")  # where gradio keeps what was dropped says nothing
            raise gr.Error(text, print_exception=False, duration=None) from error

    def predicted(file: str | None, frame: float) -> list[Any]:
        if file is None:
            return [gr.update(visible=False), "", *[None for _ in networks]]
        image, frames = stated(lambda: read_source(file, int(frame)), Path(file).parent)
        found = stated(lambda: [predict(image) for predict in networks.values()])
        named = [replace(prediction, image=image, name=Path(file).name) for prediction in found]
        return [gr.update(visible=frames > 1, maximum=max(frames - 1, 1)), plain(image), *named]

    def drawn(*values: Any) -> list[Any]:
        predictions, chosen = values[: len(networks)], values[len(networks) :]
        shown: list[Any] = []
        for name, prediction in zip(networks, predictions, strict=True):
            if prediction is None:
                shown += ["", None, *[gr.update(value=None, interactive=False) for _ in BUTTONS]]
                continue
            look = stated(lambda: Look(*map(float, chosen)))
            folder = Path(tempfile.mkdtemp(prefix="depthkit-app-"))
            files = stated(partial(downloads, prediction, look, folder))
            glb = stated(partial(write_shown_cloud, prediction, look, folder))
            shown += [view(prediction, look, name), None if glb is None else str(glb)]
            shown += [gr.update(value=str(files[x]) if x in files else None, interactive=x in files) for x in BUTTONS]
        return shown

    with gr.Blocks(title="depthkit", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                source = gr.File(label="Drop an image or a film", file_types=["image", "video"], elem_id="source")
                frame = gr.Slider(0, 1, 0, step=1, label="frame", visible=False)
                image = gr.HTML(elem_id="image", js_on_load=_POINTER)
                low = gr.Slider(0, 100, Look.low, step=1, label="colours from [%]", elem_id="low")
                high = gr.Slider(0, 100, Look.high, step=1, label="to [%]")
                scale = gr.Slider(0.1, 10, Look.scale, step=0.01, label="factor on depth", elem_id="scale")
                ratio = gr.Slider(1.5, 100, Look.ratio, step=0.5, label="farthest : nearest of points", visible=shift_open)
                angle = gr.Slider(20, 120, Look.field_of_view, step=1, label="field of view [degrees]")
                edge = gr.Slider(1, 1.5, Look.max_edge, step=0.01, label="drop steps above (1: none)")
            looks = [low, high, scale, ratio, angle, edge]
            states, shown = [], []
            for number, name in enumerate(networks):
                with gr.Column(scale=2, min_width=360):
                    gr.HTML(filled("title.html", title=name))
                    states.append(gr.State(None))
                    shown.append(gr.HTML(elem_id=f"map{number}"))
                    shown.append(
                        gr.Model3D(
                            label="points",
                            height=420,
                            camera_position=(100, 75, None),
                            elem_id=f"cloud{number}",
                            interactive=False,
                        )
                    )
                    with gr.Row():
                        shown += [gr.DownloadButton(x, size="sm", min_width=60, interactive=False) for x in BUTTONS]
        made = [frame, image, *states]
        for event in (source.change, frame.release):
            event(predicted, [source, frame], made, show_progress="full").then(drawn, [*states, *looks], shown)
        for control in looks:
            control.release(drawn, [*states, *looks], shown, show_progress="hidden")
    return page


def launch(page: Any, port: int, *, wait: bool = True) -> str:
    """Serve the page on this machine alone; return its address, at once if it shall not wait.

    Raises:
        RecipeError: the port is in use.
    """
    check_port(port)
    gr = optional_import("gradio", "app")
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    _, address, _ = page.launch(
        server_name=HOST, server_port=port, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
        theme=gr.themes.Default(**fonts), css=_STYLE + filled("bar.css"), footer_links=[], enable_monitoring=False,
    )  # fmt: skip
    if wait:
        page.block_thread()
    return str(address)
