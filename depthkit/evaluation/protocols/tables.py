"""Whole tables of papers: which tests are their columns, whose figures are their rows, how many images were scored.

The figures themselves stand once, with the protocols. A table says which of them are printed together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

from depthkit.errors import RecipeError
from depthkit.evaluation.protocol import Protocol
from depthkit.evaluation.protocols.registry import PROTOCOLS
from depthkit.types import Ambiguity, Representation

_HIGHER = ("delta1", "delta2", "delta3", "boundary_f1")
_MIDAS_NAMES = {
    "midas_v2": "MiDaS v2 (MIX 5, Pareto)",
    "midas_v21": "MiDaS v2.1 large 384",
    "midas_v21_small": "MiDaS v2.1 small 256",
    "dpt_large": "MiDaS v3.0 DPT-L 384",
    "dpt_hybrid": "MiDaS v3.0 DPT-H 384",
    "dpt_beit_large_512": "MiDaS v3.1 BEiT-L-512 at 384",
}
_GP2_NAMES = {
    "gp2_mobilenetv2": "MN-LRN",
    "gp2_lite0": "Lite0-LRN",
    **{f"gp2_b{k}": f"B{k}-LRN" for k in range(6)},
    "midas_v2": "MiDaS v2",
}
_MONODEPTH2_NAMES = {
    f"monodepth2_{name}{scratch}_{size}": row + (" without ImageNet" if scratch else "")
    for name, row in (("mono", "M"), ("stereo", "S"), ("mono_stereo", "MS"))
    for scratch, size in (("", "640x192"), ("_no_pt", "640x192"))
} | {"monodepth2_mono_resnet50_640x192": "M, ResNet-50"}
_LARGE_NAMES = {f"monodepth2_{name}_1024x320": row for name, row in (("mono", "M"), ("stereo", "S"), ("mono_stereo", "MS"))}
_ANYTHING_NAMES = {
    **{f"depth_anything_v1_{size}": f"Depth Anything {size[0].upper()}" for size in ("small", "base", "large")},
    "dpt_beit_large_512": "MiDaS v3.1 BEiT-L",
    "depth_anything_v1_metric_indoor": "Depth Anything L",
    "depth_anything_v1_metric_outdoor": "Depth Anything L",
}
_ZOE_NAMES = {"zoedepth_n": "ZoeD-M12-N", "zoedepth_k": "ZoeD-M12-K", "zoedepth_nk": "ZoeD-M12-NK"}
_UNLABELLED = ("L, unlabelled images unperturbed", "L, unlabelled images perturbed")
_UNSEEN = {  # images of ZoeDepth's table 7
    "sun_rgbd": 5050, "ibims": 100, "diode_indoor": 325, "hypersim": 7690,
    "vkitti2": 1701, "ddad": 3950, "diml_outdoor": 500, "diode_outdoor": 446,
}  # fmt: skip
_MARIGOLD_NAMES = {"marigold_v1_0": "Marigold, 50 steps, ensemble of 10", "marigold_e2e_ft": "Marigold + E2E fine-tuning"}


def higher_is_better(metric: str) -> bool:
    """Tell whether larger numbers of a metric are better, those of shares of pixels that are right.

    Example:
        >>> higher_is_better("delta1"), higher_is_better("delta1_error")
        (True, False)
    """
    return metric in _HIGHER


@dataclass(frozen=True)
class Column:
    """One number of a table.

    Attributes:
        label: its head.
        protocols: names of tests that print it, see ``protocol_for``.
        metric: of the protocol.
        images: how many the paper scored; None where it does not say.
    """

    label: str
    protocols: tuple[str, ...]
    metric: str
    images: int | None = None

    @property
    def higher_is_better(self) -> bool:
        """Whether larger numbers are better: of shares of pixels that are right."""
        return higher_is_better(self.metric)

    @property
    def figures(self) -> dict[str, float]:
        """The paper's numbers by row."""
        found = {row: x for name in self.protocols for row, x in PROTOCOLS[name].published.items()}
        return {row: figures[self.metric] for row, figures in found.items() if self.metric in figures}

    def protocol_for(self, representation: Representation, ambiguity: Ambiguity) -> Protocol | None:
        """Find the test for networks with such predictions; None if none of them resolves what they leave open.

        Of several, metres are scored by one that fits nothing: a paper scores its stereo models as they predict.
        """
        fitting = [PROTOCOLS[name] for name in self.protocols if _resolves(PROTOCOLS[name], representation, ambiguity)]
        if ambiguity == Ambiguity.METRIC:
            fitting.sort(key=lambda protocol: protocol.alignment is not None)
        return next(iter(fitting), None)


def _resolves(protocol: Protocol, representation: Representation, ambiguity: Ambiguity) -> bool:
    try:
        protocol.check_prediction(representation, ambiguity)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        name: the paper and the table's number.
        source: in words.
        columns: its numbers.
        rows: the paper's rows that are printed; empty for all that have a figure in each column.
        models: row of each network of ``PUBLISHED``, by its name.
        reference: row that relative improvements refer to; empty for each network's own row.
        relative: whether the numbers are printed as changes against the reference, in per cent.
    """

    name: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    relative: bool = False

    @property
    def figures(self) -> dict[str, list[float | None]]:
        """The paper's numbers: a row of one per column, None where the paper has none."""
        found = [column.figures for column in self.columns]
        names = self.rows or tuple(dict.fromkeys(row for figures in found for row in figures))
        rows = {row: [figures.get(row) for figures in found] for row in names}
        return {row: values for row, values in rows.items() if any(x is not None for x in values)}


def mean_rank(ours: Sequence[float | None], others: Mapping[str, Sequence[float | None]], columns: Sequence[Column]) -> float:
    """Mean over columns of the place among the paper's rows, 1 for the best; equal numbers share the better place.

    Columns without a number of ours do not count; NaN without any.
    """
    places = []
    for index, (value, column) in enumerate(zip(ours, columns, strict=True)):
        if value is not None:
            sign = -1 if column.higher_is_better else 1
            rivals = [row[index] for row in others.values()]
            places.append(1 + sum(x is not None and sign * x < sign * value for x in rivals))
    return sum(places) / len(places) if places else float("nan")


def mean_improvement(ours: Sequence[float | None], reference: Sequence[float | None], columns: Sequence[Column]) -> float:
    """Mean over columns of how much smaller an error is than the reference's, as a fraction of that one.

    Of a share of right pixels the error is what is missing to 1. NaN without a column that both have.
    """
    gains = []
    for value, theirs, column in zip(ours, reference, columns, strict=True):
        if value is not None and theirs is not None:
            error, other = (1 - value, 1 - theirs) if column.higher_is_better else (value, theirs)
            gains.append(1 - error / other if other else float("nan"))
    return sum(gains) / len(gains) if gains else float("nan")


def _columns(metric: str | Sequence[str], **tests: tuple[str | tuple[str, ...], int | None]) -> tuple[Column, ...]:
    """Columns of several tests, each with one metric of all or its metrics in turn."""
    metrics = (metric,) if isinstance(metric, str) else tuple(metric)
    several = len(metrics) > 1
    return tuple(
        Column(f"{label} {name}" if several else label, (protocol,) if isinstance(protocol, str) else protocol, name, images)
        for label, (protocol, images) in tests.items()
        for name in metrics
    )


def _midas() -> Iterator[Table]:
    paper = "Ranftl et al., TPAMI 2022"

    def columns(diw: str, count: int) -> tuple[Column, ...]:
        return (
            *_columns("whdr", DIW=(diw, count)),
            *_columns("abs_rel", ETH3D=("midas_eth3d", 454), Sintel=("midas_sintel", 1064)),
            *_columns("delta1_error", KITTI=("midas_kitti", 161), NYU=("midas_nyu", 654), TUM=("midas_tum", 1815)),
        )

    best = "MiDaS v2 (MIX 5, Pareto)"
    rows = tuple(PROTOCOLS["midas_diw"].published)
    for number, note in (("10", "relative to its first row"), ("11", "absolute")):
        yield Table(
            f"midas_{number}", f"{paper}, table {number} ({note}), and later releases", columns("midas_diw", 74441), rows,
            _MIDAS_NAMES, best, number == "10",
        )  # fmt: skip
    train = columns("midas_diw_train", 10000)
    every = tuple(PROTOCOLS["midas_diw_train"].published)
    for number, words in (("4", ("ReDWeb",)), ("7", ("ReDWeb", "naive")), ("9", ("ReDWeb", "Pareto"))):
        chosen = tuple(row for row in every if row == "ReDWeb" or any(word in row for word in words[1:] or words))
        yield Table(f"midas_{number}", f"{paper}, table {number}", train, chosen, reference="ReDWeb")


def _gp2() -> Iterator[Table]:
    paper = "Romanov et al., arXiv 2009.12419"
    pairs = _columns("whdr", DIW=("gp2_diw", 74441))
    for number, fit in (("3", "uts"), ("4", "uts"), ("5", "utss")):
        columns = (
            *_columns("delta1_error", NYU=(f"gp2_{fit}_nyu", 654), TUM=(f"gp2_{fit}_tum", 1815)),
            *_columns("abs_rel", ETH3D=(f"gp2_{fit}_eth3d", 454), Sintel=(f"gp2_{fit}_sintel_released", 1045)),
            *pairs,
        )
        rows = tuple(PROTOCOLS[f"gp2_{fit}_tum"].published)
        if number == "4":
            rows = tuple(row for row in rows if row.startswith(("MN-LRN", "Lite0-LRN")))
        elif number == "3":
            rows = tuple(row for row in rows if "only" not in row)
        yield Table(f"gp2_{number}", f"{paper}, table {number}", columns, rows, _GP2_NAMES)
    yield Table(
        "gp2_2", f"{paper}, table 2 (trained on NYU)", _columns(("delta1_error", "abs_rel", "log10"), NYU=("gp2_uts_nyu", 654)),
        tuple(row for row in PROTOCOLS["gp2_uts_nyu"].published if "trained on NYU" in row),
    )  # fmt: skip


_STEPS = ("baseline", "minimum reprojection", "automask", "full-resolution", "SSIM", "predicted mask", "full Eigen")
_POSES = ("pose encoder", "PoseCNN")


def _monodepth2() -> Iterator[Table]:
    video, both = ("monodepth2_eigen",), ("monodepth2_eigen", "monodepth2_eigen_metric")
    make3d = ("monodepth2_make3d", "monodepth2_make3d_metric")
    improved = ("monodepth2_improved", "monodepth2_improved_metric")
    large, small = (tuple(f"{name}_{width}" for name in both) for width in (1024, 416))
    for number, tests, images, models in (
        ("1", both, 697, _MONODEPTH2_NAMES),
        ("1_1024", large, 697, _LARGE_NAMES),
        ("2", video, 697, _MONODEPTH2_NAMES),
        ("3", make3d, 134, _MONODEPTH2_NAMES),
        ("6", video, 697, _MONODEPTH2_NAMES),
        ("7", improved, 652, _MONODEPTH2_NAMES),
        ("8", ("monodepth2_improved_one_scale",), 652, _MONODEPTH2_NAMES),
        ("9", ("monodepth2_benchmark",), 500, _MONODEPTH2_NAMES),
        ("10", both, 697, _MONODEPTH2_NAMES),
        ("10_1024", large, 697, _LARGE_NAMES),
        ("11_416", small, 697, {}),
        ("12", video, 697, _MONODEPTH2_NAMES),
    ):
        columns = tuple(Column(metric, tests, metric, images) for metric in PROTOCOLS[tests[0]].metrics)
        printed = tuple(dict.fromkeys(row for name in tests for row in PROTOCOLS[name].published))
        table, _, _ = number.partition("_")
        rows = tuple(row for row in printed if _in_table_of_monodepth2(table, row, printed))
        yield Table(f"monodepth2_{number}", f"Godard et al., ICCV 2019, table {table}", columns, rows, models)


def _in_table_of_monodepth2(table: str, row: str, printed: Sequence[str]) -> bool:
    """Tell whether a table prints a row: 2 and 6 the steps, 6 the encoders, 10 the flip, 12 pose networks, 1 none of these."""
    plain = row.removesuffix(" + flip")
    of_steps, of_poses, of_encoders = (
        row.startswith(("M,", "M with")) and any(word in row for word in words) for words in (_STEPS, _POSES, ("ResNet",))
    )
    anchors = ("M", "M without ImageNet")
    return {
        "1": not (of_steps or of_poses or of_encoders or (row.startswith(("M", "S")) and plain != row)),
        "2": (of_steps and "SSIM" not in row and "ImageNet or" not in row) or row in anchors,
        "6": (of_steps and not any(part in row for part in ("full Eigen", "baseline +"))) or of_encoders or row in anchors,
        "10": plain in printed and f"{plain} + flip" in printed,
        "12": of_poses or row in anchors,
    }.get(table, True)


def _depth_anything() -> Iterator[Table]:
    paper, both = "Yang et al., CVPR 2024", ("abs_rel", "delta1")
    counts = {"kitti": 652, "nyu": 654, "sintel": 1064, "ddad": None, "eth3d": 454, "diode": 771}
    sets = {name: (f"depth_anything_{name}", count) for name, count in counts.items()}
    rows = tuple(row for row in PROTOCOLS["depth_anything_nyu"].published if row.startswith(("MiDaS", "Depth Anything")))
    yield Table("depth_anything_2", f"{paper}, table 2", _columns(both, **sets), rows, _ANYTHING_NAMES, rows[0])
    alone = tuple(row for row in PROTOCOLS["depth_anything_nyu"].published if row.startswith("L, ") and "unlabelled" not in row)
    yield Table("depth_anything_6", f"{paper}, table 6", _columns(both, **sets), alone)
    for number, chosen in (
        ("9", ("L, labelled images only", *_UNLABELLED, "Depth Anything L")),
        ("12", ("S, margin 1.00", "Depth Anything S", "S, margin 0.70")),
        ("13", ("S, no feature alignment", "Depth Anything S", "S, feature alignment on labelled images")),
    ):
        yield Table(
            f"depth_anything_{number}", f"{paper}, table {number}", _columns("abs_rel", **sets), chosen, _ANYTHING_NAMES
        )
    names = _ANYTHING_NAMES | dict.fromkeys(("zoedepth_n", "zoedepth_k"), "ZoeDepth (reproduced by Yang et al.)")
    for number, name, count in (("3", "nyu", 654), ("4", "kitti", 652)):
        metrics = tuple(PROTOCOLS[f"zoedepth_{name}"].metrics)
        printed = PROTOCOLS[f"zoedepth_{name}"].published
        rows = tuple(row for row in printed if "ZoeD-" not in row and "encoder" not in row)
        columns = tuple(Column(metric, _of_yang(name), metric, count) for metric in metrics)
        yield Table(f"depth_anything_{number}", f"{paper}, table {number}", columns, rows, names)
    pair = _columns(both, nyu=("zoedepth_nyu", 654), kitti=(_of_yang("kitti"), 652))
    for number, encoder in (("10", "encoder of MiDaS v3.1"), ("11", "encoder of DINOv2")):
        yield Table(f"depth_anything_{number}", f"{paper}, table {number}", pair, (encoder, "Depth Anything L"), names, encoder)
    unseen = {name: _UNSEEN[name] for name in ("sun_rgbd", "ibims", "hypersim", "vkitti2", "diode_outdoor")}
    both_rows = ("ZoeDepth (reproduced by Yang et al.)", "Depth Anything L")
    yield Table(
        "depth_anything_5", f"{paper}, table 5",
        _columns(both, **{name: (_of_yang(name), count) for name, count in unseen.items()}), both_rows, names, both_rows[0],
    )  # fmt: skip


def _of_yang(name: str) -> tuple[str, ...]:
    """Name the test by their command first, then the one that prints their figures."""
    return tuple(test for test in (f"zoedepth_{name}_at_392x518", f"zoedepth_{name}") if test in PROTOCOLS)


def _is_yangs(row: str) -> bool:
    return "Yang" in row or "Anything" in row or row.startswith("encoder of")


def _zoedepth() -> Iterator[Table]:
    paper = "Bhat et al., arXiv 2302.12288"
    theirs = tuple(row for row in PROTOCOLS["zoedepth_nyu"].published if not _is_yangs(row))
    columns = tuple(Column(metric, ("zoedepth_nyu",), metric, 654) for metric in PROTOCOLS["zoedepth_nyu"].metrics)
    yield Table("zoedepth_1", f"{paper}, table 1", columns, theirs, _ZOE_NAMES)
    indoor = ("sun_rgbd", "ibims", "diode_indoor", "hypersim")
    outdoor = ("vkitti2", "ddad", "diml_outdoor", "diode_outdoor")
    for number, sets in (("3", indoor), ("4", outdoor)):
        tests = {name: (f"zoedepth_{name}", _UNSEEN[name]) for name in sets}
        first = PROTOCOLS[f"zoedepth_{sets[0]}"].published
        rows = tuple(row for row in first if not _is_yangs(row))
        yield Table(
            f"zoedepth_{number}", f"{paper}, table {number}", _columns(("delta1", "abs_rel", "rmse"), **tests), rows, _ZOE_NAMES
        )


def _marigold() -> Iterator[Table]:
    counts = {"nyu": 654, "kitti": 652, "eth3d": 454, "scannet": 800, "diode": 771}
    sets = {name: (f"marigold_{name}", count) for name, count in counts.items()}
    source = "Ke et al., CVPR 2024, table 1, with the figures of Martin Garcia et al., WACV 2025"
    yield Table("marigold_1", source, _columns(("abs_rel", "delta1"), **sets), (), _MARIGOLD_NAMES)
    open_in_disparity = {name: (f"marigold_{name}_disparity", count) for name, count in counts.items()}
    yield Table(
        "marigold_disparity", f"{source}; fitted in disparity, without figures", _columns("abs_rel", **open_in_disparity)
    )


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        table.name: table
        for tables in (_midas(), _gp2(), _monodepth2(), _depth_anything(), _zoedepth(), _marigold())
        for table in tables
    }
)
"""The tables that ``depthkit benchmark`` prints, by name."""


def find_table(name: str) -> Table:
    """Return the table of that name.

    Raises:
        RecipeError: there is none; names the nearest.
    """
    if name not in TABLES:
        near = ", ".join(get_close_matches(name, TABLES, 3, 0.3))
        raise RecipeError(f"expected a table among {', '.join(TABLES)}; got {name!r}.{f' Near it: {near}.' if near else ''}")
    return TABLES[name]


def images_of(protocol: str) -> int | None:
    """Tell how many images the papers scored under a protocol; None where they do not say, or tables differ.

    Example:
        >>> images_of("midas_nyu"), images_of("synthetic_affine")
        (654, None)
    """
    counts = {column.images for table in TABLES.values() for column in table.columns if protocol in column.protocols}
    return counts.pop() if len(counts) == 1 else None
