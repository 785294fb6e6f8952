"""What the pages show, read from the index. Every query is bounded, whatever the size of the log."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import VerdictGiven
from dnp_guard.audit.read.changes import RecordedChange, changes
from dnp_guard.audit.read.verdicts import Reviewed, Reviews, image_of, verdict_of
from dnp_guard.server.console.index import row_of

if TYPE_CHECKING:
    import sqlite3

    from dnp_guard.audit.read.images import ImageRow

PAGE: Final = 50
SAMPLED: Final = 100
"""Of so many images that nothing was done about, one is shown to be judged."""

SHOWN: Final = {
    "open": "attention = 1 AND verdict = ''",
    "appeals": "appeal = 'open'",
    "sample": f"attention = 0 AND verdict = '' AND id % {SAMPLED} = 0",
    "reviewed": "verdict != ''",
    "all": "1",
}
"""The lists of the queue: what needs a look, what is appealed, a sample of the rest, what was judged, everything."""

_MOST_REVIEWED: Final = 20_000
_MOST_CHANGES: Final = 500
_MOST_SIGHTS: Final = 5_000


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """What of the queue is asked for.

    Attributes:
        show: a list of :data:`SHOWN`.
        decision: "" for any.
        category: likewise.
        tenant: likewise.
        policy: name and revision; likewise.
        request: the beginning of an id.
        before: id of the last row of the page before; 0 for the first page.
    """

    show: str = "open"
    decision: str = ""
    category: str = ""
    tenant: str = ""
    policy: str = ""
    request: str = ""
    before: int = 0


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One image of the queue.

    Attributes:
        id: of the row in the index.
        row: the image.
        verdict: the latest; "" for none.
        appeal: ``open``, ``upheld``, ``overturned`` or "".
    """

    id: int
    row: ImageRow
    verdict: str
    appeal: str


@dataclass(frozen=True, slots=True)
class SeenImage:
    """One image in which a category was seen.

    Attributes:
        probability: the highest.
        threshold: that it reached.
        picture: name of a preview that was kept and in which it was seen, if not at this probability; "" for none.
        entry: the image.
    """

    probability: float
    threshold: float
    picture: str
    entry: QueueEntry


def queue(database: sqlite3.Connection, asked: QueueFilter) -> list[QueueEntry]:
    """One page of the queue, the newest first."""
    clauses, values = [SHOWN[asked.show]], list[object]()
    for column in ("decision", "tenant", "policy"):
        if value := getattr(asked, column):
            clauses.append(f"{column} = ?")
            values.append(value)
    if asked.request:
        clauses.append("request >= ? AND request < ?")
        values += [asked.request, asked.request + "\U0010ffff"]
    if asked.category:
        clauses.append("id IN (SELECT image FROM sight WHERE category = ?)")
        values.append(asked.category)
    if asked.before:
        clauses.append("(time, id) < (SELECT time, id FROM image WHERE id = ?)")
        values.append(asked.before)
    where = " AND ".join(clauses)
    rows = database.execute(
        f"SELECT id, row, verdict, appeal FROM image WHERE {where} ORDER BY time DESC, id DESC LIMIT {PAGE}",  # noqa: S608 (no text of a request is in it)
        values,
    )
    return [_entry(row) for row in rows]


def entry(database: sqlite3.Connection, request: str, image: int) -> QueueEntry | None:
    """One image; None where the log has no such finished image."""
    row = database.execute(
        "SELECT id, row, verdict, appeal FROM image WHERE request = ? AND image = ?", (request, image)
    ).fetchone()
    return _entry(row) if row is not None else None


def following(database: sqlite3.Connection, after: QueueEntry, tenant: str) -> QueueEntry | None:
    """The next older image that needs a look."""
    row = database.execute(
        "SELECT id, row, verdict, appeal FROM image WHERE attention = 1 AND verdict = '' AND (time, id) < (?, ?)"
        " AND (? = '' OR tenant = ?) ORDER BY time DESC, id DESC LIMIT 1",
        (after.row.time, after.id, tenant, tenant),
    ).fetchone()
    return _entry(row) if row is not None else None


def names(database: sqlite3.Connection, tenant: str) -> dict[str, list[str]]:
    """The names that the queue can be filtered by."""
    of = "WHERE ? = '' OR tenant = ?"
    policies = database.execute(f"SELECT DISTINCT policy FROM day {of} ORDER BY policy", (tenant, tenant)).fetchall()  # noqa: S608
    tenants = database.execute(f"SELECT DISTINCT tenant FROM day {of} ORDER BY tenant", (tenant, tenant)).fetchall()  # noqa: S608
    return {
        "policy": [row[0] for row in policies],
        "tenant": [row[0] for row in tenants if row[0]],
        "category": categories(database),
    }


def categories(database: sqlite3.Connection) -> list[str]:
    """Ids of every category that was seen, by a walk over the index that skips what is the same."""
    found: list[str] = []
    while True:
        last = found[-1] if found else ""
        row = database.execute("SELECT min(category) FROM sight WHERE category > ?", (last,)).fetchone()
        if row[0] is None:
            return found
        found.append(row[0])


def reviews(database: sqlite3.Connection, tenant: str) -> Reviews:
    """What people said of images, the latest."""
    given: dict[tuple[str, int], dict[str, Any]] = defaultdict(dict)
    for (text,) in database.execute("SELECT record FROM said ORDER BY rowid DESC LIMIT ?", (_MOST_REVIEWED,)):
        record = json.loads(text)
        if record["event"] == VerdictGiven.name and tenant in {"", record.get("tenant")}:
            verdict = verdict_of(record)
            given[image_of(record)].setdefault(verdict.by, verdict)
    entries = {key: entry(database, *key) for key in given}
    counted = dict(
        database.execute(
            "SELECT appeal, count(*) FROM image WHERE appeal != '' AND (? = '' OR tenant = ?) GROUP BY appeal",
            (tenant, tenant),
        ).fetchall()
    )
    found = tuple(Reviewed(of.row, tuple(given[key].values())) for key, of in entries.items() if of is not None)
    return Reviews(found, sum(counted.values()), counted.get("upheld", 0), counted.get("overturned", 0))


def changed(database: sqlite3.Connection, tenant: str) -> list[RecordedChange]:
    """Who changed what, the latest first."""
    records = [json.loads(text) for (text,) in database.execute("SELECT record FROM change ORDER BY rowid")]
    found = [each for each in changes(records) if tenant in {"", each.tenant}]
    return found[: -_MOST_CHANGES - 1 : -1]


def sights(database: sqlite3.Connection, category: str, tenant: str) -> list[SeenImage]:
    """The latest images in which a category was seen at a probability that the record tells, the least sure first."""
    rows = database.execute(
        "SELECT probability, threshold, picture, id, row, verdict, appeal FROM sight"
        " JOIN image ON image.id = sight.image"
        " WHERE category = ? AND probability IS NOT NULL AND (? = '' OR tenant = ?)"
        " ORDER BY sight.image DESC LIMIT ?",
        (category, tenant, tenant, _MOST_SIGHTS),
    ).fetchall()
    found = [SeenImage(row["probability"], row["threshold"] or 0.0, row["picture"], _entry(row)) for row in rows]
    return sorted(found, key=lambda seen: seen.probability)


def _entry(row: sqlite3.Row) -> QueueEntry:
    return QueueEntry(row["id"], row_of(row["row"]), row["verdict"], row["appeal"])
