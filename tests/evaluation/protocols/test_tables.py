"""Tables of papers are made of protocols that print their figures."""

import pytest

from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, TABLES, find_table
from depthkit.evaluation.protocols.benchmark_data import place_of
from depthkit.evaluation.protocols.tables import Column, mean_improvement, mean_rank
from depthkit.models import PUBLISHED
from depthkit.types import Ambiguity, Representation

ERROR, SHARE = Column("e", ("midas_nyu",), "delta1_error"), Column("s", ("marigold_nyu",), "delta1")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_a_table_is_whole(table):
    for column in table.columns:
        for name in column.protocols:
            assert column.metric in PROTOCOLS[name].metrics
    if table.name != "marigold_disparity":
        assert len(table.figures) > 1
    assert set(table.rows) == (set(table.figures) if table.rows else set())
    assert table.reference in ("", *table.figures)
    assert table.models.keys() <= PUBLISHED.keys()
    if not table.name.startswith(("monodepth2", "gp2_4", "zoedepth", "depth_anything")):  # of one family, each test has its own
        assert set(table.models.values()) <= set(table.figures) | {"MiDaS v2", "B0-LRN", "Lite0-LRN"} | {
            f"B{k}-LRN" for k in range(6)
        }


def test_printed_figures_are_the_papers():
    row = find_table("midas_11").figures["MiDaS v2 (MIX 5, Pareto)"]
    assert row == pytest.approx([0.1246, 0.129, 0.327, 0.2390, 0.0955, 0.1429])
    assert find_table("gp2_3").figures["B5-LRN"] == pytest.approx([0.1064, 0.1305, 0.154, 0.328, 0.1256])
    assert find_table("gp2_5").figures["B5-LRN"] == pytest.approx([0.0740, 0.0986, 0.145, 0.253, 0.1256])
    assert find_table("depth_anything_2").figures["Depth Anything S"][:4] == [0.080, 0.936, 0.053, 0.972]
    assert find_table("depth_anything_10").figures["encoder of MiDaS v3.1"] == [0.077, 0.951, 0.054, 0.971]
    assert find_table("depth_anything_11").figures == {
        "encoder of DINOv2": [0.066, 0.973, 0.058, 0.971],
        "Depth Anything L": [0.056, 0.984, 0.046, 0.982],
    }
    assert not [row for row in find_table("zoedepth_1").figures if "encoder" in row]
    assert find_table("monodepth2_1").figures["MS"] == [0.106, 0.818, 4.750, 0.196, 0.874, 0.957, 0.979]
    assert find_table("marigold_1").figures["Marigold + E2E fine-tuning"][0] == pytest.approx(0.052)
    with pytest.raises(RecipeError, match=r"Near it: .*midas_11"):
        find_table("midas_12")


def test_published_gains_over_the_first_training_set_come_out():
    """Mean relative gain over ReDWeb: 22.4 % for MIX 5 by the paper, 16.6 % for MIX 1 (Pareto)."""
    table = find_table("midas_9")
    for row, gain in (("MIX 5, Pareto", 22.4), ("MIX 1, Pareto", 16.6), ("MIX 4, Pareto", 21.6)):
        found = mean_improvement(table.figures[row], table.figures["ReDWeb"], table.columns)
        assert 100 * found == pytest.approx(gain, abs=0.1)


def test_ranks_and_gains():
    others = {"a": [0.1, 0.9], "b": [0.3, 0.7], "c": [None, 0.8]}
    assert mean_rank([0.2, 0.85], others, (ERROR, SHARE)) == 2
    assert mean_rank([0.1, 0.95], others, (ERROR, SHARE)) == 1
    assert mean_rank([None, 0.85], others, (ERROR, SHARE)) == 2
    assert mean_improvement([0.15, 0.95], [0.3, 0.9], (ERROR, SHARE)) == pytest.approx(0.5)
    assert mean_improvement([None, 0.9], [0.3, 0.9], (ERROR, SHARE)) == 0


def test_networks_are_scored_by_the_test_that_resolves_what_they_leave_open():
    column = find_table("monodepth2_1").columns[0]
    for ambiguity, name in ((Ambiguity.SCALE, "monodepth2_eigen"), (Ambiguity.METRIC, "monodepth2_eigen_metric")):
        assert column.protocol_for(Representation.DISPARITY, ambiguity).name == name
    assert find_table("gp2_3").columns[0].protocol_for(Representation.DISPARITY, Ambiguity.SHIFT_SCALE) is None


def test_shards_are_looked_for_where_the_command_writes_them(tmp_path):
    place = place_of("midas_kitti", tmp_path, 161)
    assert place.folder == tmp_path / "kitti_improved_161"
    assert place.command == f"depthkit shards write kitti_improved RAW {place.folder} --split test --split_file LIST"
    (tmp_path / "kitti_improved").mkdir()
    (tmp_path / "kitti_improved" / "index.json").touch()
    assert place_of("midas_kitti", tmp_path, 161).folder == tmp_path / "kitti_improved"
    assert place_of("gp2_utss_nyu", tmp_path).folder != place_of("midas_nyu", tmp_path).folder
    assert place_of("synthetic_affine", tmp_path) is None
