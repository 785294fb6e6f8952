"""``dnp-guard token``: access to the service."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

Role = Literal["moderator", "policy_owner", "auditor"]

app = typer.Typer(help="Manage access to the service.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Token file; created if missing.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the token, for people.")] = "",
    tenant: Annotated[str | None, typer.Option(help="Tenant of its sessions.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Host that may use it; repeatable.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Policy by which its sessions may tighten the service's; repeatable.")
    ] = None,
    role: Annotated[
        Role | None, typer.Option(help="Role of a person who signs in to the console with it; omitted for a host.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day, in UTC, on which it expires.")
    ] = None,
) -> None:
    """Create a token and print it once; the file stores its hash and its rights."""
    if role is not None and not name.strip():
        raise typer.BadParameter(
            "the token of a person needs a name, under which verdicts are recorded.", param_hint="--name"
        )
    from dnp_guard.server import tokens  # noqa: PLC0415 (imports modules that only a service needs)

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
