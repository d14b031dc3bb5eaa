"""``depthkit shards verify | info``; ``write`` is in ``shards_write``."""

from rich.console import Console
from rich.table import Table

from depthkit.cli.tables import print_table
from depthkit.shards import ShardIndex
from depthkit.shards import verify as verify_shards


def verify(root: str, decode: bool = True, workers: int = 0) -> None:
    """Check that shards are what their index says, and that every sample in them reads.

    Args:
        root: folder or URL of the shards.
        decode: whether to decode every sample as well.
        workers: processes that share the work; 0 for none but this one.

    Raises:
        ShardError: something is wrong; everything found is printed before.
    """
    report = verify_shards(root, decode=decode, workers=workers, progress=True)
    console = Console()
    if report.problems:
        print_table(console, f"{root}: {len(report.problems)} problems", ("shard", "sample", "problem"), report.problems)
        report.check()
    checked = "every sample decodes" if decode else "samples were not decoded"
    console.print(
        f"{root}: {report.samples} samples in {report.shards} shards are what the index says; {checked}.", soft_wrap=True
    )


def info(root: str) -> None:
    """Print what a folder or URL of shards holds.

    Args:
        root: folder or URL of the shards.

    Raises:
        ShardError: there are none.
    """
    index = ShardIndex.load(root)
    table = Table("split", "samples", "shards", "MiB", "label", "views", "intrinsics", "complete", title=index.dataset)
    console, told = Console(), list[str]()
    for name, split in sorted(index.splits.items()):
        size = sum(shard.bytes for shard in split.shards) / 2**20
        facts = [str(split.kind), str(split.views), "yes" if split.intrinsics else "no", "yes" if split.complete else "no"]
        table.add_row(name, str(split.samples), str(len(split.shards)), f"{size:.1f}", *facts)
        if split.range:
            told.append(f"{name}: 5, 50 and 95 % of {split.kind}: {', '.join(f'{x:g}' for x in split.range)}")
        if split.left_out:
            told.append(f"{name}: {split.left_out} samples of the source were left out")
    console.print(table)
    told += [f"licence: {index.licence or 'not stated'}", f"digest: {index.digest}"]
    console.print("\n".join(told), soft_wrap=True, highlight=False)
