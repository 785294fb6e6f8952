"""``dnp-guard policy diff``: describe the changes between two policies, and their effect on recorded generations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnp_guard.audit.read.lines import read_lines
from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.policy import load_policy
from dnp_guard.policy.compare.change import Direction
from dnp_guard.policy.compare.diff import changes
from dnp_guard.policy.force import approvals
from dnp_guard.policy.rehearsal.replay import replay

if TYPE_CHECKING:
    from dnp_guard.policy import Policy
    from dnp_guard.policy.compare.change import Change
    from dnp_guard.policy.rehearsal.replay import Replay

_SHOWN = 50
"""Most differing images to list; --json lists all."""


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Policy file, or name of a shipped policy.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Policy to compare with it.")],
    *,
    audit: Annotated[Path | None, typer.Option(help="Audit log made under A, to judge again under B.")] = None,
    approve: Annotated[
        str | None, typer.Option(metavar="NAME", help="Person who approves B even if it is milder; a file records it.")
    ] = None,
    reason: Annotated[str, typer.Option(help="With --approve: the reason.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the changes from policy A to policy B, by category."""
    if approve is not None and not (approve.strip() and reason.strip() and Path(after).is_file()):
        raise typer.BadParameter("--approve takes a name, a --reason, and B as a file.")
    one, other = load_policy(before), load_policy(after)
    listed = changes(one, other)
    if approve is not None:
        written = approvals.approve(Path(after), other, by=approve, reason=reason)
        approved = f"{approve} approves {other.name} {other.revision}, digest {other.digest[:12]}: {reason}"
        typer.echo(f"{approved}; written to {written}", err=as_json)
    replayed = replay(one, other, (line.data for line in read_lines(audit))) if audit is not None else None
    if as_json:
        print_json(
            {
                "ok": True,
                "before": {"name": one.name, "revision": one.revision, "digest": one.digest},
                "after": {"name": other.name, "revision": other.revision, "digest": other.digest},
                "changes": [asdict(change) for change in listed],
                "replay": asdict(replayed) if replayed else None,
                "errors": [],
            }
        )
        return
    if (one.name, one.revision) == (other.name, other.revision) and one.digest != other.digest:
        typer.echo(f"warning: both are named {one.name} {one.revision}, but their texts differ", err=True)
    typer.echo("\n".join(sentences(one, other, listed)))
    if replayed:
        typer.echo("\n".join(_replayed(replayed)))


def sentences(before: Policy, after: Policy, changed: tuple[Change, ...]) -> list[str]:
    """Return the changes as lines of text, one per category."""
    head = f"From {before.name} {before.revision} to {after.name} {after.revision}:"
    if not changed:
        return [f"{head} no question, negative or decision changes."]
    lines = [head]
    for subject in dict.fromkeys(change.subject for change in changed):
        listed = "; ".join(change.sentence for change in changed if change.subject == subject)
        lines.append(f"  {subject or 'policy'}: {listed}.")
    count = {way: sum(change.direction is way for change in changed) for way in Direction}
    unclear = f", {count[Direction.UNCLEAR]} that depend on the model" if count[Direction.UNCLEAR] else ""
    lines.append(f"{count[Direction.STRICTER]} stricter, {count[Direction.MILDER]} milder{unclear}.")
    return lines


def _replayed(result: Replay) -> list[str]:
    count = f"Of {result.images} recorded images, {len(result.differing)} would have had another result"
    lines = [f"{count}; {result.comparable} are comparable to the end."]
    lines += [f"  {image}" for image in result.differing[:_SHOWN]]
    if len(result.differing) > _SHOWN:
        lines.append(f"  and {len(result.differing) - _SHOWN} more; --json lists all.")
    if result.unseen:
        lines.append(f"There may be more: the record lacks what B would find of {', '.join(result.unseen)}.")
    if result.left_out:
        lines.append(f"{result.left_out} images are left out: another policy, unfinished, or a sensitive finding.")
    return lines
