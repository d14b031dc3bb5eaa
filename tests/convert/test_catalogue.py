"""Laws of the catalogue: every entry is complete, has a test that writes its tree, and opens or refuses in a sentence."""

from pathlib import Path

import pytest

from depthkit.cli import shards_write
from depthkit.convert.catalogue import CATALOGUE, find
from depthkit.convert.records.dataset import Dataset
from depthkit.errors import DepthKitError, RecipeError

ENTRIES = [pytest.param(dataset, id=name) for name, dataset in CATALOGUE.items()]
READ = [entry for entry in ENTRIES if not entry.values[0].rendered]
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("dataset", ENTRIES)
def test_an_entry_states_everything_and_names_a_test_that_exists(dataset: Dataset):
    for fact in ("layout", "unit", "invalid", "sky", "camera", "source", "splits", "test"):
        assert getattr(dataset, fact), fact
    assert (REPOSITORY / dataset.test).is_file()
    assert dataset.licence or dataset.source == "depthkit"


@pytest.mark.parametrize("dataset", READ)
@pytest.mark.parametrize("place", ["missing", "empty", "archive.zip"])
def test_nothing_an_empty_folder_and_an_archive_are_refused_in_one_sentence_that_names_them(dataset, place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "archive.zip").write_bytes(b"PK\x03\x04")
    options = {name: str(tmp_path / "list.txt") for name, option in dataset.options.items() if option.default is option.empty}
    (tmp_path / "list.txt").write_text("2011_09_26/2011_09_26_drive_0001_sync 5 l\n")
    with pytest.raises(DepthKitError, match="expected ") as error:
        dataset.open(str(tmp_path / place), next(iter(dataset.published), None), options)
    assert place in str(error.value)


def test_unknown_names_options_and_splits_are_answered_with_the_known_ones(tmp_path):
    with pytest.raises(RecipeError, match=r"got 'virtual_kiti'. Did you mean virtual_kitti"):
        find("virtual_kiti")
    with pytest.raises(RecipeError, match=r"options of dataset virtual_kitti: benchmark_crop, variations; got scale. Leave"):
        find("virtual_kitti").open(str(tmp_path), "train", {"scale": 2})
    with pytest.raises(RecipeError, match=r"split of dataset virtual_kitti to be train or val; got test"):
        find("virtual_kitti").open(str(tmp_path), "test", {})


@pytest.mark.parametrize("dataset", ENTRIES)
def test_a_function_is_named_after_its_dataset_and_its_help_fits_a_screen(dataset: Dataset, capsys):
    shared = {"pools": "a pool of images", "SyntheticScenes": "the renderer"}  # one function of many datasets, or of no folder
    assert dataset.read.__name__ in {dataset.name, *shared}
    with pytest.raises(SystemExit):
        shards_write.command([dataset.name, "--help"])
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 40
    assert all(f"--{name} " in out for name in dataset.options if name not in ("sky", "flow"))
