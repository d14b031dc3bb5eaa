"""A page says what the JSON says, its colour bars end where its colours end, and it is whole or not there."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.errors import PredictionError, RecipeError
from depthkit.evaluation import PROTOCOLS, Report, compare_reports, evaluate
from depthkit.evaluation.page import ColourScale, Maps, MapsFile, run_page
from depthkit.evaluation.page import html as pages
from depthkit.evaluation.page.maps import extremes, shown_pixels
from depthkit.evaluation.page.scores import scores_page
from depthkit.evaluation.render import GREY, colour_table
from depthkit.types import Ambiguity, Representation, Sample

AFFINE = PROTOCOLS["synthetic_affine"]


class Rows(HTMLParser):
    """The cells of a table of a page: the attribute that holds the exact number, else the text."""

    def __init__(self, page: str, table: str) -> None:
        super().__init__()
        self.table, self.rows, self.inside, self.cell = table, [], False, False
        self.bars = re.findall(r'data-low="([^"]+)" data-high="([^"]+)" data-unit="([^"]+)"', page)
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag == "table":
            self.inside = self.table in (facts.get("id"), facts.get("class"))
        elif self.inside and tag == "tr":
            self.rows.append([])
        elif self.inside and tag in ("td", "th"):
            self.rows[-1].append(facts.get("data-v", ""))
            self.cell = "data-v" not in facts

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data):
        if self.inside and self.cell:
            self.rows[-1][-1] += data


def samples(count=6, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        depth = rng.uniform(1, 9, (24, 32)).astype(np.float32)
        valid = np.zeros((24, 32), bool) if i == 2 else depth > 1.5
        image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        yield Sample(f"room/{i}", image, depth, valid, Ambiguity.METRIC, Representation.DEPTH)


class Network(torch.nn.Module):
    representation, ambiguity = Representation.DISPARITY, Ambiguity.SHIFT_SCALE

    def __init__(self, channel=0):
        super().__init__()
        self.channel = channel

    def forward(self, image):
        return image[:, self.channel : self.channel + 1] + 0.1


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[Report]:
    folder, found = tmp_path_factory.mktemp("reports"), []
    for channel in (0, 1):
        maps = folder / f"{channel}.maps.zip"
        found.append(
            evaluate(Network(channel), list(samples()), AFFINE, name=f"net {channel}", pictures=3, maps=maps, progress=False)
        )
        found[-1].to_json(folder / f"{channel}.json")
    return found


def test_numbers_on_the_page_are_those_of_the_json(reports, tmp_path):
    report = reports[0]
    content = json.loads(report.to_json(tmp_path / "r.json").read_text())
    page = report.to_html(tmp_path / "r.html").read_text()
    names = list(content["summary"])
    head, first, *_ = Rows(page, "summary").rows
    assert head == ["model", *names]
    assert [float(x) for x in first[1:]] == list(content["summary"].values())
    head, *rows = Rows(page, "images").rows
    assert head == ["image", *names, "pixels", "note"]
    for row, cells in zip(content["per_image"], rows, strict=True):
        assert cells[0] == row["key"]
        assert [None if cell == "" else float(cell) for cell in cells[1:-2]] == [row[name] for name in names]
        assert int(cells[-2]) == row["pixels"]
        assert cells[-1] == (f"left out: {row['why']}" if row["left_out"] else "")
    counted = {word: int(n) for n, word in re.findall(r"<div><b>(\d+)</b>([^<]+)</div>", page)}
    assert counted == {"read": 6, "scored": 5, "left out": 1, "could not be read": 0, "without a scale": 0}


def test_an_image_without_a_valid_pixel_is_left_out_and_said(reports, tmp_path):
    page = reports[0].to_html(tmp_path / "r.html").read_text()
    assert "<li><b>room/2</b>: no labelled pixel</li>" in page
    assert 'data-key="room/2" data-state="left out"' in page
    assert "room/2" not in reports[0].pictures


def test_bars_end_where_the_colours_end(reports, tmp_path):
    report = reports[0]
    page = report.to_html(tmp_path / "r.html").read_text()
    bars = Rows(page, "images").bars
    assert len(bars) == 3 * len(report.pictures)
    drawn = [maps.scale for maps in report.pictures.values()]
    shown = {(float(low), float(high)) for low, high, unit in bars if unit == "m"}
    assert shown == {(scale.low, scale.high) for scale in drawn}
    assert {unit for *_, unit in bars} == {"m", "%"}
    for scale in drawn:
        ends = scale.colour(np.array([[scale.low, scale.high, np.nan]], np.float32))[0]
        stops = re.findall("#[0-9a-f]{6}", scale.gradient)
        assert [f"#{''.join(f'{c:02x}' for c in end)}" for end in ends[:2].tolist()] == [stops[0], stops[-1]]
        assert (ends[2] == GREY).all()
        assert [text for _, text in scale.ticks()][:: len(scale.ticks()) - 1] == [f"{scale.low:.3g}", f"{scale.high:.3g}"]


@pytest.mark.parametrize("representation", [*Representation, None])
def test_a_value_has_the_colour_above_its_place_on_the_bar(representation):
    scale = ColourScale(0.5, 8.0, "m", representation)
    values = np.linspace(0.5, 8, 40, dtype=np.float32)
    table = colour_table(scale.cmap)
    table = table[::-1] if representation in (Representation.DEPTH, Representation.LOG_DEPTH) else table
    expected = np.array([table[round(255 * scale.place(float(x)))] for x in values], int)
    assert np.abs(scale.colour(values[None])[0].astype(int) - expected).max() <= 8  # a step of the table
    places = [scale.place(x) for x in (0.5, 1.0, 2.0, 8.0)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, 1)


def test_a_constant_map_has_one_tick_and_no_values_have_a_page(tmp_path):
    flat = ColourScale.of(np.full((4, 4), 2.0), "m", Representation.DEPTH)
    assert flat.ticks() == [(0.5, "2")]
    nothing = evaluate(Network(), [s for s in samples() if not s.valid.any()], AFFINE, progress=False)
    assert "no labelled pixel" in nothing.to_html(tmp_path / "r.html").read_text()


def test_every_pixel_shown_is_one_pixel_of_the_map_and_scored_where_any_is():
    rng = np.random.default_rng(0)
    valid = rng.random((61, 300)) > 0.98
    rows, columns = shown_pixels(valid, side=100)
    assert rows.shape == (21, 100)
    blocks = np.add.reduceat(np.add.reduceat(valid, range(0, 61, 3)), range(0, 300, 3), 1) > 0
    assert np.array_equal(valid[rows, columns], blocks)
    target, pred = torch.rand(61, 300) + 1, torch.rand(61, 300) + 1
    maps = Maps.of(
        torch.rand(3, 122, 600), pred, target, torch.from_numpy(valid), representation=Representation.DEPTH, unit="m"
    )
    errors = set((100 * (pred - target).abs() / target)[torch.from_numpy(valid)].numpy().round(3).tolist())
    assert set(maps.error[np.isfinite(maps.error)].round(3).tolist()) <= errors


def test_maps_come_back_from_their_file(reports):
    with MapsFile.reading(reports[0].maps) as file:
        assert file.keys == {f"room/{i}" for i in range(6)}
        again = file["room/0"]
    kept = next(iter(reports[0].pictures.values()))
    assert (again.unit, again.representation) == ("m", Representation.DEPTH) == (kept.unit, kept.representation)
    (sample, *_) = samples(1)
    assert np.array_equal(np.isfinite(again.target), sample.valid)
    np.testing.assert_allclose(again.target[sample.valid], sample.label[sample.valid], rtol=2e-3)


def test_an_unfinished_page_or_file_has_no_name(reports, tmp_path, monkeypatch):
    def full(self, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(PredictionError, match=r"expected to write .*r\.html; got: .*No space left"):
        reports[0].to_html(tmp_path / "r.html")
    with pytest.raises(ZeroDivisionError), MapsFile.writing(tmp_path / "maps.zip"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_page_needs_no_network(reports, tmp_path):
    page = scores_page(tmp_path / "all.html", {"a": reports[0], "b": reports[1]}).read_text()
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"<dd>.*?</dd>", "", page))  # but for sources of protocols
    assert '<select id="dataset">' in page
    (picture, *_) = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert Image.open(BytesIO(base64.b64decode(picture))).size == (32, 24)


def test_extremes_are_by_the_better_direction_and_without_nan():
    rows = [{"key": str(i), "delta1": i / 10, "left_out": False} for i in range(9)] + [{"key": "none", "delta1": None}]
    assert extremes(rows, "delta1", 3, higher=True) == {"best": ["8"], "median": ["4"], "worst": ["0"]}
    assert extremes(rows, "delta1", 3, higher=False) == {"best": ["0"], "median": ["4"], "worst": ["8"]}


def test_a_comparison_shows_every_image_and_those_that_changed_most(reports, tmp_path):
    folder = reports[0].maps.parent
    found = compare_reports(folder / "0.json", folder / "1.json")
    page = found.to_html(tmp_path / "c.html", pictures=2).read_text()
    _, *rows = Rows(page, "images").rows
    values = {row[0]: [float(x) for x in row[1:4]] for row in rows}
    expected = [{r["key"]: r["abs_rel"] for r in x.per_image if not r["left_out"]} for x in reports]
    assert values == {k: [expected[0][k], expected[1][k], expected[1][k] - expected[0][k]] for k in expected[0]}
    changes = sorted(values, key=lambda key: values[key][2])
    captions = re.findall(r"<figcaption><b>([^<]+)</b>", page)
    assert captions == [changes[0], changes[-1]]
    assert len(Rows(page, "images").bars) == 2 * 5  # both maps, the label, both errors
    low, high = re.findall(r'<td data-low="([^"]+)" data-high="([^"]+)">', page)[0]
    assert (float(low), float(high)) == found.metrics["abs_rel"].interval
    assert "<li>room/2</li>" in page


def test_reports_of_other_images_are_not_compared(reports, tmp_path):
    first = reports[0].maps.parent / "0.json"
    other = evaluate(Network(), list(samples(seed=1)), AFFINE, pictures=3, maps=tmp_path / "o.maps.zip", progress=False)
    with pytest.raises(RecipeError, match=r"the same images; 'room/0' has \d+ and \d+ pixels to score in .* Evaluate both"):
        compare_reports(first, other.to_json(tmp_path / "o.json"))
    content = json.loads(first.read_text())
    content["maps"] = str(tmp_path / "o.maps.zip")
    (tmp_path / "mixed.json").write_text(json.dumps(content))
    content["per_image"] = [{**row, "abs_rel": (row["abs_rel"] or 0) + 1} for row in content["per_image"]]
    (tmp_path / "o.json").write_text(json.dumps(content))
    with pytest.raises(RecipeError, match="expected two reports of the same images; the labels of"):
        compare_reports(first, tmp_path / "o.json").to_html(tmp_path / "c.html")
    (tmp_path / "o.maps.zip").write_bytes(b"no zip")
    with pytest.raises(RecipeError, match=r"expected the maps of `depthkit evaluate --out` at .*cannot be read"):
        compare_reports(first, tmp_path / "o.json").to_html(tmp_path / "c.html")
    (tmp_path / "o.maps.zip").unlink()
    assert "No maps are shown" in compare_reports(first, tmp_path / "o.json").to_html(tmp_path / "c.html").read_text()


def test_a_run_has_its_curves_and_last_values(tmp_path):
    curves = {
        "train/ssi": [(10, 2.0), (20, 1.0), (30, float("nan"))],
        "val/room/abs_rel": [(10, 0.5), (20, 0.25)],
        "val/street/abs_rel": [(10, 0.75), (20, 0.5)],
        "lr": [(10, 0.1)],
    }
    picture = np.zeros((8, 8, 3), np.uint8)
    page = run_page(tmp_path, "run", curves, pictures={"val/room/pictures": (20, picture, "image | prediction | label")})
    assert Image.open(tmp_path / "curves.png").size[0] > 600
    text = page.read_text()
    assert Rows(text, "summary").rows == [["set", "abs_rel"], ["room", "0.25"], ["street", "0.5"]]
    values = {row[0]: row[1:] for row in Rows(text, "values").rows[1:]}
    assert values["val/room/abs_rel"] == ["2", "0.5", "0.25", "0.25", "20", "0.5", "10"]
    assert values["train/ssi"][3:] == ["1.0", "20", "2.0", "10"]
    assert "image | prediction | label" in text
    assert run_page(tmp_path / "empty", "run", {"lr": [(1, 0.1)]}).is_file()
    assert not (tmp_path / "empty" / "curves.png").exists()


def test_a_long_tail_falls_into_the_last_bin():
    values = np.array([*np.linspace(0, 1, 99), 100.0, np.nan])
    found = pages.histogram("abs_rel", values)
    assert sum(found.counts) == 100
    assert found.beyond
    assert found.high < 2
    assert pages.histogram("abs_rel", np.array([np.nan])) is None
    assert sum(pages.histogram("abs_rel", np.ones(3)).counts) == 3
