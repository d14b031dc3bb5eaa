"""``depthkit shards verify | info``; ``write`` is in ``shards_write``."""

import math
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from depthkit.cli.tables import print_table
from depthkit.shards import ShardIndex, SplitInfo
from depthkit.shards import verify as verify_shards
from depthkit.types import Ambiguity, Representation

_NEAR, _FAR = 0.05, 200.0
_METRES: Mapping[Representation, Callable[[float], float]] = {
    Representation.DEPTH: float,
    Representation.DISPARITY: lambda value: 1 / value if value > 0 else math.inf,
    Representation.LOG_DEPTH: math.exp,
    Representation.LOG_DISPARITY: lambda value: math.exp(-value),
}


def range_lines(split: SplitInfo) -> list[str]:
    """Say what a split's labels are and which values they have, and warn of metres that no camera sees."""
    if not split.range:
        return []
    kind, values = split.kind, split.range
    unit = " m" if (kind.ambiguity, kind.representation) == (Ambiguity.METRIC, Representation.DEPTH) else ""
    lines = [f"5, 50 and 95 % of {kind}: {', '.join(f'{x:g}' for x in values)}{unit}"]
    metres = sorted(map(_METRES[kind.representation], values))
    if kind.ambiguity == Ambiguity.METRIC and not _NEAR <= metres[0] <= metres[-1] <= _FAR:
        lines.append(
            f"WARNING: expected labels from {_NEAR:g} to {_FAR:g} m; they reach from {metres[0]:.3g} to {metres[-1]:.3g} m. Is "
            "their unit another? Then write them again with --depth_scale, or what else the dataset has for it."
        )
    return lines


def verify(roots: list[str], *, decode: bool = True, workers: int = 0) -> None:
    """Check that shards are what their index says, and that every sample in them reads.

    Args:
        roots: folders or URLs of shards.
        decode: whether to decode every sample as well.
        workers: processes that share the work; 0 for none but this one.

    Raises:
        ShardError: something is wrong; everything found is printed before.
    """
    console, reports = Console(), []
    for root in roots:
        report = verify_shards(root, decode=decode, workers=workers, progress=True)
        reports.append(report)
        if report.problems:
            print_table(console, f"{root}: {len(report.problems)} problems", ("shard", "sample", "problem"), report.problems)
            continue
        checked = "every sample decodes" if decode else "samples were not decoded"
        found = f"{report.samples} samples in {report.shards} shards are what the index says"
        console.print(f"{root}: {found}; {checked}.", soft_wrap=True)
    for report in reports:
        report.check()


def info(roots: list[str]) -> None:
    """Print what folders or URLs of shards hold.

    Args:
        roots: folders or URLs of shards.

    Raises:
        ShardError: there are none.
    """
    for root in roots:
        _print_index(root)


def _print_index(root: str) -> None:
    index = ShardIndex.load(root)
    table = Table("split", "samples", "shards", "MiB", "label", "views", "intrinsics", "complete", title=index.dataset)
    console, told = Console(), list[str]()
    for name, split in sorted(index.splits.items()):
        size = sum(shard.bytes for shard in split.shards) / 2**20
        facts = [str(split.kind), str(split.views), "yes" if split.intrinsics else "no", "yes" if split.complete else "no"]
        table.add_row(name, str(split.samples), str(len(split.shards)), f"{size:.1f}", *facts)
        told += [f"{name}: {line}" for line in range_lines(split)]
        if split.left_out:
            told.append(f"{name}: {split.left_out} samples of the source were left out")
    console.print(table)
    told += [f"licence: {index.licence or 'not stated'}", f"digest: {index.digest}"]
    console.print("\n".join(told), soft_wrap=True, highlight=False)
