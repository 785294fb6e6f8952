"""``dnp-guard policy sign`` and ``policy verify``: signatures over every file of a policy."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.cli.console import AsJson, print_json, print_problem
from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.files import create_private
from dnp_guard.policy import as_store
from dnp_guard.policy.force import signing


def sign(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Policy file, or folder of policies.")],
    *,
    key: Annotated[Path, typer.Option(help="File of the private key; created with --new-key.")],
    serial: Annotated[int, typer.Option(min=1, help="Serial of this issue, higher than all before.")] = 1,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day, in UTC, on which the signature expires.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Only for this tenant.")] = "",
    author: Annotated[str, typer.Option(help="Author of the policy, for records.")] = "",
    new_key: Annotated[bool, typer.Option("--new-key", help="Create a key pair, and print the public key.")] = False,
) -> None:
    """Sign a policy file or a folder of policies. To roll back, sign the old text again with a higher serial."""
    if expires is None:
        raise typer.BadParameter("give the day on which the signature expires: --expires 2027-12-31.")
    store = as_store(path)
    if new_key:
        _write_key(key)
    ends = expires.replace(tzinfo=UTC)
    file = signing.sign(path, store, _key(key), serial=serial, expires=ends, tenant=tenant, author=author)
    typer.echo(f"wrote {file}")


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Policy file, or folder of policies.")],
    *,
    key: Annotated[str, typer.Option(help="Public key, in base64, or a file with it.")],
    tenant: Annotated[str | None, typer.Option(help="Tenant that the guard serves.")] = None,
    lowest: Annotated[int, typer.Option(help="Lowest serial to accept.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check the signature of a policy file or a folder of policies. Exits 1 if it is refused."""
    store = as_store(path)
    text = Path(key).read_text(encoding="utf-8") if Path(key).is_file() else key
    try:
        manifest = signing.verify(path, store, text, tenant=tenant, lowest=lowest)
    except PolicyError as error:
        if as_json:
            print_json({"ok": False, "manifest": None, "errors": [asdict(problem) for problem in error.problems]})
        for problem in error.problems:
            print_problem(problem)
        raise typer.Exit(1) from None
    if as_json:
        print_json({"ok": True, "manifest": asdict(manifest), "errors": []})
    else:
        typer.echo(f"ok: {manifest.name}, serial {manifest.serial}, until {manifest.expires}")


def _write_key(path: Path) -> None:
    private, public = signing.new_key()
    try:
        with create_private(path) as file:
            file.write(f"{private}\n".encode())
    except FileExistsError:
        raise DnpGuardError(f"{path} already exists", hint="Leave --new-key out to sign with it.") from None
    typer.echo(f"public key: {public}")


def _key(path: Path) -> str:
    return path.read_text(encoding="utf-8")
