"""``depthkit compare``: two reports image by image."""

import sys
from pathlib import Path

from depthkit.errors import RecipeError
from depthkit.evaluation import compare_reports


def compare(report_a: Path, report_b: Path, *, confidence: float = 0.95, out: Path | None = None, pictures: int = 8) -> None:
    """Compare two reports on the images that both scored, and say which differences are more than luck.

    Args:
        report_a: JSON that `depthkit evaluate --out` wrote.
        report_b: another one, under the same protocol.
        confidence: of the intervals, found by redrawing the images.
        out: page (.html) to write, with every image and the maps of those that changed most.
        pictures: how many of those are drawn.

    Raises:
        RecipeError: a file is no report, the two cannot be compared, or ``out`` does not end in .html.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f"expected --out to end in .html; got {out}.")
    found = compare_reports(report_a, report_b, confidence=confidence)
    sys.stdout.write(f"{found.table()}\n")
    if out is not None:
        sys.stdout.write(f"wrote {found.to_html(out, pictures=pictures)}\n")
