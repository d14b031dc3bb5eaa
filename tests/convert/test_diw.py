"""Laws of DIW's layout: two lines per image, rows before columns, counted from 1, and which sign says what."""

import pickle

import cv2
import numpy as np
import pytest

from depthkit.convert import diw
from depthkit.errors import DepthKitError, LabelError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.shards import ShardIndex, decode_sample, verify, write_shards
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, Representation

LINES = """./DIW_test/aaa.thumb
11,21,31,41,>,50,40
./DIW_test/bbb.thumb
1,1,40,50,<,50,40
./DIW_test/ccc.thumb
200,1,0,90,>,50,40
./DIW_test/gone.thumb
1,1,2,2,>,50,40
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "DIW_test").mkdir()
    for number, name in enumerate(("aaa", "bbb", "ccc")):
        _, data = cv2.imencode(".jpg", np.full((40, 50, 3), 60 * number, np.uint8))
        (tmp_path / f"DIW_test/{name}.thumb").write_bytes(data.tobytes())
    (tmp_path / "DIW_test.csv").write_text(LINES)
    return tmp_path


def test_points_are_row_and_column_from_0_and_the_sign_says_which_is_farther(root):
    pairs = diw.diw(root)
    first, second, third = pairs
    assert (len(pairs), first.size, first.key) == (3, (40, 50), "DIW_test/aaa")
    assert first.ambiguity == Ambiguity.ORDINAL
    assert first.pairs.tolist() == [[10, 20, 30, 40, -1]]  # > : A is farther, so B is closer
    assert second.pairs.tolist() == [[0, 0, 39, 49, 1]]
    assert third.pairs.tolist() == [[39, 0, 0, 49, -1]]  # outside: on the border
    assert pairs.rejects == (("DIW_test/gone.thumb", "there is no such image"),)


def test_a_disparity_that_grows_downwards_is_right_where_the_lower_point_is_closer(root, tmp_path):
    out = tmp_path / "out"
    report = write_shards(diw.diw(root), out, split="test", dataset="diw", originals=root)
    assert (report.samples, len(report.rejects)) == (3, 1)
    assert verify(out).ok
    index = ShardIndex.load(out)
    stored = [
        decode_sample(raw.key, raw.members, where=shard.name)
        for shard in index.shards("test")
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples)
    ]
    first = index.shards("test")[0]
    (raw, *_) = read_shard(index.url(first), 0, first.samples, total=first.samples)
    assert raw.members["image.jpg"] == (root / "DIW_test/aaa.thumb").read_bytes()  # a JPEG under another name
    ramp = lambda image: np.repeat(np.linspace(1, 2, 40)[:, None], 50, 1)  # noqa: E731
    for name in ("midas_diw", "gp2_diw"):
        scored = evaluate(ramp, stored, PROTOCOLS[name], representation=Representation.DISPARITY, progress=False)
        # aaa: B lies lower and is closer: right. bbb: A is closer and lies higher: wrong. ccc: A is farther and lower: wrong.
        assert scored.summary["whdr"] == pytest.approx(2 / 3)


def test_parts_of_the_list_and_what_travels_to_a_worker_are_read_alike(root):
    pairs = diw.diw(root)
    for part in (pairs[1:], pickle.loads(pickle.dumps(pairs))[1:]):
        assert [part.key(i) for i in range(len(part))] == ["DIW_test/bbb", "DIW_test/ccc"]
        assert part[0].pairs.tolist() == pairs[1].pairs.tolist()


def test_the_list_may_lie_among_the_annotations(root):
    (root / "DIW_Annotations").mkdir()
    (root / "DIW_test.csv").rename(root / "DIW_Annotations/DIW_test.csv")
    assert len(diw.diw(root)) == 3
    with pytest.raises(DepthKitError, match=r"expected DIW_val.csv or DIW_Annotations/DIW_val.csv under .*; found DIW_Annot"):
        diw.diw(root, "val")


@pytest.mark.parametrize("line", ["1,2,3,4,?,5,6", "1,2,3,<", "a,2,3,4,<,5,6"])
def test_a_garbled_line_is_named(root, line):
    (root / "DIW_test.csv").write_text(f"./DIW_test/aaa.thumb\n{line}\n")
    with pytest.raises(LabelError, match=r"DIW_test.csv, line 2: expected yA,xA,yB,xB,relation,width,height"):
        diw.diw(root)


def test_without_images_the_first_that_is_missing_is_named(root):
    (root / "DIW_test").rename(root / "images")
    with pytest.raises(DepthKitError, match=r"expected DIW_test/aaa.thumb and the other images of DIW_test.csv under"):
        diw.diw(root)
