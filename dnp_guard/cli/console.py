"""Output of the command line: one JSON document, or errors of one or two lines."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement

from dnp_guard.errors import DnpGuardError, PolicyError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
"""The option of every command that can print a JSON document."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print the document of ``--json`` on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_table(*tables: Table) -> None:
    """Print tables in full, wider than the terminal if needed, so that words can be copied."""
    console = Console(highlight=False)
    wide = console.options.update(max_width=10_000)
    width = max(console.width, *(Measurement.get(console, wide, table).minimum for table in tables))
    console = Console(highlight=False, width=width)
    for place, table in enumerate(tables):
        if place:
            console.print()
        console.print(table)


def problems_of(error: Exception) -> tuple[Problem, ...]:
    """Convert an error to the ``errors`` of ``--json``.

    Args:
        error: any error that ended a command.

    Returns:
        The problems of a policy error; for any other error, one problem with a code made from the error's class name,
        and with the file if the error has one.
    """
    if isinstance(error, PolicyError):
        return error.problems
    code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(error).__name__).lower()
    if isinstance(error, DnpGuardError):
        return (Problem("", 0, 0, code, error.message, error.hint),)
    if isinstance(error, OSError):
        file, reason = str(error.filename or ""), error.strerror or str(error)
        hint = "Check that the path exists and may be read and written."
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason, hint = "a file of this name exists", "Give another path."
        return (Problem(file, 0, 0, code, reason, hint),)
    hint = "This is a defect; DNP_GUARD_TRACEBACK=1 shows where it happened."
    return (Problem("", 0, 0, code, f"unexpected {type(error).__name__}: {error}", hint),)


def print_problem(problem: Problem) -> None:
    """Print one problem on stderr, with its hint on a second line."""
    place = f"{problem.file}:{problem.line}:{problem.column}: " if problem.line else ""
    place = place or (f"{problem.file}: " if problem.file else "")
    sys.stderr.write(f"dnp-guard: {_one_line(place + problem.message)}\n")
    if problem.hint:
        sys.stderr.write(f"  {_one_line(problem.hint)}\n")


def _one_line(text: str) -> str:
    # Text quoted from a file may contain line breaks and terminal escapes.
    words = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
