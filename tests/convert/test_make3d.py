"""Laws of Make3D's layout: a coarse grid of distances at the pixels of its cells' middles, scored as a grid would be."""

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.convert import make3d
from depthkit.errors import DepthKitError, LabelError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.types import Ambiguity, Representation, Sample

savemat = pytest.importorskip("scipy.io", reason="SciPy is not installed").savemat
SIZE = (568, 426)  # a quarter of 2272 x 1704


@pytest.fixture
def root(tmp_path):
    (tmp_path / "Test134").mkdir()
    (tmp_path / "Gridlaserdata").mkdir()
    cv2.imwrite(str(tmp_path / "Test134/img-op1-p-015t000.jpg"), np.full((*SIZE, 3), 99, np.uint8))
    savemat(tmp_path / "Gridlaserdata/depth_sph_corr-op1-p-015t000.mat", {"Position3DGrid": grid()})
    return tmp_path


def grid():
    values = np.random.default_rng(0).uniform(1, 79, (55, 305, 4))
    values[0, :, 3], values[1, :, 3] = 81.0, 0.0
    return values


def test_each_distance_is_in_the_middle_of_its_cell_and_nowhere_else(root):
    sample = make3d.make3d(root)[0]
    assert sample.label.shape == sample.size == SIZE
    assert sample.valid.sum() == 53 * 305  # without the row beyond the laser's reach and that of zeros
    row, column = int(20.5 * SIZE[0] / 55), int(100.5 * SIZE[1] / 305)
    assert sample.label[row, column] == pytest.approx(grid()[20, 100, 3])
    assert sample.valid[row, column]
    assert not sample.valid[row + 2, column]


def test_it_is_scored_as_the_grid_itself_is(root):
    sample = make3d.make3d(root)[0]
    depth = grid()[:, :, 3].astype(np.float32)
    coarse = Sample("grid", sample.image, depth, (depth > 0) & (depth < 80), Ambiguity.METRIC, Representation.DEPTH)
    rng = np.random.default_rng(1)
    cells = rng.uniform(0.02, 0.5, (7, 61)).astype(np.float32)  # parts of 1/7 and 1/61 of the crop hold whole cells: 3 x 5
    model = lambda image: cells  # noqa: E731
    protocol = PROTOCOLS["monodepth2_make3d"]
    fine, by_grid = (
        evaluate(model, [s], protocol, representation=Representation.DISPARITY, progress=False) for s in (sample, coarse)
    )
    assert_close(list(fine.summary.values()), list(by_grid.summary.values()), rtol=1e-5, atol=1e-6)
    assert torch.tensor(list(fine.summary.values())).isfinite().all()


def test_another_layout_and_another_variable_are_named(root, tmp_path):
    with pytest.raises(DepthKitError, match=r"expected Train400Img/img-NAME.jpg and Train400Depth/depth_sph_corr-NAME.mat"):
        make3d.make3d(root, "train")
    file = root / "Gridlaserdata/depth_sph_corr-op1-p-015t000.mat"
    savemat(file, {"depth": grid()})
    with pytest.raises(LabelError, match=r"t000.mat: expected a variable Position3DGrid; there is none"):
        make3d.make3d(root)[0]
    savemat(file, {"Position3DGrid": grid()[..., 0]})
    with pytest.raises(LabelError, match=r"expected Position3DGrid of 55 x 305 x 4; got \(55, 305\)"):
        make3d.make3d(root)[0]
    file.write_bytes(b"no matlab at all")
    with pytest.raises(LabelError, match=r"expected a MATLAB file of version 5; it does not read"):
        make3d.make3d(root)[0]
