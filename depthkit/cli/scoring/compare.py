"""``depthkit compare``: two reports image by image."""

import sys
from pathlib import Path

from depthkit.evaluation import compare_reports


def compare(report_a: Path, report_b: Path, *, confidence: float = 0.95) -> None:
    """Compare two reports on the images that both scored, and say which differences are more than luck.

    Args:
        report_a: JSON that `depthkit evaluate --out` wrote.
        report_b: another one, under the same protocol.
        confidence: of the intervals, found by redrawing the images.

    Raises:
        RecipeError: a file is no report, or the two cannot be compared.
    """
    sys.stdout.write(f"{compare_reports(report_a, report_b, confidence=confidence).table()}\n")
