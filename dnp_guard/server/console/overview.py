"""Count the outcomes of recent images by tenant, policy and category, from the console's index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dnp_guard.types import Outcome

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

DAYS: Final = 31
MOST_ROWS: Final = 20
"""Most rows of a table: the ones with the most images."""

_BY: Final = ("tenant", "policy", "category")


@dataclass(frozen=True, slots=True)
class OverviewFilter:
    """Selects the images that the overview covers.

    Attributes:
        tenant: a tenant; "" for all.
        policy: name and revision of a policy; "" for all.
        category: a category that was seen in the images; "" for all images, even those without any.
    """

    tenant: str = ""
    policy: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """Numbers of images of the last days, by outcome.

    In shadow mode the guard only records its decisions. Its images are counted by the outcome that enforcement would
    have given them, such as ``would be blocked``.

    Attributes:
        outcomes: the outcomes that occur, in display order.
        days: for every day, its date and its counts by outcome; the earliest day first.
        totals: under ``tenant``, ``policy`` and ``category``: their names and counts by outcome, the largest total
            first.
    """

    outcomes: tuple[str, ...]
    days: tuple[tuple[str, Counter[str]], ...]
    totals: dict[str, tuple[tuple[str, Counter[str]], ...]]


def overview(database: sqlite3.Connection, asked: OverviewFilter) -> Overview:
    """Count the selected images of the last :data:`DAYS` days on which there were any."""
    rows = database.execute(
        "WITH asked AS (SELECT * FROM day WHERE (? = '' OR tenant = ?) AND (? = '' OR policy = ?))"
        " SELECT day, tenant, policy, category, outcome, images FROM asked"
        " WHERE day IN (SELECT DISTINCT day FROM asked ORDER BY day DESC LIMIT ?)",
        (asked.tenant, asked.tenant, asked.policy, asked.policy, DAYS),
    ).fetchall()
    counted = [row for row in rows if row["category"] == asked.category]
    days = _sums((row["day"], row["outcome"], row["images"]) for row in counted)
    totals = {
        by: _most(
            _sums(
                (row[by], row["outcome"], row["images"])
                for row in (rows if by == "category" and not asked.category else counted)
                if row[by]
            )
        )
        for by in _BY
    }
    return Overview(_order({name for counts in days.values() for name in counts}), tuple(sorted(days.items())), totals)


def _sums(rows: Iterable[tuple[str, str, int]]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for name, outcome, images in rows:
        counts.setdefault(name, Counter())[outcome] += images
    return counts


def _most(counts: dict[str, Counter[str]]) -> tuple[tuple[str, Counter[str]], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))[:MOST_ROWS])


def _order(names: set[str]) -> tuple[str, ...]:
    known = [*map(str, Outcome), *(f"would be {outcome}" for outcome in Outcome)]
    return (*(name for name in known if name in names), *sorted(names - set(known)))
