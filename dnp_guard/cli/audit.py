"""``dnp-guard audit``: verify a log, and show its records.

The records form a hash chain that uses no key. The chain reveals accidents and edits of single lines; a log that was
cut short, or rewritten from one line to the end, is recognised only by a checkpoint stored elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Annotated

import typer

from dnp_guard.audit import previews
from dnp_guard.audit.checkpoint import ORIGIN, Checkpoint, keep, make_key, note, read_notes, read_signer
from dnp_guard.audit.read.choose import whole_id
from dnp_guard.audit.read.follow import follow as follow_log
from dnp_guard.audit.read.repair import repair as repair_log
from dnp_guard.audit.read.show import Filter, GenerationRow, Log, generations, line, overview, timeline
from dnp_guard.audit.read.times import moment
from dnp_guard.audit.read.verify import Verification
from dnp_guard.audit.read.verify import verify as verify_log
from dnp_guard.audit.schema import schema as record_schema
from dnp_guard.cli.audit_keep import erase, hold, purge
from dnp_guard.cli.audit_replay import replay
from dnp_guard.cli.audit_report import export, report
from dnp_guard.cli.audit_review import candidates, changes, show_images, verdict
from dnp_guard.cli.console import print_json, print_problem, print_table
from dnp_guard.errors import AuditError

app = typer.Typer(help="Verify, show, report, keep and purge the audit log.", no_args_is_help=True)
for command in (report, export, changes, candidates, verdict, hold, purge, erase, replay):
    app.command()(command)

_PRINTED = 10
_POLL = 0.2

File = Annotated[Path, typer.Argument(help="The log.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def _group() -> None:
    pass


@app.command()
def verify(
    file: File,
    *,
    repair: Annotated[
        Path | None,
        typer.Option(
            help="If the only problem is a last line torn by a crash, copy the whole lines to this file.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File with checkpoints of the log, stored elsewhere.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Public key, name+id+key, that must have signed the checkpoints.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Verify the hash chain of a log, including its rotated files, and name the lines that were changed.

    A log that was cut short, or rewritten from one line to the end, is recognised only by a checkpoint stored
    elsewhere.
    """
    if key is not None and checkpoint is None:
        raise AuditError("--key is for the signatures of checkpoints", hint="Add --checkpoint FILE.")
    result = verify_log(file, read_notes(checkpoint, key) if checkpoint is not None else ())
    copied = repair_log(file, repair) if repair is not None and (result.torn or result.ok) else None
    if json:
        print_json(_document(result))
    else:
        _print(file, result)
        if copied is not None:
            typer.echo(f"{repair}: {copied} whole lines")
    raise typer.Exit(0 if result.ok or copied is not None else 1)


@app.command()
def checkpoint(
    file: File,
    *,
    to: Annotated[
        Path | None, typer.Option(help="Append the checkpoint to this file instead.", show_default=False)
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="Sign with this key, created by 'audit key'.", show_default=False)
    ] = None,
    origin: Annotated[str, typer.Option(help="Name of the log.")] = ORIGIN,
    purged: Annotated[
        bool, typer.Option("--purged", help="Let the checkpoint vouch for every purge in the log.")
    ] = False,
) -> None:
    """Print a checkpoint of a log, its number of records and its last hash, in the C2SP checkpoint format.

    Store the checkpoint where nobody who can change the log can change it.
    """
    result = verify_log(file)
    if not result.ok:
        _print(file, result)
        raise typer.Exit(1)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    vouched = result.tombstones if purged else ()
    made = Checkpoint(origin, result.records + result.purged, result.head_hash, now, vouched)
    signer = read_signer(sign) if sign is not None else None
    if to is None:
        typer.echo(note(made, signer), nl=False)
    else:
        keep(to, made, signer)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="File to write the key to.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="Name of the key in signatures.")] = "dnp-guard",
) -> None:
    """Create an Ed25519 key for signing checkpoints, and print the public key."""
    typer.echo(make_key(file, name).public)


@app.command()
def picture_key(
    file: Annotated[Path, typer.Argument(help="File to write the key to, apart from the log.", show_default=False)],
) -> None:
    """Create a key that encrypts stored pictures instead of blurring them."""
    previews.make_key(file)
    typer.echo(f"export {previews.KEY_VARIABLE}={file.resolve()}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of an audit record."""
    print_json(record_schema())


@app.command()
def show(
    file: File,
    *,
    request: Annotated[
        str | None, typer.Option(help="Show one generation step by step, by its id or the beginning of it.")
    ] = None,
    by_image: Annotated[
        bool, typer.Option("--images", help="Show one row per finished image, with outcome and reason.")
    ] = False,
    category: Annotated[str | None, typer.Option(help="Only generations in which this category was found.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only generations with an image of this outcome.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Only generations under this policy; a name, or name and revision.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only generations of this tenant.")] = None,
    since: Annotated[str | None, typer.Option(help="Start of the period: a date, a time, or 7d, 12h, 30m ago.")] = None,
    until: Annotated[str | None, typer.Option(help="End of the period, exclusive.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print records as they are written, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show the generations of a log, or one of them step by step."""
    criteria = Filter(
        category, decision, policy, tenant, moment(since) if since else None, moment(until) if until else None
    )
    if follow:
        _follow(file, request, criteria, json=json)
        return
    log = Log(file)
    rows = generations(log)
    if log.skipped:
        typer.echo(f"dnp-guard: {file}: {log.skipped} lines are not records; 'audit verify' names them", err=True)
    criteria.check(rows)
    request = whole_id(request, (row.request for row in rows)) if request is not None else None
    rows = [row for row in rows if criteria.takes(row) and request in {None, row.request}]
    if by_image:
        show_images(log, {row.request for row in rows}, category, decision, json=json)
        return
    records = [record for record in log if record.get("request") == request] if request is not None else []
    if json:
        documents = [_row(row) | ({"records": records} if request is not None else {}) for row in rows]
        print_json({"ok": True, "generations": documents, "errors": []})
    elif not rows:
        typer.echo("no generations")
    else:
        print_table(overview(rows), *([timeline(records)] if request is not None else []))


def _follow(file: Path, request: str | None, criteria: Filter, *, json: bool) -> None:
    if json or criteria.category or criteria.decision or criteria.since or criteria.until:
        raise AuditError(
            "--follow shows records, not whole generations", hint="Use it with --request, --policy or --tenant alone."
        )
    try:
        for record in follow_log(file, wait=_wait):
            one = generations([record], criteria)
            if (one or not record.get("request")) and request in {None, record.get("request")}:
                typer.echo(line(record))
    except KeyboardInterrupt:
        return


def _wait() -> bool:
    sleep(_POLL)
    return True


def _row(generation: GenerationRow) -> dict[str, object]:
    return {"decision": generation.decision, **asdict(generation)}


def _document(result: Verification) -> dict[str, object]:
    return {
        "ok": result.ok,
        "records": result.records,
        "purged": result.purged,
        "head_hash": result.head_hash,
        "errors": [asdict(problem) for problem in result.problems],
    }


def _print(file: Path, result: Verification) -> None:
    for problem in result.problems[:_PRINTED]:
        print_problem(problem)
    more = ", the rest with --json" if len(result.problems) > _PRINTED else ""
    verdict = "unbroken" if result.ok else f"{len(result.problems)} problems{more}"
    purged = f", {result.purged} more purged" if result.purged else ""
    typer.echo(f"{file}: {result.records} records{purged}, {verdict}; head hash {result.head_hash}")
