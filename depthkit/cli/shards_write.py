"""``depthkit shards write DATASET ROOT OUT``: the options are those of the dataset's own function, and ``write``'s."""

import re
from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Iterable, Sequence, Sized
from enum import Enum
from inspect import signature
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from rich.console import Console
from rich.table import Table

from depthkit.cli.arguments import gathered, usage_error
from depthkit.cli.shards import range_lines
from depthkit.cli.tables import print_table
from depthkit.convert.catalogue import CATALOGUE, find
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.sky import Sky, WithSky
from depthkit.errors import RecipeError
from depthkit.shards import DepthFormat, Part, ShardIndex, WriteReport, write_shards
from depthkit.shards.images import ImageFormat
from depthkit.types import Sample, Views

_SPREAD = 16  # shards that a small dataset is spread over, so that several workers and ranks can share them
_LARGEST = 1000  # samples per shard
_USAGE = """usage: depthkit shards write DATASET ROOT OUT [options]

Turn a dataset into shards. The same command continues after an interruption.

  DATASET   a name that `depthkit shards write --list` prints, or package.module:function of your own
  ROOT      folder (or file) of the source; - for synthetic
  OUT       folder of the shards

`depthkit shards write DATASET --help` describes the options of a dataset.
"""


def command(arguments: Sequence[str]) -> None:
    """Run ``depthkit shards write`` with the words behind it.

    Raises:
        DepthKitError: a word is not understood, or the source or the disk does not allow it.
    """
    if arguments[:1] == ["--list"]:
        datasets()
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
    else:
        write(**parsed(arguments))


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn the words behind ``depthkit shards write`` into arguments of ``write``.

    Raises:
        RecipeError: the dataset or a word is not understood.
    """
    known = find(arguments[0])
    read = known.read
    options = read.__init__ if isinstance(read, type) else read  # type: ignore[misc]  # a class is called as its method
    try:
        chosen = _parser(arguments[0], known).parse_args(gathered(write, arguments[1:], options))
    except ArgumentError as error:
        raise usage_error(error, f"shards write {arguments[0]}") from error
    return {"dataset": arguments[0], **chosen.as_dict()}


def write(
    dataset: str,
    root: str,
    out: str,
    *,
    split: str | None = None,
    name: str | None = None,
    licence: str = "",
    sky: str | None = None,
    depth_format: DepthFormat | str | None = None,
    image_format: ImageFormat | str | None = None,
    samples_per_shard: int | None = None,
    workers: int = 0,
    part: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Turn a dataset into shards. The same command continues after an interruption.

    Args:
        dataset: a name of the catalogue, or ``package.module:function``.
        root: folder (or file) of the source; ``-`` for synthetic.
        out: folder of the shards.
        split: which to write; of a dataset with published splits, one of them. Default: train, or its only one.
        name: of the dataset. Default: that of the source's folder, or of a published dataset.
        licence: of the data. Default: what its authors state.
        sky: model of transformers (folder or hub id) that marks unlabelled sky as infinitely far.
        depth_format: png_log16, png_linear16 (keeps millimetres) or npy (float32). Default: the dataset's.
        image_format: jpg or png, for images without a JPEG or WebP file of their own. Default: the dataset's.
        samples_per_shard: at most this many. Default: 1000, or fewer so that there are 16 shards.
        workers: processes that make samples; 0 for none but this one.
        part: k/n writes the k-th of n parts, one job each; the last one completes the index.
        overwrite: replace what the split holds.
        options: of the dataset's own function. A ``holdout`` above 0 writes that fraction, the end of the sequence, as
            ``test`` and the rest as ``train``, unless the dataset has splits of its own.

    Raises:
        DepthKitError: the source or the disk does not allow it.
    """
    known = find(dataset)
    if sky is not None and known.rendered:
        raise RecipeError("expected a dataset whose sky is to be found; rendered scenes know theirs. Leave --sky out.")
    if part and overwrite:
        raise RecipeError("expected part or overwrite; got both. Remove what is to be replaced, for parts do not wait for it.")
    finder = None if sky is None else _finder(sky)
    asks = "sky" in known.options  # its labels are made with the sky in mind
    given = known.complete(options | ({"sky": finder} if asks else {}))
    published = bool(known.published)  # has splits of its own
    split = split or (next(iter(known.published)) if len(known.published) == 1 else "train")
    halves = ("train", "test") if given.get("holdout") and not published else (split if published else None,)
    for half in halves:
        source: Any = known.open(root, half, given)
        source = WithSky(source, finder) if finder and not asks else source
        target = half or split
        stored: dict[str, Any] = {
            "dataset": name or (known.name if published else _name(Path(out if known.rendered else root))),
            "licence": licence or known.licence,
            "depth_format": depth_format or known.depth_format,
            "image_format": image_format or known.image_format,
            "samples_per_shard": samples_per_shard or _per_shard(source),
        }
        place = "-" if known.rendered else str(Path(root).resolve())
        shaping = {option: getattr(value, "__qualname__", value) for option, value in given.items()}  # a function by its name
        manifest = {"converter": dataset, "source": place, **shaping, "sky": sky}
        how: dict[str, Any] = {
            "split": target,
            "manifest": manifest,
            "originals": None if known.rendered else getattr(source, "root", root),
            "workers": workers,
            "progress": True,
            **stored,
        }
        here = Part.parse(part) if part else None
        report = write_shards(source, out, part=here, overwrite=overwrite, resume=not overwrite, **how)
        _print_written(out, target, report, getattr(source, "notes", ()))


def datasets() -> None:
    """Print every dataset that ``write`` reads: its converter, what its labels are, what was checked, its published size."""
    table = Table("dataset", "converter", "label", "test tree", "real", "published samples", title="datasets")
    for name, entry in sorted(CATALOGUE.items()):
        module = entry.read.__module__.rpartition(".")[2]
        test = Path(entry.test).stem
        table.add_row(name, module, str(entry.kind or "as the files say"), test, "yes" if entry.real else "no", entry.counts)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


class _Terse(DefaultHelpFormatter):
    """One line for an option where it fits: its words, and its default if it has one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=25, width=max(120, get_terminal_size().columns))

    def _get_help_string(self, action: Action) -> str:
        shown = "" if action.default in (None, False, "", SUPPRESS) else f" (default: {action.default})"
        return f"{action.help or ''}{' (required)' if action.required and action.option_strings else shown}".replace("%", "%%")

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return str(action.metavar or action.dest)
        return action.option_strings[-1 if action.nargs == 0 else 0]


def _parser(dataset: str, known: Dataset) -> ArgumentParser:
    """Make the parser of one dataset from the signatures of its function and of ``write``."""
    parser = ArgumentParser(
        usage=f"depthkit shards write {dataset} ROOT OUT [options]",
        description=f"ROOT holds: {known.layout or 'what the function says'}.",
        formatter_class=_Terse,
        exit_on_error=False,
    )
    parser.add_argument("root", metavar="ROOT", help="folder (or file) of the source; - for synthetic")
    parser.add_argument("out", metavar="OUT", help="folder of the shards")
    add = parser.add_class_arguments if isinstance(known.read, type) else parser.add_function_arguments
    first = next(iter(signature(known.read).parameters))
    skip: set[str | int] = {"split", "sky", "flow"} if known.rendered else {first, "split", "sky", "flow"}
    add(known.read, skip=skip)
    parser.add_function_arguments(write, skip={"dataset", "root", "out", "options"})
    members = {name: option.default for name, option in known.options.items() if isinstance(option.default, Enum)}
    parser.set_defaults({name: member.value for name, member in members.items()})
    return parser


def _finder(model: str) -> Sky:
    """Load the model that finds the sky; the networks' packages are imported for it alone."""
    from depthkit.cli.sky import SkyFinder

    return SkyFinder(model).ready()


def _per_shard(source: Iterable[Sample]) -> int:
    """Spread a small dataset over several shards."""
    return max(1, min(_LARGEST, -(-len(source) // _SPREAD))) if isinstance(source, Sized) else _LARGEST


def _name(root: Path) -> str:
    return root.stem if root.is_file() else root.resolve().name


def _print_written(out: str, split: str, report: WriteReport, notes: Sequence[str]) -> None:
    console = Console()
    for note in notes:
        console.print(f"Note: {note}.", soft_wrap=True, highlight=False, markup=False)
    size, shards = sum(shard.bytes for shard in report.shards) / 2**20, len(report.shards)
    if report.complete and not report.samples:
        console.print(f"{out}: split '{split}' is complete.", soft_wrap=True)
    else:
        console.print(f"{out}: {report.samples} samples in {shards} shards of split '{split}', {size:.1f} MiB", soft_wrap=True)
    if report.skipped:
        console.print(f"{report.skipped} samples were there already.")
    if not report.complete:
        console.print(f"{report.finished} of {report.planned} shards are finished; the last part completes the index.")
    else:
        written = ShardIndex.load(out).split(split)
        for line in range_lines(written) or [f"labels: {written.kind}"]:
            console.print(line, soft_wrap=True, highlight=False)
        if written.views != Views.SINGLE and not written.intrinsics:
            console.print("Some samples are without intrinsics: give them, or train with a camera that is learned.")
    if report.rejects:
        reasons: dict[str, list[str]] = {}
        first: dict[str, str] = {}
        for name, reason in report.rejects:
            alike = re.sub(r"\S*(/|\d)\S*", "", reason)  # names and numbers apart
            first.setdefault(alike, reason)
            reasons.setdefault(alike, []).append(name)
        rows = [(str(len(names)), names[0], first[alike]) for alike, names in reasons.items()]
        print_table(console, f"{len(report.rejects)} samples were left out", ("samples", "the first", "reason"), rows)
