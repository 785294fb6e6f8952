"""``dnp-guard policy promote``: move a policy from shadow mode to enforcement, and report the effect to expect."""

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
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Policy file that is in shadow, wholly or in part.")],
    *,
    audit: Annotated[Path, typer.Option(help="Audit log made in shadow.")],
    out: Annotated[Path | None, typer.Option(help="File to write the enforced policy to, for approval.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report what enforcing a policy would have steered, blurred and blocked, and write the enforced policy."""
    policy = load_policy(path)
    if not any(policy.shadow(category.id) for category in policy.categories):
        raise DnpGuardError(
            f"{path}: no part of the policy is in shadow", hint="Compare two policies with `policy diff`."
        )
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
        raise DnpGuardError(f"{out} already exists", hint="Choose another name.")
    text = _SHADOW.sub(r"\1mode: enforce", path.read_text(encoding="utf-8"))
    enforced = parse_policy(text.encode(), str(out))
    if any(enforced.shadow(category.id) for category in enforced.categories):
        raise DnpGuardError(f"{path}: its base is in shadow", hint="Promote the base, or write `mode: enforce`.")
    out.write_text(text, encoding="utf-8")


def _line(share: Share) -> str:
    whose = f"  {share.tenant or 'all'}, {share.category or 'whole policy'}: {share.outcome} {share.count}"
    return f"{whose} of {share.images} images ({share.low:.1%} to {share.high:.1%})"
