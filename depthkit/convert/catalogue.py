"""All datasets that depthkit reads, by name.

A dataset is a function ``NAME(root, split, ...)`` in a module of this folder, and its facts in the module's ``DATASETS``; it
is added by naming the module here. A dataset of somebody else's is named by its function, ``package.module:function``.
"""

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType

from depthkit.checks import first_line
from depthkit.convert.records.dataset import Dataset
from depthkit.errors import RecipeError

_MODULES = (
    "blendedmvs",
    "ddad",
    "diml_indoor",
    "diode",
    "diw",
    "eth3d",
    "folder",
    "hrwsi",
    "hypersim",
    "ibims",
    "irs",
    "kitti_depth",
    "kitti_raw",
    "kitti_tests",
    "make3d",
    "megadepth",
    "nyuv2",
    "nyuv2_raw",
    "pools",
    "redweb",
    "rendered",
    "scannet",
    "sintel",
    "stereo_movie",
    "stereo_pairs",
    "sun_rgbd",
    "tartanair",
    "tum",
    "tum_people",
    "video",
    "virtual_kitti",
    "wsvd",
)

CATALOGUE: Mapping[str, Dataset] = MappingProxyType(
    {dataset.name: dataset for module in _MODULES for dataset in import_module(f"{__package__}.{module}").DATASETS}
)
"""Every dataset by the name that ``depthkit shards write`` takes."""


def find(name: str) -> Dataset:
    """Find a dataset by its name, or somebody else's by ``package.module:name`` of its function or its ``Dataset``.

    Raises:
        RecipeError: there is none.

    >>> find("virtual_kitti").published["train"]
    20148
    """
    if ":" in name:
        return _elsewhere(name)
    name = name.replace("-", "_")
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, 1, 0.5)
        raise RecipeError(
            f"expected a dataset that `depthkit shards write --list` names, or package.module:function; got '{name}'. "
            f"{f'Did you mean {near[0]}?' if near else 'For other data use folder.'}"
        )
    return CATALOGUE[name]


def _elsewhere(name: str) -> Dataset:
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a script beside the data, as `python -m` would find it
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"expected a function from a folder to samples at {name}; {first_line(error)}. "
            "Give package.module:function, and run the command where Python finds the package."
        ) from error
    if isinstance(found, Dataset):
        return found
    if not callable(found):
        raise RecipeError(f"expected a function from a folder to samples at {name}; got {type(found).__name__}.")
    return Dataset(attribute, found)
