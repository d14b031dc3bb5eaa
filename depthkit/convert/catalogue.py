"""All datasets that depthkit reads, by name.

A dataset is a module of this folder with a function ``frames(root, split, ...)`` and its facts in ``DATASETS``; it is added
by naming the module here.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType

from depthkit.convert.records.dataset import Dataset
from depthkit.errors import RecipeError

_MODULES = (
    "blendedmvs",
    "ddad",
    "diml",
    "diode",
    "diw",
    "eth3d",
    "hrwsi",
    "hypersim",
    "ibims",
    "irs",
    "kitti_depth",
    "kitti_tests",
    "make3d",
    "megadepth",
    "nyuv2",
    "nyuv2_video",
    "plain",
    "pools",
    "redweb",
    "scannet",
    "sintel",
    "stereo_movie",
    "stereo_pairs",
    "sun_rgbd",
    "tartanair",
    "tum_people",
    "virtual_kitti",
    "wsvd",
)

CATALOGUE: Mapping[str, Dataset] = MappingProxyType(
    {dataset.name: dataset for module in _MODULES for dataset in import_module(f"{__package__}.{module}").DATASETS}
)
"""Every dataset by the name that ``depthkit shards write`` takes."""


def find(name: str) -> Dataset:
    """A dataset by its name.

    Raises:
        RecipeError: there is none.

    >>> find("virtual_kitti").published["train"]
    20148
    """
    name = name.replace("-", "_")
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, 1, 0.5)
        raise RecipeError(
            f"expected a dataset that `depthkit shards write --list` names; got '{name}'. "
            f"{f'Did you mean {near[0]}?' if near else 'For other data use folder.'}"
        )
    return CATALOGUE[name]
