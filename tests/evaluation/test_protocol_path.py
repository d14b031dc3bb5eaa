"""Protocols of one's own, by their path."""

import sys
from types import SimpleNamespace

import pytest

from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, find_protocol

INDOOR = PROTOCOLS["midas_nyu"]


def test_a_protocol_is_found_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mylab", SimpleNamespace(INDOOR=INDOOR, NUMBER=3))
    assert find_protocol("mylab.INDOOR") is INDOOR
    with pytest.raises(RecipeError, match=r"expected a Protocol at mylab\.NUMBER; it is a int"):
        find_protocol("mylab.NUMBER")


@pytest.mark.parametrize("path", ["mylab_of_nobody.INDOOR", "depthkit.evaluation.OUTDOOR"])
def test_what_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(RecipeError, match=rf"expected a Protocol at {path}; it cannot be imported .* PYTHONPATH"):
        find_protocol(path)
