"""``dnp-guard audit hold`` and ``audit purge``: how long records are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.audit.read import retention
from dnp_guard.audit.read.times import moment, period
from dnp_guard.errors import AuditError
from dnp_guard.policy import load_policy

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The log.", show_default=False)]


def hold(
    file: _File,
    request: Annotated[str, typer.Argument(help="Id of the generation.", show_default=False)],
    *,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    why: Annotated[str, typer.Option(help="For those who read the log.")] = "",
) -> None:
    """Keep the records of one generation through every purge; the log says so."""
    retention.hold(file, request, release=release, why=why)


def purge(
    file: _File,
    *,
    older_than: Annotated[str | None, typer.Option(help="A period such as 90d, 36h or 2w.", show_default=False)] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="A policy, whose audit.retention_days counts where --older-than is not given or is less."),
    ] = None,
) -> None:
    """Remove what is older and not held; a tombstone keeps the rest verifiable."""
    kept = timedelta(days=load_policy(policy).audit.retention_days) if policy is not None else None
    asked = period(older_than) if older_than is not None else kept
    if asked is None:
        raise AuditError("nothing says how old is too old", hint="Add --older-than 90d or --policy FILE.")
    before = moment((datetime.now(UTC) - max(asked, kept or asked)).isoformat())
    done = retention.purge(file, before)
    also = f"; {done.held} older ones are held" if done.held else ""
    typer.echo(f"{file}: {done.records} records older than {before[:19]} UTC purged{also}")
