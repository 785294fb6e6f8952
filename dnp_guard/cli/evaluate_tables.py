"""Print the tables of an evaluation, with as many columns as fit the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from dnp_guard.lab.evaluate.report import HEADINGS, cells, heading, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dnp_guard.lab.evaluate.table import Line

_LEAST = 3
_ANY_WIDTH = 1000


def print_tables(console: Console, lines: Sequence[Line]) -> None:
    """Print one table per model and prompt set.

    A cell is never cut: on a narrow terminal, the last columns are left out of all tables and named below them.

    Args:
        console: the terminal.
        lines: lines of ``results.json``, one per measured method and prompt set.
    """
    whole = [line for line in lines if line.get("categories") is None]
    columns = measured(whole)
    sets: dict[str, list[Line]] = {}
    for line in whole:
        sets.setdefault(heading(line["model"], line["set"]), []).append(line)
    shown = min((_fitting(console, own, columns) for own in sets.values()), default=0)
    for name, own in sets.items():
        table = _table(own, columns[:shown])
        table.title = f"{name}, n = {own[0]['n']}"
        console.print(table)
        console.print()
    for detector in dict.fromkeys(line["detector"] for line in whole):
        console.print(f"judged by {detector}", highlight=False, markup=False)
    if left := [HEADINGS[at] for at in columns[shown:]]:
        console.print(f"in report.md only, as the terminal is too narrow: {'; '.join(left)}", highlight=False)


def _table(lines: Sequence[Line], columns: Sequence[int]) -> Table:
    table = Table(title_justify="left", box=None)
    for at in columns:
        table.add_column(HEADINGS[at], no_wrap=True)
    for row in map(cells, lines):
        table.add_row(*(row[at] for at in columns))
    return table


def _fitting(console: Console, lines: Sequence[Line], columns: Sequence[int]) -> int:
    """Return how many of the columns fit the terminal."""
    anywhere = console.options.update(max_width=_ANY_WIDTH)
    shown = len(columns)
    while shown > _LEAST and console.measure(_table(lines, columns[:shown]), options=anywhere).maximum > console.width:
        shown -= 1
    return shown
