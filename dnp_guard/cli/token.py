"""``dnp-guard token``: who may ask the service."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

Role = Literal["moderator", "policy_owner", "auditor"]

app = typer.Typer(help="Who may ask the service.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The token file; made where it is not there.")],
    *,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    tenant: Annotated[str | None, typer.Option(help="Whom its sessions are for.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="A host that may use it; several times for several.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="A policy that its sessions may ask for, to be stricter by.")
    ] = None,
    role: Annotated[
        Role | None, typer.Option(help="Of a person who signs in to the console with it, in place of a host.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day, in UTC, on which it ends.")
    ] = None,
) -> None:
    """Make a token and print it, once; the file keeps its hash and what it grants."""
    if role is not None and not name.strip():
        raise typer.BadParameter("a person's verdicts are recorded under a name.", param_hint="--name")
    from dnp_guard.server import tokens  # noqa: PLC0415 (imports what only a service needs)

    token = tokens.add(
        file,
        name=name,
        tenant=tenant,
        hosts=tuple(host or ()),
        policies=tuple(policy or ()),
        role=role,
        expires=expires.replace(tzinfo=UTC) if expires else None,
    )
    typer.echo(token)
