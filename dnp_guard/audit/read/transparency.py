"""Compute the figures of a transparency report, one per row: outcomes, error rates and appeals."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from dnp_guard.audit.read.export import inert

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from dnp_guard.audit.read.summary import Summary
    from dnp_guard.audit.read.verdicts import Reviews

COLUMNS: Final = ("from", "to", "measure", "category", "count", "of", "low", "high")
"""``low`` and ``high`` are the 95 % interval of the share ``count`` / ``of`` if it is estimated from a sample."""


def figures(summary: Summary, reviews: Reviews) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the transparency report, with the columns :data:`COLUMNS`.

    Args:
        summary: summary of the period.
        reviews: people's verdicts and appeals in the period.
    """
    period = summary.first[:10], summary.last[:10]
    for outcome, count in sorted(summary.decisions.items()):
        yield *period, f"images {outcome}", "", count, summary.images, "", ""
    for category, counted in sorted(summary.seen.items()):
        for outcome, count in sorted(counted.items()):
            yield *period, f"images {outcome}", category, count, summary.images, "", ""
    for rate in reviews.rates():
        yield *period, f"judged {rate.error}", rate.category, rate.count, rate.of, f"{rate.low:.4f}", f"{rate.high:.4f}"
    yield *period, "appeals made", "", reviews.appeals, summary.images, "", ""
    answered = reviews.upheld + reviews.overturned
    low, high = reviews.overturned_interval()
    yield *period, "appeals overturned", "", reviews.overturned, answered, f"{low:.4f}", f"{high:.4f}"


def to_transparency(summary: Summary, reviews: Reviews, file: TextIO) -> None:
    """Write the figures of the transparency report as CSV."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in figures(summary, reviews):
        writer.writerow([inert(value) for value in row])
