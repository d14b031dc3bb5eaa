"""Two reports, image by image."""

import json
from pathlib import Path

import numpy as np
import pytest

from depthkit.cli.main import main
from depthkit.errors import RecipeError
from depthkit.evaluation import compare_reports


def report(
    path: Path, values: np.ndarray, *, name: str = "net", protocol: str = "midas_nyu", left_out: tuple[int, ...] = ()
) -> Path:
    rows = [
        {"key": f"s{i}", "abs_rel": None if i in left_out else float(x), "delta1": 1 - float(x), "left_out": i in left_out}
        for i, x in enumerate(values)
    ]
    content = {"model": name, "facts": {"protocol": protocol}, "summary": {"abs_rel": 0, "delta1": 0}, "per_image": rows}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def errors() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.2, 400)


def test_a_small_gain_on_every_image_is_told_from_luck(errors: np.ndarray, tmp_path: Path) -> None:
    first, second = report(tmp_path / "a.json", errors, name="a"), report(tmp_path / "b.json", errors - 0.002, name="b")
    found = compare_reports(first, second)
    assert found.images == 400
    for name, sign in (("abs_rel", -1), ("delta1", 1)):
        metric = found.metrics[name]
        assert metric.difference == pytest.approx(sign * 0.002)
        assert metric.interval == pytest.approx((sign * 0.002, sign * 0.002))
        assert (metric.wins, metric.significant) == (1.0, True)
    assert found.table().count("b is better") == 2
    assert compare_reports(second, first).table().count("b is better") == 2
    assert "not told apart" in compare_reports(first, first).table()


def test_the_interval_is_that_of_the_mean(errors: np.ndarray, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, len(errors))
    found = compare_reports(report(tmp_path / "a.json", errors), report(tmp_path / "b.json", errors + noise), draws=20000)
    half = 1.96 * noise.std() / np.sqrt(len(noise))
    assert found.metrics["abs_rel"].interval == pytest.approx((noise.mean() - half, noise.mean() + half), abs=half / 15)
    wider = compare_reports(tmp_path / "a.json", tmp_path / "b.json", confidence=0.99).metrics["abs_rel"].interval
    assert wider[1] - wider[0] > 1.2 * 2 * half


def test_only_images_that_both_scored_are_compared(errors: np.ndarray, tmp_path: Path) -> None:
    first = report(tmp_path / "a.json", errors[:10], left_out=(3,))
    found = compare_reports(first, report(tmp_path / "b.json", errors[:8], left_out=(4,)))
    assert (found.images, found.unpaired) == (6, 4)
    kept = [0, 1, 2, 5, 6, 7]
    assert found.metrics["abs_rel"].first == pytest.approx(errors[kept].mean())


def test_what_cannot_be_compared_is_refused(errors: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = report(tmp_path / "a.json", errors)
    with pytest.raises(RecipeError, match="got midas_nyu and gp2_diw"):
        compare_reports(first, report(tmp_path / "b.json", errors, protocol="gp2_diw"))
    (tmp_path / "c.json").write_text("{}")
    for wrong in (tmp_path / "c.json", tmp_path / "gone.json"):
        with pytest.raises(RecipeError, match="expected a report of `depthkit evaluate --out`"):
            compare_reports(first, wrong)
    main(["compare", str(first), str(first)])
    printed = capsys.readouterr().out
    assert "net (first)" in printed
    assert "400 images in both" in printed


def test_a_folder_stands_for_the_one_report_in_it(errors: np.ndarray, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report(tmp_path / name / "room.test.midas_nyu.json", errors, name=name)
    assert compare_reports(tmp_path / "a", tmp_path / "b" / "room.test.midas_nyu.json").names == ("a", "b")
    report(tmp_path / "a" / "street.test.midas_nyu.json", errors)
    for folder, said in (("a", "got room.test.midas_nyu.json, street.test.midas_nyu.json"), (".", "got none")):
        with pytest.raises(RecipeError, match=f"expected one report .*{said}"):
            compare_reports(tmp_path / folder, tmp_path / "b")
