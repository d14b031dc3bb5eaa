import numpy as np
import pytest
import torch

from depthkit.errors import ShapeError
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
