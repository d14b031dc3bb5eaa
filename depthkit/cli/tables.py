"""Tables of what went wrong, cut where they would fill the screen."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_SHOWN = 20  # rows printed one by one


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the first rows of a table, and how many there are beyond them."""
    table = Table(title=title, caption=f"and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else None)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:_SHOWN]:
        table.add_row(*row)
    console.print(table)
