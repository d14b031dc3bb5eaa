"""Laws of stereo photographs: the same pair gives the same label however its pictures are stored."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from depthkit.convert import stereo_pairs
from depthkit.convert.records.stereo_labels import RULES, Rules, check_frame, disparity_from_flow
from depthkit.errors import DepthKitError, LabelError
from depthkit.shards import ShardIndex, verify, write_shards

HEIGHT, WIDTH, OFFSET = 64, 128, 5
RNG = np.random.default_rng(0)
TEXTURE = np.kron(RNG.integers(60, 256, (16, 44, 3), np.uint8), np.ones((4, 4, 1), np.uint8))


def disparity():
    """A step: what is above is far, what is below near."""
    return np.where(np.arange(HEIGHT)[:, None] < 32, -4.0, 8.0) * np.ones((1, WIDTH))


def eyes(n=0):
    """Left and right picture; the right one is what the left one's rows show, shifted."""
    rows = np.roll(TEXTURE, 4 * n, 1)[:, : WIDTH + 40]
    left = rows[:, 20 : 20 + WIDTH]
    right = np.stack([rows[y, 20 + int(d) : 20 + int(d) + WIDTH] for y, d in enumerate(disparity()[:, 0])])
    return np.ascontiguousarray(left), right


def flow(first, second):
    """The oracle: rows are shifted by what makes them equal."""
    found = np.zeros((*first.shape[:2], 2))
    for y in range(len(first)):
        shifts = range(-12, 13)
        errors = [
            np.abs(first[y, 12:-12].astype(int) - second[y, 12 + s : first.shape[1] - 12 + s].astype(int)).mean()
            for s in shifts
        ]
        found[y, :, 0] = shifts[int(np.argmin(errors))]
    return found


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def stored(root, way, count=3):
    """Pairs in one of the ways that they come in."""
    for n in range(count):
        left, right = eyes(n)
        if way == "folders":
            save(root / f"left/p.{n}.png", left)
            save(root / f"right/p.{n}.png", right)
        elif way == "behind":
            root.mkdir(exist_ok=True)
            first, second = Image.fromarray(left), Image.fromarray(right)
            first.save(root / f"p.{n}.mpo", format="MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
        else:
            save(root / f"p.{n}.{'jps' if n % 2 else 'png'}", np.concatenate([left, right], 0 if way == "over_under" else 1))
    return root


@pytest.mark.parametrize("way", ["folders", "side_by_side", "over_under", "behind"])
def test_the_label_is_the_truth_however_the_pair_is_stored(way, tmp_path):
    frames = stereo_pairs.stereo_pairs(stored(tmp_path / "photos", way), flow=flow, views="stereo")
    assert [frames.key(n) for n in range(3)] == ["photos/p_0", "photos/p_1", "photos/p_2"]
    for n, sample in enumerate(frames):
        assert str(sample.kind) == "shift_scale disparity"
        assert sample.valid.mean() > 0.8
        assert np.array_equal(sample.label[sample.valid], disparity()[sample.valid])
        for picture, expected in zip((sample.image, sample.frames["stereo"]), eyes(n), strict=True):
            assert np.abs(picture.astype(int) - expected).mean() < (20 if way == "behind" else 1e-9)  # JPEG
    report = write_shards(frames, tmp_path / "out", split="train", dataset="photos", originals=tmp_path / "photos")
    assert (report.samples, verify(tmp_path / "out").ok) == (3, True)
    assert str(ShardIndex.load(tmp_path / "out").split("train").views) == "stereo"


def test_the_papers_rules_are_theirs():
    """Romanov et al. (2020), appendix E; Ranftl et al. (2022), appendix: 2 px, 70 %, 10 px, and 2 px up or down for 10 %."""
    numbers = {name: (r.discrepancy, r.matched, r.span, r.vertical, r.tilted) for name, r in RULES.items()}
    assert numbers == {"gp2": (8, 0.8, 8, None, 0.1), "midas": (2, 0.7, 10, 2, 0.1)}


@pytest.mark.parametrize(("returned", "confirmed"), [(1.9, True), (-1.9, True), (2.0, False), (2.5, False), (-3.0, False)])
def test_flow_is_confirmed_if_it_returns_to_less_than_the_discrepancy(returned, confirmed):
    there = np.full((2, 9, 2), -3.0)
    disparity, found = disparity_from_flow(there, np.full_like(there, 3.0 + returned), discrepancy=2)
    assert found[:, 3:].all() == found.any() == confirmed
    assert (disparity[:, 3:] == 3 * confirmed).all()


def test_a_frame_needs_matches_span_and_level_cameras():
    rules, level = Rules(matched=0.5, span=4, vertical=1, tilted=0.25), np.zeros((2, 4, 8))
    disparity, good = np.zeros((4, 8)), np.ones((4, 8), bool)
    disparity[0], disparity[1], good[:2, 0] = 2.1, -2.0, False
    check_frame(disparity, good, rules, seen=good, vertical=level)
    with pytest.raises(LabelError, match="no more than 50% of its pixels match"):
        check_frame(disparity, (np.arange(8) < 4) & good, rules, seen=good, vertical=level)
    with pytest.raises(LabelError, match="span no more than 4 px"):
        check_frame(disparity.clip(-1.9, 2.1), good, rules, seen=good, vertical=level)
    tilted = level.copy()
    tilted[1, 0] = -1.5  # a quarter, which is not more than a quarter
    check_frame(disparity, good, rules, seen=good, vertical=tilted)
    tilted[1, 1, 0] = 1.5
    with pytest.raises(LabelError, match="over 25% of its pixels move by more than 1 px vertically"):
        check_frame(disparity, good, rules, seen=good, vertical=tilted)


def test_photographs_of_other_sizes_and_bars_are_cut_one_by_one(tmp_path):
    left, right = eyes()
    bar = np.zeros((8, WIDTH, 3), np.uint8)
    save(tmp_path / "a.png", np.concatenate([left, right], 1))
    save(tmp_path / "b.png", np.concatenate([np.concatenate([bar, eye, bar]) for eye in (left, right)], 1))
    for sample in stereo_pairs.stereo_pairs(tmp_path, flow=flow):
        assert np.array_equal(sample.image, left)


def test_a_jpeg_of_both_is_not_stored_for_the_left_one(tmp_path):
    left, right = eyes()
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.jpg"), np.concatenate([left, right], 1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    frames = stereo_pairs.stereo_pairs(tmp_path / "in", flow=flow)
    write_shards(frames, tmp_path / "out", split="train", dataset="a", originals=tmp_path / "in")
    assert verify(tmp_path / "out").ok  # sizes of image and label agree


def test_pairs_without_a_right_picture_and_bad_ones_are_counted(tmp_path):
    root = stored(tmp_path / "photos", "folders")
    (root / "right/p.1.png").unlink()
    save(root / "right/p.2.png", eyes(2)[0])  # the left one again
    report = write_shards(stereo_pairs.stereo_pairs(root, flow=flow), tmp_path / "out", split="train", dataset="photos")
    assert report.samples == 1
    assert report.rejects == (
        ("photos/p_1", "there is no right picture"),
        ("photos/p_2", "its disparities span no more than 8 px"),
    )


def test_sizes_that_differ_and_files_of_one_picture_are_refused(tmp_path):
    root = stored(tmp_path / "photos", "folders", 1)
    save(root / "right/p.0.png", eyes()[1][:-2])
    with pytest.raises(DepthKitError, match=r"expected two pictures of one size; got \(64, 128\) and \(62, 128\)"):
        stereo_pairs.stereo_pairs(root, flow=flow)[0]
    alone = io.BytesIO()
    Image.fromarray(eyes()[0]).save(alone, "JPEG")
    (tmp_path / "mpo").mkdir()
    (tmp_path / "mpo/a.mpo").write_bytes(alone.getvalue())
    with pytest.raises(LabelError, match="expected two pictures; it holds 1"):
        stereo_pairs.stereo_pairs(tmp_path / "mpo", flow=flow)[0]
    (tmp_path / "mpo/a.mpo").write_bytes(b"none")
    with pytest.raises(DepthKitError, match="expected a whole picture; it does not decode"):
        stereo_pairs.stereo_pairs(tmp_path / "mpo", flow=flow)[0]


def test_a_folder_of_pictures_for_one_eye_is_refused(tmp_path):
    for n in range(3):
        save(tmp_path / f"{n}.png", np.random.default_rng(n).integers(0, 256, (64, 128, 3), np.uint8))
    with pytest.raises(DepthKitError, match="expected stereo, two pictures of the same beside or above each other"):
        stereo_pairs.stereo_pairs(tmp_path, flow=flow)


def test_real_pairs_side_by_side_are_recognised_and_labelled(real, tmp_path):
    source, truth = real("middlebury_stereo"), {}
    for file in sorted((source / "rgb").iterdir()):
        left, right = (cv2.imread(str(next((source / side).glob(f"{file.stem}.*")))) for side in ("rgb", "right"))
        codes = cv2.imread(str(source / f"disparity/{file.stem}.png"), cv2.IMREAD_UNCHANGED) / 256.0
        cv2.imwrite(str(tmp_path / f"{file.stem}.png"), np.concatenate([left, right], 1))
        truth[f"{tmp_path.name}/{file.stem}"] = codes
    calls = []

    def oracle(first, second):  # the published disparity; flow back is warped from it, so that it agrees where it is known
        calls.append(first.shape)
        codes = next(codes for codes in truth.values() if codes.shape == first.shape[:2])
        there = np.dstack([-codes, np.zeros_like(codes)])
        if len(calls) % 2:
            return there
        back = np.zeros_like(there)
        y, x = np.nonzero(codes)
        order = np.argsort(codes[y, x])
        y, x = y[order], x[order]
        at = np.clip(np.rint(x - codes[y, x]).astype(int), 0, codes.shape[1] - 1)
        back[y, at, 0] = codes[y, x]
        return back

    frames = stereo_pairs.stereo_pairs(tmp_path, flow=oracle, rules=Rules(discrepancy=2, matched=0.3))
    sizes = [codes.shape for codes in truth.values()]
    for n, sample in enumerate(frames):
        assert sample.image.shape[:2] == sizes[n]
        if sizes.count(sizes[n]) == 1:
            known = sample.valid & (truth[sample.key] > 0)
            assert np.abs(sample.label - truth[sample.key])[known].max() < 1e-3
