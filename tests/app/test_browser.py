"""The page in a real browser: an image goes in; depth under the pointer, points and files come out; nothing leaves."""

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthkit.inference import Prediction
from depthkit.types import Ambiguity, Representation

pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")


def predict(image: np.ndarray) -> Prediction:
    """Depth [m]: 1 at the left edge, 5 at the right."""
    ramp = np.linspace(1, 5, image.shape[1], dtype=np.float32)[None].repeat(len(image), 0)
    return Prediction(ramp, Representation.DEPTH, Ambiguity.METRIC)


@pytest.fixture(scope="module")
def address() -> str:
    pytest.importorskip("gradio", reason="gradio is not installed")
    from depthkit.app.server import build, launch

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = build({"one": predict, "two": predict}, [Ambiguity.METRIC, Ambiguity.METRIC])
    yield launch(page, port, wait=False)
    page.close()


def test_a_photo_is_dropped_pointed_at_turned_and_taken_away(address: str, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}")
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(photo)
    (tmp_path / "none.jpg").write_text("no image")
    outside = []
    with api.sync_playwright() as play:
        options = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = browser.new_page(viewport={"width": 1400, "height": 1300})
        page.set_default_timeout(120_000)
        page.on("request", lambda request: outside.append(request.url) if "127.0.0.1" not in request.url else None)
        page.goto(address)
        page.locator("#source input[type=file]").set_input_files(str(photo))
        shown = page.locator("#map0 .dk-shown")
        shown.wait_for()
        box = shown.bounding_box()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
        for number in (0, 1):  # the pointer reads both maps
            text = page.locator(f"#map{number} .dk-value").inner_text()
            assert text.endswith(" m")
            assert float(text.split()[0]) == pytest.approx(4.0, abs=0.05)
        page.locator("#cloud0 canvas").wait_for()
        with page.expect_download() as download:
            page.get_by_text("EXR", exact=True).first.click()
        assert download.value.suggested_filename == "photo.exr"
        assert Path(download.value.path()).read_bytes().startswith(b"v/1\x01")
        scale = page.locator("#scale input[type=number]")
        scale.fill("2")
        scale.press("Enter")
        scale.blur()
        page.wait_for_function("document.querySelector('#map0 .dk-view').dataset.low > 1.9")
        page.screenshot(path=str(tmp_path / "app.png"))
        page.locator("#source button[aria-label*=lear], #source button[aria-label*=emove]").first.click()
        page.locator("#source input[type=file]").set_input_files(str(tmp_path / "none.jpg"))
        page.get_by_text("expected an image at none.jpg").wait_for()
        browser.close()
    assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []
