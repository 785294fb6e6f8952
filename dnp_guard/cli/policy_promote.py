"""``dnp-guard policy promote``: from shadow to enforcement, with what that would have done."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.audit.read.show import Log
from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.errors import DnpGuardError
from dnp_guard.policy import load_policy, parse_policy
from dnp_guard.policy.rehearsal.promotion import Share, rehearsed

_SHADOW = re.compile(r"^(\s*(?:- )?)mode: shadow\b", re.MULTILINE)


def promote(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A policy file that is in shadow, or in part.")],
    *,
    audit: Annotated[Path, typer.Option(help="An audit log made while it was.")],
    out: Annotated[Path | None, typer.Option(help="Write the enforced policy here, to be approved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what enforcing a policy would have steered, blurred and blocked, and write it enforced."""
    policy = load_policy(path)
    if not any(policy.shadow(category.id) for category in policy.categories):
        raise DnpGuardError(f"{path}: nothing of it is in shadow", hint="Compare two policies with `policy diff`.")
    shares = rehearsed(policy, Log(audit))
    if out is not None:
        _write(path, out)
    if as_json:
        print_json({"ok": True, "shares": [asdict(share) for share in shares], "errors": []})
        return
    typer.echo("\n".join([f"In shadow, {policy.name} {policy.revision} would have:", *map(_line, shares)]))
    if not shares:
        typer.echo("  changed no image of this log.")
    if out is not None:
        typer.echo(f"wrote {out}; approve it: dnp-guard policy diff {path} {out} --approve NAME --reason TEXT")


def _write(path: Path, out: Path) -> None:
    if out.exists():
        raise DnpGuardError(f"{out} is already there", hint="Choose another name.")
    text = _SHADOW.sub(r"\1mode: enforce", path.read_text(encoding="utf-8"))
    enforced = parse_policy(text.encode(), str(out))
    if any(enforced.shadow(category.id) for category in enforced.categories):
        raise DnpGuardError(f"{path}: what it extends is in shadow", hint="Promote that one, or write `mode: enforce`.")
    out.write_text(text, encoding="utf-8")


def _line(share: Share) -> str:
    whose = f"  {share.tenant or 'all'}, {share.category or 'whole policy'}: {share.outcome} {share.count}"
    return f"{whose} of {share.images} images ({share.low:.1%} to {share.high:.1%})"
