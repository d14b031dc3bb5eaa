from enum import StrEnum

import numpy as np
import pytest
import torch

from depthkit.checks import check_choice, optional_import
from depthkit.errors import MissingPackageError, RecipeError, ShapeError
from depthkit.losses.functional import ssi_loss
from depthkit.metrics import AbsRel
from depthkit.metrics.functional import abs_rel

MAPS = {"pred": torch.rand(1, 1, 4, 6), "target": torch.rand(1, 1, 4, 6), "valid": torch.ones(1, 1, 4, 6, dtype=torch.bool)}


@pytest.mark.parametrize("function", [abs_rel, ssi_loss, AbsRel().update], ids=["metric", "loss", "class"])
@pytest.mark.parametrize("name", MAPS)
def test_an_array_of_another_library_is_named_with_the_remedy(function, name):
    maps = [np.asarray(x) if key == name else x for key, x in MAPS.items()]
    with pytest.raises(ShapeError, match=rf"expected {name} as a torch.Tensor; got ndarray. Pass torch.as_tensor"):
        function(*maps)


class Fruit(StrEnum):
    APPLE = "apple"
    PEAR = "pear"


def test_a_choice_is_returned_as_its_member_and_others_are_named() -> None:
    assert check_choice("fruit", "pear", Fruit) is Fruit.PEAR
    with pytest.raises(RecipeError, match="expected fruit to be one of apple, pear; got 'plum'"):
        check_choice("fruit", "plum", Fruit)


def test_a_missing_package_names_the_extra_that_installs_it() -> None:
    assert optional_import("json.decoder", "clouds").JSONDecoder
    with pytest.raises(MissingPackageError, match=r"no_such_package; .*pip install 'depthkit\[clouds\]'"):
        optional_import("no_such_package.part", "clouds")
