"""Read the data of the console's pages from the index; a page gets a limited number of rows, however large the log."""

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
"""One in this many images without a finding is offered for review."""

SHOWN: Final = {
    "open": "attention = 1 AND verdict = ''",
    "appeals": "appeal = 'open'",
    "sample": f"attention = 0 AND verdict = '' AND id % {SAMPLED} = 0",
    "reviewed": "verdict != ''",
    "all": "1",
}
"""Lists of the queue: images to review, appealed ones, a sample of the rest, reviewed ones, all."""

_MOST_REVIEWED: Final = 20_000
_MOST_CHANGES: Final = 500
_MOST_SIGHTS: Final = 5_000


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Selects one page of the queue: the list of images that people review.

    Attributes:
        show: which list of the queue to show: one of the names in :data:`SHOWN`.
        decision: a decision; "" for any.
        category: a category; "" for any.
        tenant: a tenant; "" for any.
        policy: name and revision of a policy; "" for any.
        request: beginning of a request's id.
        before: id of the last row of the previous page; 0 for the first page.
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
        id: id of the image in the index.
        row: data of the image.
        verdict: the latest verdict of any reviewer: ``right``, ``false_alarm`` or ``missed``; "" for none.
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
        probability: the highest probability that a query of the image gave the category.
        threshold: the policy's threshold, which the probability reached.
        picture: name of a stored preview in which the category was seen, perhaps with another probability; "" for none.
        entry: the image.
    """

    probability: float
    threshold: float
    picture: str
    entry: QueueEntry


def queue(database: sqlite3.Connection, asked: QueueFilter) -> list[QueueEntry]:
    """Read one page of the queue, the newest image first."""
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
    """Find one image by its request id and its index in the batch; None if the log has no such finished image."""
    row = database.execute(
        "SELECT id, row, verdict, appeal FROM image WHERE request = ? AND image = ?", (request, image)
    ).fetchone()
    return _entry(row) if row is not None else None


def following(database: sqlite3.Connection, after: QueueEntry, tenant: str) -> QueueEntry | None:
    """Find the next older image that needs a review; None if there is none."""
    row = database.execute(
        "SELECT id, row, verdict, appeal FROM image WHERE attention = 1 AND verdict = '' AND (time, id) < (?, ?)"
        " AND (? = '' OR tenant = ?) ORDER BY time DESC, id DESC LIMIT 1",
        (after.row.time, after.id, tenant, tenant),
    ).fetchone()
    return _entry(row) if row is not None else None


def names(database: sqlite3.Connection, tenant: str) -> dict[str, list[str]]:
    """Return the names of policies, tenants and categories by which the queue can be filtered."""
    of = "WHERE ? = '' OR tenant = ?"
    policies = database.execute(f"SELECT DISTINCT policy FROM day {of} ORDER BY policy", (tenant, tenant)).fetchall()  # noqa: S608
    tenants = database.execute(f"SELECT DISTINCT tenant FROM day {of} ORDER BY tenant", (tenant, tenant)).fetchall()  # noqa: S608
    return {
        "policy": [row[0] for row in policies],
        "tenant": [row[0] for row in tenants if row[0]],
        "category": categories(database),
    }


def categories(database: sqlite3.Connection) -> list[str]:
    """Return the ids of all categories that were seen in any image, in alphabetical order."""
    seen: list[str] = []
    while True:  # one look-up per category; SELECT DISTINCT would read every sighting
        last = seen[-1] if seen else ""
        row = database.execute("SELECT min(category) FROM sight WHERE category > ?", (last,)).fetchone()
        if row[0] is None:
            return seen
        seen.append(row[0])


def reviews(database: sqlite3.Connection, tenant: str) -> Reviews:
    """Return people's latest verdicts on the images of a tenant, or of all for "", and the numbers of appeals."""
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
    reviewed = tuple(
        Reviewed(item.row, tuple(given[key].values())) for key, item in entries.items() if item is not None
    )
    return Reviews(reviewed, sum(counted.values()), counted.get("upheld", 0), counted.get("overturned", 0))


def changed(database: sqlite3.Connection, tenant: str) -> list[RecordedChange]:
    """Return the recorded changes, such as a reloaded policy, and who made them, the latest first."""
    records = [json.loads(text) for (text,) in database.execute("SELECT record FROM change ORDER BY rowid")]
    visible = [change for change in changes(records) if tenant in {"", change.tenant}]
    return visible[: -_MOST_CHANGES - 1 : -1]


def sights(database: sqlite3.Connection, category: str, tenant: str) -> list[SeenImage]:
    """Return the latest images in which a category was seen with a recorded probability, the least certain first."""
    rows = database.execute(
        "SELECT probability, threshold, picture, id, row, verdict, appeal FROM sight"
        " JOIN image ON image.id = sight.image"
        " WHERE category = ? AND probability IS NOT NULL AND (? = '' OR tenant = ?)"
        " ORDER BY sight.image DESC LIMIT ?",
        (category, tenant, tenant, _MOST_SIGHTS),
    ).fetchall()
    images = [SeenImage(row["probability"], row["threshold"] or 0.0, row["picture"], _entry(row)) for row in rows]
    return sorted(images, key=lambda seen: seen.probability)


def _entry(row: sqlite3.Row) -> QueueEntry:
    return QueueEntry(row["id"], row_of(row["row"]), row["verdict"], row["appeal"])
