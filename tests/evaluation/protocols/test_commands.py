"""Commands that are printed where shards are missing are commands of the present version."""

import shlex

import pytest

from depthkit.cli.shards_write import parsed
from depthkit.evaluation import TABLES
from depthkit.evaluation.protocols.benchmark_data import TEST_DATA, command_for, place_of

PRINTED = sorted(
    {
        place.command
        for table in TABLES.values()
        for column in table.columns
        for name in column.protocols
        if (place := place_of(name, "shards root", column.images))
    }
    | {str(command_for(name)) for name in TEST_DATA}
)


@pytest.mark.parametrize("command", PRINTED)
def test_a_printed_command_is_understood(command):
    program, group, verb, *words = shlex.split(command.replace("shards root", "shards"))
    assert (program, group, verb) == ("depthkit", "shards", "write")
    given = parsed(words)
    assert given["dataset"] == words[0]
    assert given["split"] == words[words.index("--split") + 1]
