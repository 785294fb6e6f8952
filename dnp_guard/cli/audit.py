"""``dnp-guard audit``: check a log, and show what it says.

A chain without a key finds accidents and partial edits at their line; rewriting to the end or cutting the tail is found
only against a checkpoint kept elsewhere.
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

app = typer.Typer(help="The life of the audit log.", no_args_is_help=True)
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
            help="Where the last line was torn by a crash and nothing else is wrong, copy what is whole to this file.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoints of the log, kept elsewhere.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The verifier key, name+id+key, that has to have signed them.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Check the chain of a log, its rotated files included, and name the lines at which something was changed.

    Rewriting to the end or cutting the tail is found only against a checkpoint that was kept elsewhere.
    """
    if key is not None and checkpoint is None:
        raise AuditError("--key says who signed the checkpoints", hint="Add --checkpoint FILE.")
    found = verify_log(file, read_notes(checkpoint, key) if checkpoint is not None else ())
    copied = repair_log(file, repair) if repair is not None and (found.torn or found.ok) else None
    if json:
        print_json(_document(found))
    else:
        _print(file, found)
        if copied is not None:
            typer.echo(f"{repair}: {copied} whole lines")
    raise typer.Exit(0 if found.ok or copied is not None else 1)


@app.command()
def checkpoint(
    file: File,
    *,
    to: Annotated[Path | None, typer.Option(help="Append it to this file instead.", show_default=False)] = None,
    sign: Annotated[
        Path | None, typer.Option(help="Sign it with this key, made by 'audit key'.", show_default=False)
    ] = None,
    origin: Annotated[str, typer.Option(help="The log's name.")] = ORIGIN,
    purged: Annotated[bool, typer.Option("--purged", help="Vouch for every purge that the log shows.")] = False,
) -> None:
    """Print how many records a log has and what its head is, in the C2SP checkpoint form.

    Keep it where whoever may change the log cannot reach it.
    """
    found = verify_log(file)
    if not found.ok:
        _print(file, found)
        raise typer.Exit(1)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    vouched = found.tombstones if purged else ()
    made = Checkpoint(origin, found.records + found.purged, found.head_hash, now, vouched)
    signer = read_signer(sign) if sign is not None else None
    if to is None:
        typer.echo(note(made, signer), nl=False)
    else:
        keep(to, made, signer)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Where the key is written.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="Of the key in signatures.")] = "dnp-guard",
) -> None:
    """Make an Ed25519 key that signs checkpoints, and print the verifier key."""
    typer.echo(make_key(file, name).public)


@app.command()
def picture_key(
    file: Annotated[Path, typer.Argument(help="Where the key is written, apart from the log.", show_default=False)],
) -> None:
    """Make a key with which kept pictures are encrypted instead of blurred."""
    previews.make_key(file)
    typer.echo(f"export {previews.KEY_VARIABLE}={file.resolve()}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a record."""
    print_json(record_schema())


@app.command()
def show(
    file: File,
    *,
    request: Annotated[
        str | None, typer.Option(help="One generation, step by step; its id, or the beginning of it.")
    ] = None,
    by_image: Annotated[
        bool, typer.Option("--images", help="A row per finished image: what became of it, and why.")
    ] = False,
    category: Annotated[str | None, typer.Option(help="Only generations in which it was seen.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only generations of which an image came to it.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only generations under it; a name, or name and revision.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only generations of this tenant.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from then on: a date, a time, or 7d, 12h, 30m ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before then.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print records as they are written, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show the generations of a log, or one of them step by step."""
    wanted = Filter(
        category, decision, policy, tenant, moment(since) if since else None, moment(until) if until else None
    )
    if follow:
        _follow(file, request, wanted, json=json)
        return
    log = Log(file)
    rows = generations(log)
    if log.skipped:
        typer.echo(f"dnp-guard: {file}: {log.skipped} lines are no records; 'audit verify' names them", err=True)
    wanted.check(rows)
    request = whole_id(request, (row.request for row in rows)) if request is not None else None
    rows = [row for row in rows if wanted.takes(row) and request in {None, row.request}]
    if by_image:
        show_images(log, {row.request for row in rows}, category, decision, json=json)
        return
    records = [record for record in log if record.get("request") == request] if request is not None else []
    if json:
        documents = [_row(each) | ({"records": records} if request is not None else {}) for each in rows]
        print_json({"ok": True, "generations": documents, "errors": []})
    elif not rows:
        typer.echo("no generations")
    else:
        print_table(overview(rows), *([timeline(records)] if request is not None else []))


def _follow(file: Path, request: str | None, wanted: Filter, *, json: bool) -> None:
    if json or wanted.category or wanted.decision or wanted.since or wanted.until:
        raise AuditError(
            "--follow shows records, not whole generations", hint="Use it with --request, --policy or --tenant alone."
        )
    try:
        for record in follow_log(file, wait=_wait):
            one = generations([record], wanted)
            if (one or not record.get("request")) and request in {None, record.get("request")}:
                typer.echo(line(record))
    except KeyboardInterrupt:
        return


def _wait() -> bool:
    sleep(_POLL)
    return True


def _row(generation: GenerationRow) -> dict[str, object]:
    return {"decision": generation.decision, **asdict(generation)}


def _document(found: Verification) -> dict[str, object]:
    return {
        "ok": found.ok,
        "records": found.records,
        "purged": found.purged,
        "head_hash": found.head_hash,
        "errors": [asdict(problem) for problem in found.problems],
    }


def _print(file: Path, found: Verification) -> None:
    for problem in found.problems[:_PRINTED]:
        print_problem(problem)
    more = ", the rest with --json" if len(found.problems) > _PRINTED else ""
    verdict = "unbroken" if found.ok else f"{len(found.problems)} problems{more}"
    purged = f", {found.purged} more purged" if found.purged else ""
    typer.echo(f"{file}: {found.records} records{purged}, {verdict}; head hash {found.head_hash}")
