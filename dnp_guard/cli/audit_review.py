"""``dnp-guard audit changes``, ``candidates``, ``verdict`` and ``show --images``: reviews by people."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from dnp_guard.audit.events import VerdictGiven
from dnp_guard.audit.read import verdict as giving
from dnp_guard.audit.read.changes import changes as recorded_changes
from dnp_guard.audit.read.choose import known
from dnp_guard.audit.read.images import ACTED_ON, ImageRow, images
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.times import moment
from dnp_guard.audit.read.verdict import Judged
from dnp_guard.audit.record import clean
from dnp_guard.cli.console import AsJson, print_json, print_table

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The log.", show_default=False)]
_Since = Annotated[str | None, typer.Option(help="Start of the period: a date, a time, or 7d, 12h, 30m ago.")]
_Until = Annotated[str | None, typer.Option(help="End of the period, exclusive.")]
_Category = Annotated[str | None, typer.Option(help="Only images in which this category was found.")]


def changes(
    file: _File,
    *,
    policy: Annotated[str | None, typer.Option(help="Only changes of this policy, by name.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only changes of this tenant.")] = None,
    since: _Since = None,
    until: _Until = None,
    as_json: AsJson = False,
) -> None:
    """List the changes to the guard, with person, time and reason.

    Changes are policies that were loaded or rejected, exceptions, overrides, holds, purges and erasures.
    """
    listed = list(recorded_changes(Log(file)))
    if listed:
        known(
            "policy", policy, {name for change in listed for name in (change.policy, change.policy.partition(" ")[0])}
        )
        known("tenant", tenant, {change.tenant for change in listed})
    first, last = moment(since) if since else "", moment(until) if until else ""
    listed = [
        change
        for change in listed
        if (policy is None or policy in {change.policy, change.policy.partition(" ")[0]})
        and tenant in {None, change.tenant}
        and first <= change.time
        and (not last or change.time < last)
    ]
    if as_json:
        print_json({"ok": True, "changes": [asdict(change) for change in listed], "errors": []})
        return
    if not listed:
        typer.echo("no changes")
        return
    rows = [
        (change.time[:19].replace("T", " "), change.policy, change.what, change.who, change.why, change.digest[:12])
        for change in listed
    ]
    print_table(_table(("time (UTC)", "policy", "change", "person", "reason", "digest"), rows))


def candidates(
    file: _File,
    *,
    category: _Category = None,
    margin: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest excess over the threshold, as a fraction of the range above it."),
    ] = 0.25,
    top: Annotated[int, typer.Option(min=1, help="Most images to list.")] = 50,
    since: _Since = None,
    until: _Until = None,
    as_json: AsJson = False,
) -> None:
    """List images that were altered or withheld on weak evidence, weakest first, to find false alarms."""
    first, last = moment(since) if since else "", moment(until) if until else ""
    rows = list(images(Log(file)))
    if rows:
        known("category", category, {name for row in rows for name in row.sights})
    weak = [
        row
        for row in rows
        if row.decision in ACTED_ON
        and row.margin is not None
        and row.margin <= margin
        and (category is None or category in row.sights)
        and first <= row.time
        and (not last or row.time < last)
    ]
    weak.sort(key=lambda row: (row.margin or 0.0, row.time))
    acted = sum(row.decision in ACTED_ON for row in rows)
    if as_json:
        print_json({"ok": True, "acted_on": acted, "images": [row.document() for row in weak[:top]], "errors": []})
        return
    typer.echo(f"{len(weak)} of {acted} images that were altered or withheld had evidence within {margin:g}")
    if weak:
        _print_images(weak[:top])


def verdict(
    file: _File,
    request: Annotated[str, typer.Argument(help="Id of the generation, or its beginning.", show_default=False)],
    judged: Annotated[
        Judged, typer.Argument(metavar="VERDICT", help="right, false_alarm or missed.", show_default=False)
    ],
    *,
    by: Annotated[str, typer.Option(help="Person who gives the verdict; recorded.", show_default=False)],
    image: Annotated[int, typer.Option(min=0, help="Index in the batch.")] = 0,
    category: Annotated[str | None, typer.Option(help="Category that the verdict is about; omitted: all.")] = None,
    note: Annotated[str, typer.Option(help="Remark; recorded.")] = "",
) -> None:
    """Record whether the decision about an image is right.

    Verdicts feed the report's error rates, 'vlm calibrate --from-verdicts' and 'policy cases --from-verdicts'.
    """
    if not by.strip():
        raise typer.BadParameter("say who gives the verdict.", param_hint="--by")
    request, common = giving.common_of(file, request, image)
    given = VerdictGiven(request=request, image=image, verdict=judged, category=category, by=by, note=note or None)
    giving.judge(file, common, given)
    typer.echo(f"{request}/{image}: {judged}, by {by}")


def show_images(log: Log, requests: Collection[str], category: str | None, decision: str | None, *, json: bool) -> None:
    """Print one row per finished image of some generations, or only of those with a category or decision."""
    rows = [
        row
        for row in images(log)
        if row.request in requests and decision in {None, row.decision} and (category is None or category in row.sights)
    ]
    if json:
        print_json({"ok": True, "images": [row.document() for row in rows], "errors": []})
    elif not rows:
        typer.echo("no images")
    else:
        _print_images(rows)


def _print_images(rows: Iterable[ImageRow]) -> None:
    cells = [(row.id, row.time[:19].replace("T", " "), row.policy, row.decision, row.why) for row in rows]
    print_table(_table(("image", "finished", "policy", "decision", "reason"), cells))


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table
