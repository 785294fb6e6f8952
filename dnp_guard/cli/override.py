"""``dnp-guard override``: break glass."""

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
        typer.Option(help="What becomes of an image when the guard cannot do its job."),
    ],
    length: Annotated[str, typer.Option("--for", help="How long, up to 24h: 30m, 2h, 90s. It ends by itself.")],
    actor: Annotated[str, typer.Option(help="Who does this; it is recorded.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    file: Annotated[Path | None, typer.Option(help="Where guards look.")] = None,
) -> None:
    """For a while, override every guard's `on_failure`; never that of a policy with a sensitive category."""
    if not actor.strip() or not reason.strip():
        raise typer.BadParameter("say who does this, and why.")
    until = datetime.now(UTC) + breaking.length(length)
    to = file or breaking.path()
    if to is None:
        raise DnpGuardError("this user has no home to keep an override in", hint="Name a file: --file PATH.")
    breaking.write(breaking.Override(on_failure, until, actor, reason), to)
    typer.echo(f"on_failure is {on_failure} until {until:%Y-%m-%d %H:%M:%S} UTC, for every guard that reads {to}.")
    typer.echo("Each guard records that it takes effect; policies with a sensitive category stay as they are.")
