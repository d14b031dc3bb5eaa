"""Laws of Hypersim's layout: distance becomes depth, radiance becomes a picture, the authors' list divides the scenes."""

import pickle

import numpy as np
import pytest

from depthkit.convert import hypersim
from depthkit.convert.hypersim import planar_depth, tone_map
from depthkit.errors import DepthKitError
from depthkit.types import Ambiguity, LabelKind, Representation

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
SIZE = (768, 1024)
HEADING = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"


def plane(z=2.0):
    """Distances to points of a plane in front of the camera, ray by ray."""
    x, y = np.arange(SIZE[1]) - 511.5, np.arange(SIZE[0]) - 383.5
    rays = np.stack(np.broadcast_arrays(x[None] / 886.81, y[:, None] / 886.81, 1.0), axis=-1)
    return z * np.linalg.norm(rays, axis=-1)


def write_frame(root, scene, number, distance, radiance):
    images = root / scene / "images"
    for what, file, data in (
        ("final", "color", radiance.astype(np.float16)),
        ("geometry", "depth_meters", distance.astype(np.float16)),
        ("geometry", "render_entity_id", np.where(np.isfinite(distance), 7, -1).astype(np.int32)),
    ):
        folder = images / f"scene_cam_00_{what}_hdf5"
        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / f"frame.{number:04d}.{file}.hdf5", "w") as content:
            content.create_dataset("dataset", data=data)


@pytest.fixture
def root(tmp_path):
    distance = plane()
    distance[0] = np.nan
    radiance = np.full((*SIZE, 3), 0.25)
    radiance[0] = 1000.0  # the background, where nothing was rendered, must not count
    for scene in ("ai_001_001", "ai_002_001"):
        write_frame(tmp_path, scene, 3, distance, radiance)
    rows = ["ai_001_001,cam_00,3,True,,train", "ai_002_001,cam_00,3,True,,val", "ai_001_001,cam_00,4,False,bad,train"]
    rows += ["ai_001_001,cam_00,5,True,,train"]
    (tmp_path / hypersim.SPLIT_FILE).write_text(HEADING + "\n".join(rows) + "\n")
    return tmp_path


def test_the_distances_of_a_frontal_plane_become_one_depth(root):
    sample = hypersim.hypersim(root, "train")[0]
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    np.testing.assert_allclose(sample.label[1:], 2.0, rtol=1e-3)  # half precision
    np.testing.assert_array_equal(sample.valid, np.isfinite(plane()) & (np.arange(768)[:, None] > 0))
    np.testing.assert_allclose(planar_depth(plane(7.5), 886.81), 7.5, rtol=1e-6)


def test_the_axis_meets_the_middle_of_the_picture(root):
    sample = hypersim.hypersim(root, "train")[0]
    np.testing.assert_allclose(sample.intrinsics, [[886.81, 0, 511.5], [0, 886.81, 383.5], [0, 0, 1]])
    assert 2 * np.degrees(np.arctan(512 / 886.81)) == pytest.approx(60, abs=0.01)


def test_a_picture_is_exposed_by_what_was_rendered(root):
    sample = hypersim.hypersim(root, "train")[0]
    np.testing.assert_array_equal(sample.image[1:], round(255 * 0.8))  # all as bright as its bright pixels
    np.testing.assert_array_equal(sample.image[0], 255)


@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
def test_a_picture_does_not_depend_on_the_unit_of_radiance(gain):
    radiance = np.random.default_rng(0).gamma(1.0, 1.0, (20, 30, 3)).astype(np.float32)
    valid = np.ones((20, 30), bool)
    np.testing.assert_allclose(tone_map(gain * radiance, valid).astype(int), tone_map(radiance, valid), atol=1)
    assert (tone_map(0 * radiance, valid) == 0).all()


def test_the_authors_list_says_what_is_published_and_where_it_belongs(root):
    frames = hypersim.hypersim(root, "train")
    assert [s.key for s in frames] == ["ai_001_001/cam_00/0003"]
    assert [(r.name, r.reason.split("/")[-1]) for r in frames.rejects] == [("ai_001_001/cam_00/0005", "frame.0005.color.hdf5")]
    assert [s.key for s in hypersim.hypersim(root, "val")] == ["ai_002_001/cam_00/0003"]


def test_a_broken_file_a_missing_list_and_another_folder_are_named(root, tmp_path):
    file = root / "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0003.depth_meters.hdf5"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DepthKitError, match=r"frame.0003.depth_meters.hdf5: expected an HDF5 file; it does not read"):
        hypersim.hypersim(root, "train")[0]
    with h5py.File(file, "w") as content:
        content.create_dataset("depth", data=np.ones(SIZE))
    with pytest.raises(DepthKitError, match=r"expected data set 'dataset'; found depth"):
        hypersim.hypersim(root, "train")[0]
    (root / hypersim.SPLIT_FILE).write_text("scene,camera\n")
    with pytest.raises(DepthKitError, match=r"expected columns scene_name, .*; found scene, camera. Get it from"):
        hypersim.hypersim(root, "train")


def test_what_travels_to_workers_reads_the_same(root):
    frames = hypersim.hypersim(root, "train")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[0].label, frames[0].label)
