"""``dnp-guard audit report`` and ``audit export``: a period of the log for people, or for other programs."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from dnp_guard.audit import previews
from dnp_guard.audit.read.changes import CHANGES, changes
from dnp_guard.audit.read.choose import known
from dnp_guard.audit.read.dsa import to_dsa, to_dsa_json
from dnp_guard.audit.read.dsa_categories import categories_of
from dnp_guard.audit.read.embedded import embedded
from dnp_guard.audit.read.export import to_csv, to_parquet
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.summary import summarise
from dnp_guard.audit.read.taxonomy import classified
from dnp_guard.audit.read.times import moment
from dnp_guard.audit.read.transparency import to_transparency
from dnp_guard.audit.read.verdicts import reviews
from dnp_guard.audit.read.verify import verify
from dnp_guard.cli.console import print_json
from dnp_guard.errors import AuditError
from dnp_guard.policy import load_policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dnp_guard.audit.read.changes import RecordedChange

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The log.", show_default=False)]
_Out = Annotated[Path | None, typer.Option(help="Write to this file instead of printing.", show_default=False)]
_Since = Annotated[str | None, typer.Option(help="Start of the period: a date, a time, or 7d, 12h, 30m ago.")]
_Until = Annotated[str | None, typer.Option(help="End of the period, exclusive.")]


class Page(StrEnum):
    """File formats of ``audit report``."""

    HTML = "html"
    MARKDOWN = "markdown"
    CSV = "csv"


class Table(StrEnum):
    """File formats of ``audit export``."""

    CSV = "csv"
    PARQUET = "parquet"
    DSA = "dsa"
    DSA_JSON = "dsa-json"


def report(
    file: _File,
    *,
    form: Annotated[
        Page | None, typer.Option("--format", help="Format; by default from the name of --out, or Markdown.")
    ] = None,
    out: _Out = None,
    since: _Since = None,
    until: _Until = None,
    policy: Annotated[
        str | None, typer.Option(help="Only generations under this policy; a name, or name and revision.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only generations of this tenant.")] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Include the stored previews in the HTML, shown on demand.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--verify", help="Also verify the chain, and show the result on the page.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Summarise a period of a log: generations, findings, negatives, decisions, withheld images and changes."""
    # Jinja2 takes time to import.
    from dnp_guard.audit.read.report import document, html, listed, markdown  # noqa: PLC0415

    if json and pictures:
        raise AuditError("the JSON document has no pictures", hint="Leave out --json or --pictures.")
    first, last = (moment(since) if since else ""), (moment(until) if until else "")
    summary = summarise(_of(Log(file), policy, tenant), first, last)
    reviewed = reviews(Log(file), policy, tenant)
    changed = _changes(file, policy, tenant, first, last)
    if json:
        print_json({"ok": True, **document(summary, reviewed, changed), "errors": []})
        return
    named = Page.HTML if out is not None and out.suffix.lower() in {".html", ".htm"} else Page.MARKDOWN
    form = form or named
    if pictures and form is not Page.HTML:
        raise AuditError("only the HTML page has pictures", hint="Add --format html, or give --out a name in .html.")
    verification = verify(file) if check and form is not Page.CSV else None
    with _written(out) as target:
        if form is Page.CSV:
            to_transparency(summary, reviewed, target)
        elif form is Page.MARKDOWN:
            target.write(markdown(summary, file.name, verification, reviewed, changed))
        else:
            names = [name for image in listed(summary) for name in image.pictures] if pictures else []
            shown = embedded(previews.folder(file), names, previews.read_key()) if pictures else {}
            target.write(html(summary, file.name, verification, reviewed, changed, shown))


def export(
    file: _File,
    *,
    form: Annotated[
        Table,
        typer.Option(
            "--format",
            help="dsa: fields of the DSA Transparency Database, one row per withheld image; dsa-json: the same as "
            "request bodies for its API, one per line.",
        ),
    ] = Table.CSV,
    out: _Out = None,
    since: _Since = None,
    until: _Until = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="With dsa: policy whose taxonomy maps categories to statement categories; repeatable."),
    ] = None,
) -> None:
    """Write the records of a log for other programs, one row per record, with the taxonomy of the findings."""
    first, last = (moment(since) if since else ""), (moment(until) if until else "")
    records = _between(classified(Log(file)), first, last)
    if form is Table.PARQUET:
        if out is None:
            raise AuditError("Parquet can only be written to a file", hint="Add --out FILE.")
        to_parquet(records, out)
        return
    with _written(out) as target:
        if form is Table.CSV:
            to_csv(records, target)
        else:
            write = to_dsa if form is Table.DSA else to_dsa_json
            write(records, target, categories_of(load_policy(name) for name in policy or ()))


def _of(log: Log, policy: str | None, tenant: str | None) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, or only those of one policy or tenant.

    Raises:
        AuditError: the log has no such policy or tenant.
    """
    policies, tenants = set[str](), set[str]()
    for record in log:
        of = record.get("policy")
        name = str(of.get("name", "")) if isinstance(of, dict) else ""
        names = {name, f"{name} {of.get('revision', '')}"} if isinstance(of, dict) else set[str]()
        whose = str(record.get("tenant") or "")
        policies |= names
        tenants.add(whose)
        if (policy is None or policy in names) and tenant in {None, whose}:
            yield record
    known("policy", policy, policies)
    known("tenant", tenant, tenants)


def _changes(file: Path, policy: str | None, tenant: str | None, first: str, last: str) -> list[RecordedChange]:
    """List the recorded changes to the guard in a period, or only those of one policy or tenant."""
    return [
        change
        for change in changes(_between(Log(file).only(*CHANGES), first, last))
        if policy in {None, change.policy, change.policy.partition(" ")[0]} and tenant in {None, change.tenant}
    ]


def _between(log: Iterable[Mapping[str, Any]], first: str, last: str) -> Iterator[Mapping[str, Any]]:
    return (record for record in log if first <= record["time"] and (not last or record["time"] < last))


@contextmanager
def _written(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    with out.open("w", encoding="utf-8", newline="") as target:
        yield target
