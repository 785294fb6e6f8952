"""``dnp-guard uninstall``: remove the guard's integration from a host."""

from __future__ import annotations

import typer

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.cli.install import Where, Which
from dnp_guard.cli.installation import KINDS, Installation


def uninstall(host: Which, path: Where, *, as_json: AsJson = False) -> None:
    """Remove the guard from a host: its files, its configuration, and its settings in the host's own file."""
    installation = Installation(KINDS[host], path)
    left = [str(file) for file in installation.remove()]
    if as_json:
        print_json({"ok": True, "folder": str(installation.folder), "left": left, "errors": []})
    else:
        typer.echo(f"removed from {installation.folder}")
        for file in left:
            typer.echo(f"  left, since it was not installed: {file}")
