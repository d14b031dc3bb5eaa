"""A disk that refuses a network leaves the one before as it was, and nothing beside it."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from depthkit.errors import PredictionError
from depthkit.inference import export_program
from depthkit.models import DepthNet, export_encoder, midas_timm, save_network
from depthkit.types import Ambiguity

AFFINE = Ambiguity.SHIFT_SCALE
WAYS: dict[str, Callable[[DepthNet, Path], object]] = {
    "checkpoint": lambda network, out: save_network(network, out / "a.ckpt", ambiguity=AFFINE),
    "encoder": lambda network, out: export_encoder(network, out / "a.safetensors"),
    "folder": lambda network, out: network.save_pretrained(out, ambiguity=AFFINE),
    "pt2": lambda network, out: export_program(network, out / "a.pt2", size=(32, 32), ambiguity=AFFINE),
    "onnx": lambda network, out: export_program(network, out / "a.onnx", size=(32, 32), ambiguity=AFFINE),
}


@pytest.fixture(scope="module")
def network() -> DepthNet:
    return midas_timm("mobilenetv3_small_050", pretrained=False, features=8)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*")}


@pytest.mark.parametrize("way", [*list(WAYS)[:3], *(pytest.param(way, marks=pytest.mark.slow) for way in ("pt2", "onnx"))])
def test_a_network_that_does_not_fit_leaves_the_one_before(way: str, network: DepthNet, tmp_path: Path) -> None:
    if way == "onnx":
        pytest.importorskip("onnxscript")
    WAYS[way](network, tmp_path)
    before = contents(tmp_path)
    with no_file_above(10_000), pytest.raises(PredictionError, match=r"expected to write .* Choose another folder"):
        WAYS[way](network, tmp_path)
    assert contents(tmp_path) == before
