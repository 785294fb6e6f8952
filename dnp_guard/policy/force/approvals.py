"""Find policy changes that let more images through, and the files in which a person approves them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import Problem
from dnp_guard.policy.compare.diff import milder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dnp_guard.policy.force.store import Store
    from dnp_guard.policy.model.policy import Policy

APPROVAL = ".approval.json"
"""Ending of the name of a file that approves a milder policy."""


def unapproved(before: Store, after: Store) -> Iterator[Problem]:
    """Yield a problem per enforced policy that is gone, or that became milder without a person's approval."""
    now = after.by_name
    for name, policy in before.by_name.items():
        if policy.mode != "enforce":
            continue
        if name not in now:
            yield Problem("", 0, 0, "unapproved", f"policy `{name}` is gone.", "Restart the guard to drop a policy.")
            continue
        changes = milder(policy, now[name])
        source = after.sources.get(name)
        if changes and (source is None or not approved(source, now[name])):
            listed = "; ".join(map(str, changes))
            hint = f"Approve it: dnp-guard policy diff OLD {source} --approve NAME --reason TEXT."
            yield Problem(str(source or ""), 0, 0, "unapproved", f"milder than before: {listed}.", hint)


def loosened(before: Store, after: Store) -> bool:
    """Return whether the new store lacks a policy of the old one, or has a milder or possibly milder version of it."""
    now = after.by_name
    return any(name not in now or milder(policy, now[name]) for name, policy in before.by_name.items())


def approvals(before: Store | None, after: Store) -> list[dict[str, Any]]:
    """Return the contents of the approval files for those policies that are new or changed."""
    was = before.by_name if before is not None else {}
    changed = [policy for policy in after.all if policy.name not in was or was[policy.name].digest != policy.digest]
    written = (_approval(after.sources[policy.name], policy) for policy in changed if policy.name in after.sources)
    return [approval for approval in written if approval is not None]


def approved(source: Path, policy: Policy) -> bool:
    """Return whether the approval file beside a policy approves exactly this policy."""
    return _approval(source, policy) is not None


def _approval(source: Path, policy: Policy) -> dict[str, Any] | None:
    try:
        approval: Any = json.loads((source.parent / f"{source.stem}{APPROVAL}").read_bytes())
    except (OSError, ValueError):
        return None
    fits = isinstance(approval, dict) and approval.get("digest") == policy.digest and approval.get("approved_by")
    return approval if fits else None


def approve(source: Path, policy: Policy, *, by: str, reason: str) -> Path:
    """Write the file that approves exactly this policy, and return its path."""
    file = source.parent / f"{source.stem}{APPROVAL}"
    text = json.dumps({"digest": policy.digest, "approved_by": by, "reason": reason}, ensure_ascii=False, indent=2)
    file.write_text(text + "\n", encoding="utf-8")
    return file
