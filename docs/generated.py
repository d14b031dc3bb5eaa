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
    """List the published networks."""
    rows = [(f"`{e.name}`", e.representation, e.ambiguity, e.licence, e.licence_code, e.paper) for e in PUBLISHED.values()]
    return (
        "# Networks by name\n\n"
        "Each is a MODEL for every command and for `from_pretrained`; `depthkit models NAME` prints its file and rules.\n\n"
        + table(("name", "predicts", "leaves open", "licence of weights", "of code", "paper"), rows)
    )


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
    """Show what `depthkit shards write --list` prints, and each dataset's options."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        shards_write(["--list"])
    text = f"# Datasets\n\n```text\n{out.getvalue()}```\n"
    for name in CATALOGUE:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            shards_write([name, "--help"])
        text += f"\n## {name}\n\n```text\n{out.getvalue()}```\n"
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
