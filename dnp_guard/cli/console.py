"""What the command line prints: one JSON document, or errors of one or two lines each."""

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
"""The option that every command with a document has."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print the one document of ``--json`` on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_table(*tables: Table) -> None:
    """Print tables whole: wider than the terminal rather than with cut words, which could not be copied."""
    console = Console(highlight=False)
    wide = console.options.update(max_width=10_000)
    width = max(console.width, *(Measurement.get(console, wide, table).minimum for table in tables))
    console = Console(highlight=False, width=width)
    for place, table in enumerate(tables):
        if place:
            console.print()
        console.print(table)


def problems_of(error: Exception) -> tuple[Problem, ...]:
    """An error as the ``errors`` of ``--json``.

    Args:
        error: anything that ended a command.

    Returns:
        The problems of a policy; otherwise one, named after the error's class, with the file where it has one.
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
            reason, hint = "there is a file of this name", "Give another path."
        return (Problem(file, 0, 0, code, reason, hint),)
    hint = "This is a defect; DNP_GUARD_TRACEBACK=1 shows where it happened."
    return (Problem("", 0, 0, code, f"unexpected {type(error).__name__}: {error}", hint),)


def print_problem(problem: Problem) -> None:
    """Print one problem on stderr, on a line of its own and its remedy on a second."""
    place = f"{problem.file}:{problem.line}:{problem.column}: " if problem.line else ""
    place = place or (f"{problem.file}: " if problem.file else "")
    sys.stderr.write(f"dnp-guard: {_one_line(place + problem.message)}\n")
    if problem.hint:
        sys.stderr.write(f"  {_one_line(problem.hint)}\n")


def _one_line(text: str) -> str:
    # What is quoted from a file may hold line breaks and terminal escapes.
    words = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
