"""Pages that the package writes about itself: networks, recipes, datasets, protocols, commands, API, glossary.

``conf.py`` calls this before each build; git ignores what it writes.
"""

import contextlib
import io
import re
from importlib import import_module
from inspect import isroutine
from pathlib import Path
from types import ModuleType

import jupytext

from depthkit.alignment import Alignment
from depthkit.cli.main import HELP
from depthkit.cli.recipes import recipe_files
from depthkit.cli.shards_write import command as shards_write
from depthkit.convert.catalogue import CATALOGUE
from depthkit.evaluation import PROTOCOLS, Protocol
from depthkit.models.weights.published import PUBLISHED

ROOT = Path(__file__).parents[1]
PACKAGES = ("losses", "losses.functional", "metrics", "metrics.functional", "alignment", "geometry", "models", "data")
PACKAGES += ("data.transforms", "synthetic", "evaluation", "inference", "paradigms", "callbacks", "types", "errors")


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Write a table in Markdown."""
    cells = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in cells)


def networks() -> str:
    """List the published networks, paper by paper."""
    text = "# Networks by name\n\nEach is a MODEL for every command and for `from_pretrained`; "
    text += "`depthkit models NAME` prints its file and rules.\n"
    for paper in dict.fromkeys(entry.paper for entry in PUBLISHED.values()):
        entries = [entry for entry in PUBLISHED.values() if entry.paper == paper]
        licences = [[licence.replace("?", "not stated") for licence in (e.licence, e.licence_code)] for e in entries]
        rows = [(f"`{e.name}`", e.representation, e.ambiguity, *both) for e, both in zip(entries, licences, strict=True)]
        text += f"\n## {paper}\n\n" + table(("name", "predicts", "leaves open", "licence of weights", "of code"), rows)
        if begin := entries[0].protocols:
            text += f"\nIts figures are those of the [protocols](protocols.md) whose names begin with `{begin}`.\n"
    return text


def recipes() -> str:
    """Show each recipe with the comment it opens with."""
    text = "# Recipes\n\n`depthkit fit --config NAME` runs one from any folder, `depthkit recipes NAME` copies it.\n"
    for name, file in recipe_files().items():
        lines = file.read_text().splitlines()
        opening = [line.lstrip("# ") for line in lines if line.startswith("#")]
        claim, notes = opening[0], "\n".join(opening[1:])
        text += f"\n## {name}\n\n{claim}\n\n```text\n{notes}\n```\n\n```yaml\n"
        text += "\n".join(line for line in lines if not line.startswith("#")) + "\n```\n"
    return text


def datasets() -> str:
    """Show each dataset's facts, and the options that `depthkit shards write` takes for it."""
    text = "# Datasets\n\n`depthkit shards write NAME ROOT OUT` writes one as shards, also one of your own.\n\n"
    text += table(
        ("name", "labels", "published samples"),
        [(f"[`{name}`](#{name})", known.kind or "as the files say", known.counts) for name, known in CATALOGUE.items()],
    )
    for name, known in CATALOGUE.items():
        facts = {
            "source": known.source,
            "licence of the data": known.licence,
            "labels": f"{known.kind or 'as the files say'}; {known.unit}",
            "without a label": known.invalid,
            "sky": known.sky,
            "camera": known.camera,
            "splits": known.splits,
            "tried on": "published samples" if known.real else "folders of the same layout that a test writes",
        }
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            shards_write([name, "--help"])
        text += f"\n({name})=\n## {name}\n\n" + table(("", ""), [(fact, value) for fact, value in facts.items() if value])
        text += f"\n```text\n{out.getvalue()}```\n"
    return text


def caps(protocol: Protocol) -> str:
    """Write the range of scored depths."""
    return f"{protocol.min_depth:g} to {protocol.max_depth:g} m"


def protocols() -> str:
    """Show each protocol with the published figures that it prints."""
    text = (
        "# Protocols\n\n`depthkit evaluate MODEL SHARDS --protocol NAME` scores by one and prints these figures beside yours.\n"
    )
    for name, protocol in PROTOCOLS.items():
        fit = protocol.alignment
        aligned = f"{fit.degrees}, {fit.method}, in {fit.space}" if isinstance(fit, Alignment) else "none"
        facts = [
            ("source", protocol.source),
            ("alignment", aligned),
            ("scored in", f"{protocol.space}, {caps(protocol)}"),
            ("crop", f"{protocol.crop.name} ({protocol.crop.source})"),
            ("input, output", f"{protocol.input}; {protocol.output}"),
            ("order", ", ".join(protocol.order)),
            ("mean over", protocol.reduction),
        ]
        text += f"\n## {name}\n\n" + table(("", ""), facts)
        if protocol.published:
            metrics = tuple(dict.fromkeys(metric for row in protocol.published.values() for metric in row))
            rows = [(who, *(f"{row[m]:.4g}" if m in row else "" for m in metrics)) for who, row in protocol.published.items()]
            text += "\n" + table(("published", *metrics), rows)
    return text


def glossary() -> str:
    """Take the glossary from CONTRIBUTING.md, its one place."""
    return "# Glossary\n" + (ROOT / "CONTRIBUTING.md").read_text().partition("## Glossary\n")[2]


def api() -> dict[str, str]:
    """Write a page for each public package, in reStructuredText as the docstrings are; what two have is on the first."""
    pages, shown, index = {}, set(), "API\n===\n\n.. toctree::\n   :maxdepth: 1\n\n"
    for name in PACKAGES:
        title = f"depthkit.{name}"
        module = import_module(title)
        text = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n"
        names = [public for public in getattr(module, "__all__", ()) if not isinstance(getattr(module, public), ModuleType)]
        if names:
            text += "   :no-members:\n"
        for public in names:
            value = getattr(module, public)
            if id(value) not in shown:
                shown.add(id(value))
                kind = "autoclass" if isinstance(value, type) else "autofunction" if isroutine(value) else "autodata"
                text += f"\n.. {kind}:: {title}.{public}\n"
        pages[f"api/{name}.rst"] = text
        index += f"   {name}\n"
    return {**pages, "api/index.rst": index}


def notebooks() -> dict[str, str]:
    """Turn each tutorial into a notebook; what is not run there stays text."""
    pages = {}
    for page in sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        text = re.sub(r"<!-- not run: [^\n]+ -->\n```\w+", "```console", page.read_text())
        pages[f"notebooks/{page.stem}.ipynb"] = jupytext.writes(jupytext.reads(text, "md"), "ipynb")
    return pages


def write_reference(root: Path) -> None:
    """Write all pages into a folder; a page that has not changed keeps its time, so that Sphinx reads it once."""
    pages = {
        "networks.md": networks(),
        "recipes.md": recipes(),
        "datasets.md": datasets(),
        "protocols.md": protocols(),
        "commands.md": f"# Commands\n\n```text\n{HELP}```\n",
        "glossary.md": glossary(),
        **api(),
        **notebooks(),
    }
    for name, text in pages.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
