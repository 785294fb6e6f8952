"""``dnp-guard doctor``: check the installation, and report problems with remedies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dnp_guard.cli import checks
from dnp_guard.cli.check_engine import asked
from dnp_guard.cli.console import print_json, print_problem
from dnp_guard.extras import absent

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASKED = frozenset({"python", "audit log", "engine", "checkpoint", "pipeline", "vision-language model"})
"""Checks that are always shown: the Python version, and those requested by an option."""
_STYLE = {"ok": "green", "note": "yellow", "failed": "bold red"}


def doctor(
    *,
    audit: Annotated[Path | None, typer.Option(help="Also check that an audit log can be written here.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Also check how the diffusers pipeline in this folder, or this checkpoint, is steered."),
    ] = None,
    vlm: Annotated[str | None, typer.Option(help="Also build this vision-language backend, such as 'glyphs'.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Also check that all workers of the serving engine at this URL are guarded.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also list the checks that passed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Check the installation, and report problems with remedies. Exits 1 if there is a problem."""
    results = list(_look(audit, model, vlm, engine))
    problems = [problem for check in results for problem in check.problems]
    if as_json:
        print_json(
            {
                "ok": not problems,
                "checks": [{"name": check.name, "status": check.status, "found": check.found} for check in results],
                "errors": [asdict(problem) for problem in problems],
            }
        )
    else:
        _print(results, every=every)
        for problem in problems:
            print_problem(problem)
    if problems:
        raise typer.Exit(1)


def _look(audit: Path | None, model: Path | None, vlm: str | None, engine: str | None) -> Iterator[checks.Check]:
    yield checks.python()
    yield from checks.packages()
    yield checks.extras()
    if not absent("local"):
        yield from _models()
    yield from checks.policies()
    yield checks.plugins()
    yield checks.tracing()
    if audit:
        yield checks.audit(audit)
    if model:
        yield checks.checkpoint(model) if model.is_file() else checks.model(model)
    if vlm:
        yield checks.vlm(vlm)
    if engine:
        yield asked(engine)


def _models() -> Iterator[checks.Check]:
    torch = checks.device()
    yield torch
    if torch.status != "failed":
        libraries = list(checks.loading())
        yield from libraries
        if not absent("diffusers") and all(check.status != "failed" for check in libraries):
            yield checks.hosts()
    yield from checks.weights()


def _print(results: list[checks.Check], *, every: bool) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    shown = [check for check in results if every or check.status != "ok" or check.name in _ASKED]
    for check in shown:
        table.add_row(Text(check.status, style=_STYLE[check.status]), Text(check.name), Text(check.found))
    Console().print(table)
    if fine := len(results) - len(shown):
        typer.echo(f"{fine} more checks are ok; --all lists them.")
