"""``dnp-guard audit hold``, ``purge`` and ``erase``: keep and remove records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.audit import previews
from dnp_guard.audit.checkpoint import read_signer
from dnp_guard.audit.read import erasure, retention
from dnp_guard.audit.read.second_place import SecondPlace
from dnp_guard.audit.read.times import keeping, moment
from dnp_guard.errors import AuditError
from dnp_guard.policy import load_policy

DEFAULT = "90d"
"""Default retention, if neither the command nor a policy sets it."""

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The log.", show_default=False)]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Remove nothing; report what would be removed.")]
_Second = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", help="File with the log's checkpoints; the removal is recorded there too.", show_default=False
    ),
]
_Sign = Annotated[Path | None, typer.Option("--sign", help="Key to sign checkpoints with.", show_default=False)]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def hold(
    file: _File,
    request: Annotated[str, typer.Argument(help="Id of the generation, or its beginning.", show_default=False)],
    *,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    why: Annotated[str, typer.Option(help="Reason, for readers of the log.")] = "",
) -> None:
    """Exempt the records of one generation from purges and erasures, or end the exemption; the log records either."""
    request = retention.hold(file, request, release=release, why=why)
    if not release:
        typer.echo(f"{request} is held: no purge or erasure removes it until 'audit hold --release'.")
        return
    typer.echo(f"{request} is no longer held.")
    if (subject := erasure.waiting(file, request)) is not None:
        typer.echo(f"An erasure was waiting for this; run it: dnp-guard audit erase {file} --subject {subject}")


def purge(
    file: _File,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(help=f"Age such as 90d or P3M; by default the policy's, or {DEFAULT}.", show_default=False),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Policy whose audit.retention_days is the lowest age.", show_default=False),
    ] = None,
    checkpoint: _Second = None,
    sign: _Sign = None,
    pictures_older_than: Annotated[
        str | None, typer.Option(help="Instead: remove only stored pictures older than this.", show_default=False)
    ] = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
) -> None:
    """Remove old records, except those on hold; a tombstone in their place keeps the rest verifiable.

    'audit verify --checkpoint' accepts the purge only if the same checkpoints record it.
    """
    if pictures_older_than is not None:
        _purge_pictures(file, pictures_older_than, dry_run=dry_run)
        return
    second = _second(checkpoint, sign)
    least = timedelta(days=load_policy(policy).audit.retention_days) if policy is not None else None
    age = keeping(older_than) if older_than is not None else least or keeping(DEFAULT)
    before = moment((datetime.now(UTC) - max(age, least or age)).isoformat())
    when = f"older than {before[:19].replace('T', ' ')} UTC"
    if dry_run or not yes:
        planned = retention.purge(file, before, second, dry_run=True)
        if dry_run or planned.records:
            total = sum(1 for _ in retention.records(file))
            typer.echo(
                f"{file}: {planned.records} of {total} records are {when} and would be removed{_held(planned.held)}"
            )
        if dry_run:
            return
        if planned.records:
            _confirm()
    done = retention.purge(file, before, second)
    typer.echo(f"{file}: {done.records} records {when} purged{_held(done.held)}")


def _purge_pictures(file: Path, older_than: str, *, dry_run: bool) -> None:
    before = (datetime.now(UTC) - keeping(older_than)).timestamp()
    held = retention.held(file)
    old = previews.old(previews.folder(file), held=held, before=before)
    if not dry_run:
        previews.purge(previews.folder(file), gone=old, staying=(), held=held, before=before)
    typer.echo(f"{file}: {len(old)} pictures {'would be removed' if dry_run else 'removed'}; their records stay")


def erase(
    file: _File,
    *,
    subject: Annotated[
        str, typer.Option(help="The person's name as the host gives it, or the hash in records.", show_default=False)
    ],
    by: Annotated[str, typer.Option(help="Person who requests the erasure; recorded.")] = "",
    why: Annotated[str, typer.Option(help="Reason, for readers of the log.")] = "",
    checkpoint: _Second = None,
    sign: _Sign = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
) -> None:
    """Remove every record of one person's generations; a tombstone in their place keeps the rest verifiable.

    A generation on hold stays, and the log records that its erasure is waiting.
    """
    second = _second(checkpoint, sign)
    if dry_run or not yes:
        planned = erasure.erase(file, subject, second=second, dry_run=True)
        typer.echo(
            f"{file}: {planned.records} records of {len(planned.requests)} generations of subject "
            f"{planned.subject[:12]} would be removed{_waiting(planned.waiting)}"
        )
        if dry_run:
            return
        _confirm()
    done = erasure.erase(file, subject, by=by, why=why, second=second)
    typer.echo(
        f"{file}: {done.records} records of {len(done.requests)} generations of subject {done.subject[:12]} "
        f"erased{_waiting(done.waiting)}"
    )


def _second(checkpoint: Path | None, sign: Path | None) -> SecondPlace | None:
    if checkpoint is None:
        if sign is not None:
            raise AuditError("--sign is for checkpoints", hint="Add --checkpoint FILE.")
        return None
    return SecondPlace(checkpoint, read_signer(sign) if sign is not None else None)


def _confirm() -> None:
    try:
        sure = typer.confirm("Remove them?")
    except typer.Abort as error:
        raise AuditError(
            "there was no answer, so nothing was removed", hint="Add --yes to skip the question."
        ) from error
    if not sure:
        raise AuditError("nothing was removed", hint="--dry-run reports what would be removed.")


def _held(count: int) -> str:
    return f"; {count} older ones are held" if count else ""


def _waiting(requests: tuple[str, ...]) -> str:
    if not requests:
        return ""
    return f"; {len(requests)} are held and wait: {', '.join(requests)}"
