"""Laws of WSVD's layout: every listed video once, as a stereo film; what is not there or is none is counted.

The flow is an oracle that knows by how many pixels each video's pictures are apart.
"""

from fractions import Fraction

import numpy as np
import pytest

from depthkit.errors import DepthKitError
from depthkit.types import Ambiguity, LabelKind, Representation

av = pytest.importorskip("av", reason="PyAV is not installed")
from depthkit.convert import wsvd  # noqa: E402
from depthkit.convert.records.stereo_labels import Rules  # noqa: E402
from depthkit.shards import write_shards  # noqa: E402

SIZE = (48, 96)
RULES = Rules(discrepancy=1, matched=0.5, span=5)


def disparity():
    return np.broadcast_to(np.where(np.arange(SIZE[0])[:, None] < 24, 2.0, 10.0), SIZE)


def oracle(first, second):
    """From left to right, what is close goes to the left; back, to the right. The left picture is the darker one."""
    flow = np.zeros((*SIZE, 2))
    flow[..., 0] = disparity() * (-1 if first.mean() < second.mean() else 1)
    return flow


def write_video(file, seconds=10, eyes=2):
    texture = np.kron(np.random.default_rng(3).integers(60, 200, (12, 24, 1)), np.ones((4, 4, 3))).astype(np.uint8)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264rgb", rate=2)
        stream.height, stream.width, stream.pix_fmt, stream.options = *(SIZE[0], eyes * SIZE[1]), "rgb24", {"crf": "0"}
        for n in range(2 * seconds + 1):
            pictures = [texture, texture + 8][:eyes]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.concatenate(pictures, 1)), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 2)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("wsvd")
    for name in ("-3Br2RCzmEc", "aeW37ZgbwYg"):
        write_video(root / f"{name}.mp4")
    (root / "broken00000.mp4").write_bytes(b"no video")
    (root / "list.txt").write_text("-3Br2RCzmEc\naeW37ZgbwYg\nbroken00000\ndeleted0000\n")
    return root


def test_frames_of_all_videos_follow_each_other_and_the_rest_is_counted(root):
    chain = wsvd.wsvd(root, "train", split_file=root / "list.txt", holdout=0, flow=oracle, rules=RULES)
    assert chain.kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    assert [chain.key(i) for i in (0, 8, 9, -1)] == [f"{n}/{f:06d}" for n, f in
        (("-3Br2RCzmEc", 2), ("-3Br2RCzmEc", 18), ("aeW37ZgbwYg", 2), ("aeW37ZgbwYg", 18))]  # fmt: skip
    sample = chain[10]
    assert sample.key == chain.key(10)
    np.testing.assert_allclose(sample.label[sample.valid], disparity()[sample.valid], atol=1e-5)
    assert sample.valid.mean() > 0.8
    reasons = dict(chain.rejects)
    assert reasons.keys() == {"broken00000.mp4", "deleted0000"}
    assert reasons["deleted0000"] == "there is no video of this name"


def test_videos_are_on_one_side(root):
    train, val = (wsvd.wsvd(root, split, holdout=0.5, flow=oracle, rules=RULES) for split in ("train", "val"))
    videos = [{chain.key(i).split("/")[0] for i in range(len(chain))} for chain in (train, val)]
    assert not videos[0] & videos[1]
    assert videos[0] | videos[1] == {"-3Br2RCzmEc", "aeW37ZgbwYg"}


def test_they_are_written_as_one_split(root, tmp_path):
    report = write_shards(
        wsvd.wsvd(root, "train", holdout=0, flow=oracle, rules=RULES), tmp_path, split="train", dataset="wsvd"
    )
    assert (report.samples, [reject.name for reject in report.rejects]) == (18, ["broken00000.mp4"])


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "wsvd_list.txt").write_text("a\n")
    with pytest.raises(DepthKitError, match=r"expected films \(.mp4, .*\) under .*; found wsvd_list.txt"):
        wsvd.wsvd(tmp_path, "train")
