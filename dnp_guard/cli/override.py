"""``dnp-guard override``: in an emergency, override for a while how failures of the guard are handled."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dnp_guard.errors import DnpGuardError
from dnp_guard.generation import override as breaking


def override(
    *,
    on_failure: Annotated[
        Literal["open", "closed", "last"],
        typer.Option(help="Handling of images if the guard cannot do its job."),
    ],
    length: Annotated[
        str, typer.Option("--for", help="Duration, up to 24h: 30m, 2h, 90s. The override ends by itself.")
    ],
    actor: Annotated[str, typer.Option(help="Your name; recorded.")],
    reason: Annotated[str, typer.Option(help="Reason; recorded.")],
    file: Annotated[Path | None, typer.Option(help="File that guards read.")] = None,
) -> None:
    """Override for a while how guards handle failures (`on_failure`), except in policies with a sensitive category."""
    if not actor.strip() or not reason.strip():
        raise typer.BadParameter("say who does this, and why.")
    until = datetime.now(UTC) + breaking.length(length)
    to = file or breaking.path()
    if to is None:
        raise DnpGuardError("this user has no home folder to store an override", hint="Name a file: --file PATH.")
    breaking.write(breaking.Override(on_failure, until, actor, reason), to)
    typer.echo(f"on_failure is {on_failure} until {until:%Y-%m-%d %H:%M:%S} UTC, for every guard that reads {to}.")
    typer.echo("Every guard records when it takes effect; policies with a sensitive category do not change.")
