"""Laws of NYU Depth V2's labelled file: axes in MATLAB's order, numbers from 1, filled or raw depth."""

import pickle

import numpy as np
import pytest

from depthkit.convert import nyuv2
from depthkit.errors import DepthKitError
from depthkit.types import Ambiguity, LabelKind, Representation

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
savemat = pytest.importorskip("scipy.io", reason="SciPy is not installed").savemat

COUNT = 4
DEPTHS = np.random.default_rng(0).uniform(0.7, 9.9, (COUNT, 480, 640)).astype(np.float32)
RAW = np.where(np.random.default_rng(1).random(DEPTHS.shape) < 0.2, 0, DEPTHS).astype(np.float32)


def picture(n):
    """A ramp to the right in red, downwards in green, the number in blue."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = np.arange(640) // 3, np.arange(480)[:, None] // 2, n
    return image


@pytest.fixture
def root(tmp_path):
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:  # MATLAB's (480, 640, 3, N) is (N, 3, 640, 480) here
        file["images"] = np.stack([picture(n).transpose(2, 1, 0) for n in range(1, COUNT + 1)])
        file["depths"], file["rawDepths"] = DEPTHS.transpose(0, 2, 1), RAW.transpose(0, 2, 1)
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[3], [2]]), "testNdxs": np.array([[1], [4]])})
    return tmp_path


def test_an_image_and_its_depth_come_upright_by_their_number_from_1(root):
    frames = nyuv2.nyuv2(root, "test")
    assert [s.key for s in frames] == ["nyu/00001", "nyu/00004"]
    np.testing.assert_array_equal(frames[1].image, picture(4))
    np.testing.assert_array_equal(frames[1].label, DEPTHS[3])
    assert frames[1].kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert frames[1].valid.all()
    assert [s.key for s in nyuv2.nyuv2(root, "train")] == ["nyu/00002", "nyu/00003"]


def test_raw_depth_has_holes(root):
    sample = nyuv2.nyuv2(root, "train", depth="raw")[0]
    np.testing.assert_array_equal(sample.label[sample.valid], RAW[1][RAW[1] > 0])
    np.testing.assert_array_equal(sample.valid, RAW[1] > 0)


def test_intrinsics_are_those_of_the_toolbox(root):
    expected = [[518.857901, 0, 325.582449], [0, 519.469611, 253.736166], [0, 0, 1]]
    np.testing.assert_allclose(nyuv2.nyuv2(root, "test")[0].intrinsics, expected, rtol=1e-7)


def test_a_number_too_many_another_file_and_a_missing_one_are_named(root):
    savemat(root / "splits.mat", {"trainNdxs": np.array([[9]])})
    with pytest.raises(DepthKitError, match=r"nyu_depth_v2_labeled.mat: expected an HDF5 file; it does not read"):
        nyuv2.nyuv2(root, "train")[0]
    with pytest.raises(DepthKitError, match=r"splits.mat: expected a variable testNdxs"):
        nyuv2.nyuv2(root, "test")
    (root / "splits.mat").unlink()
    with pytest.raises(DepthKitError, match=r"expected splits.mat under .*; found nyu_depth_v2_labeled.mat"):
        nyuv2.nyuv2(root, "test")


def test_what_travels_to_workers_reads_the_same(root):
    frames = nyuv2.nyuv2(root, "test")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[0].label, frames[0].label)
