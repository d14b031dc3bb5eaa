"""Which shards a published protocol is meant for, and the command that writes them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

_EIGEN = "kitti_eigen --split test --split_file LIST"
_IMPROVED = "kitti_improved --split test --split_file LIST"
_NYU, _NYU_RAW = "nyuv2 --split test", "nyuv2 --split test --depth raw"
_TUM, _DIW, _MAKE3D = "tum_people --split test", "diw --split test", "make3d --split test"
_ETH3D, _SINTEL, _DIODE = "eth3d --split test", "sintel --split test", "diode --split val"
_HYPERSIM, _VKITTI2, _DDAD = "hypersim --split test", "virtual_kitti --split val", "ddad --split val --projection dgp"
_SCANNET = "scannet --split val --split_file LIST"

_GP2 = {"nyu": _NYU_RAW, "tum": _TUM, "eth3d": "eth3d_gp2 --split test", "sintel": _SINTEL, "sintel_released": _SINTEL}
_RELATIVE = {"kitti": _IMPROVED, "nyu": _NYU, "sintel": _SINTEL, "ddad": _DDAD, "eth3d": _ETH3D, "diode": _DIODE}
_MARIGOLD_FITS = ("", "_disparity", "_disparity_all", "_metric")
_MARIGOLD = {"nyu": _NYU, "kitti": _IMPROVED, "eth3d": _ETH3D, "scannet": _SCANNET, "diode": _DIODE}

TEST_DATA: Mapping[str, str] = MappingProxyType(
    {
        "midas_diw": _DIW,
        "midas_diw_train": "diw --split train",
        "midas_eth3d": _ETH3D,
        "midas_sintel": _SINTEL,
        "midas_kitti": _IMPROVED,
        "midas_nyu": _NYU,
        "midas_tum": _TUM,
        "midas_redweb": "redweb --split val",
        "midas_megadepth": "megadepth --split val",
        "midas_movies": "stereo_movie --split test",
        **{f"gp2_{fit}_{name}": data for fit in ("uts", "utss") for name, data in _GP2.items()},
        "gp2_diw": _DIW,
        **{f"monodepth2_eigen{fit}{size}": _EIGEN for fit in ("", "_metric") for size in ("", "_416", "_1024")},
        **{f"monodepth2_improved{fit}": _IMPROVED for fit in ("", "_one_scale", "_metric")},
        **{f"monodepth2_make3d{fit}": _MAKE3D for fit in ("", "_metric")},
        "monodepth2_benchmark": "kitti_benchmark --split val",
        **{f"depth_anything_{name}{space}": data for name, data in _RELATIVE.items() for space in ("", "_in_depth")},
        "depth_anything_v2_hypersim": "hypersim --split val",
        "depth_anything_v2_vkitti2": _VKITTI2,
        "zoedepth_nyu": _NYU,
        "zoedepth_kitti": _IMPROVED,
        "zoedepth_sun_rgbd": "sun_rgbd --split test",
        **dict.fromkeys(("zoedepth_ibims", "ibims_edges", "ibims_edges_affine"), "ibims --split test"),
        "zoedepth_diode_indoor": "diode_indoor --split val",
        "zoedepth_hypersim": _HYPERSIM,
        "zoedepth_diml_indoor": "diml_indoor --split test",
        "zoedepth_vkitti2": _VKITTI2,
        "zoedepth_ddad": _DDAD,
        "zoedepth_diode_outdoor": "diode_outdoor --split val",
        "zoedepth_kitti_at_392x518": _IMPROVED,
        "zoedepth_vkitti2_at_392x518": _VKITTI2,
        "zoedepth_diode_outdoor_at_392x518": "diode_outdoor --split val",
        **{f"marigold_{name}{fit}": data for name, data in _MARIGOLD.items() for fit in _MARIGOLD_FITS},
    }
)
"""Arguments of ``depthkit shards write`` beside both folders, by the protocol's name; LIST is the authors' list of frames."""


def command_for(protocol: str) -> str | None:
    """Name the command that writes what a protocol is scored on; None if there is no converter for it.

    >>> command_for("gp2_uts_nyu")
    'depthkit shards write nyuv2 ROOT OUT --split test --depth raw'
    """
    if protocol not in TEST_DATA:
        return None
    dataset, _, options = TEST_DATA[protocol].partition(" ")
    return f"depthkit shards write {dataset} ROOT OUT {options}"


class Place(NamedTuple):
    """Where the shards of a test are looked for.

    Attributes:
        folder: of the shards, whether it is there or not.
        split: of them.
        command: that writes them; RAW stands for the dataset's folder, LIST for the authors' list of frames.
    """

    folder: Path
    split: str
    command: str


def place_of(protocol: str, root: str | Path, images: int | None = None) -> Place | None:
    """Find the folder below ``root`` that holds what a protocol is scored on: the dataset's name, with what sets it apart.

    Where several lists of one dataset are in use, a folder that bears their number of images goes first.

    >>> place_of("gp2_uts_nyu", "shards", 654).command
    'depthkit shards write nyuv2 RAW shards/nyuv2_depth_raw --split test --depth raw'
    """
    if protocol not in TEST_DATA:
        return None
    dataset, _, options = TEST_DATA[protocol].partition(" ")
    words = options.split()
    split = words[words.index("--split") + 1]
    named = [(option[2:], value) for option, value in zip(words[::2], words[1::2], strict=True)]
    name = "_".join([dataset, *(f"{option}_{value}" for option, value in named if option not in ("split", "split_file"))])
    listed = "LIST" in words and images is not None
    names = [f"{name}_{images}", name] if listed else [name]
    folder = next((Path(root) / x for x in names if (Path(root) / x / "index.json").is_file()), Path(root) / names[0])
    return Place(folder, split, f"depthkit shards write {dataset} RAW {folder} {options}")
