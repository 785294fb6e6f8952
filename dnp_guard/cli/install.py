"""``dnp-guard install``: install the guard into a host, or check its installation."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dnp_guard.cli.console import AsJson, print_json, print_problem
from dnp_guard.cli.installation import KINDS, Installation
from dnp_guard.vlm.plugin import look_up


class Integration(StrEnum):
    """Host programs that the guard can be installed into."""

    A1111 = "a1111"
    COMFYUI = "comfyui"


Where = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the host.")]
Which = Annotated[Integration, typer.Argument(metavar="HOST", help="a1111 (Forge and reForge as well) or comfyui.")]


class Enforce(StrEnum):
    """Which workflows ComfyUI guards."""

    OFF = "off"
    SERVER = "server"


class OnFailure(StrEnum):
    """Handling of images while the service is unreachable."""

    CLOSED = "closed"
    OPEN = "open"


def install(
    host: Which,
    path: Where,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; check whether the guard is installed.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="Address of the service.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token; it is not copied.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy that tightens the service's policy.")] = None,
    on_failure: Annotated[
        OnFailure | None, typer.Option(help="Handling of images while the service is unreachable.")
    ] = None,
    enforce: Annotated[
        Enforce | None,
        typer.Option(help="server: ComfyUI guards every workflow; off: only workflows with the guard's nodes."),
    ] = None,
    locked: Annotated[
        bool | None,
        typer.Option("--locked/--unlocked", help="Whether users can change the settings or switch the guard off."),
    ] = None,
    start_vlm: Annotated[
        str | None, typer.Option(help="Let the host start the service, from this environment, with this backend.")
    ] = None,
    start_policy: Annotated[str, typer.Option(help="Policy of a service that the host starts.")] = "default",
    start_audit: Annotated[str | None, typer.Option(help="Audit log of a service that the host starts.")] = None,
    as_json: AsJson = False,
) -> None:
    """Install the guard into a host program, or update it; settings that are not given stay the same.

    With --check, exits 1 unless the guard is installed and unchanged.
    """
    if enforce is not None and host is not Integration.COMFYUI:
        raise typer.BadParameter("only ComfyUI has workflows; A1111 guards every job", param_hint="--enforce")
    installation = Installation(KINDS[host], path)
    if start_vlm:
        look_up(start_vlm)
    if check:
        problems = installation.problems()
        if as_json:
            errors = [asdict(problem) for problem in problems]
            print_json({"ok": not problems, "folder": str(installation.folder), "errors": errors})
        for problem in problems if not as_json else ():
            print_problem(problem)
        if problems:
            raise typer.Exit(1)
        if not as_json:
            typer.echo(f"ok: {installation.folder}")
        return
    given: dict[str, Any] = {
        "url": url,
        "token_file": str(token_file.resolve()) if token_file else None,
        "policy": policy,
        "on_failure": on_failure.value if on_failure else None,
        "enforce": enforce.value if enforce else None,
        "locked": locked,
        "start": _start(url, start_vlm, start_policy, start_audit) if start_vlm else None,
    }
    files = installation.put({key: value for key, value in given.items() if value is not None})
    if as_json:
        print_json({"ok": True, "folder": str(installation.folder), "files": files, "errors": []})
    else:
        typer.echo(f"{files} files in {installation.folder}. Restart the host.")


def _start(url: str | None, vlm: str, policy: str, audit: str | None) -> list[str]:
    port = (url or "").rpartition(":")[2].strip("/")
    command = [sys.executable, "-m", "dnp_guard", "serve", "--policy", policy, "--vlm", vlm]
    command += ["--port", port] if port.isdecimal() else []
    return command + (["--audit", audit] if audit else [])
