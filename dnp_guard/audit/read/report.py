"""Report on a period of an audit log, as a page in HTML that loads no other files, or in Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dnp_guard._version import __version__
from dnp_guard.audit.read.embedded import MOST
from dnp_guard.audit.read.plots import bars, legend, stacked
from dnp_guard.audit.read.summary import HELD, timeline
from dnp_guard.audit.read.verdicts import Reviews
from dnp_guard.audit.record import clean
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.audit.read.changes import RecordedChange
    from dnp_guard.audit.read.images import ImageRow
    from dnp_guard.audit.read.summary import PolicyUse, Summary
    from dnp_guard.audit.read.verify import Verification

PERCENTILES: Final = (50, 90, 99)
_POLICIES = 20
_CHANGES = 200


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its legend.

    Attributes:
        drawing: the plot as SVG.
        legend: name of every series, with a small square in its colour as SVG.
    """

    drawing: Markup
    legend: tuple[tuple[str, Markup], ...]


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image in the report's list: it was withheld, or a policy in shadow, which only records, would withhold it.

    Attributes:
        row: collected records of the image.
        outcome: outcome in words, such as ``blocked`` or ``would be blocked``.
        pictures: file names of the stored pictures in which a query found something.
    """

    row: ImageRow
    outcome: str
    pictures: tuple[str, ...]


def html(
    summary: Summary,
    source: str,
    verification: Verification | None = None,
    reviews: Reviews | None = None,
    changes: Sequence[RecordedChange] = (),
    pictures: Mapping[str, str] | None = None,
) -> str:
    """Render the report as a self-contained page, whose only script filters the list of images.

    Args:
        summary: summary of the period.
        source: name of the log.
        verification: result of verifying the log; None if it was not verified.
        reviews: people's verdicts on images of the log.
        changes: changes of policy and log in the period, in order.
        pictures: ``data:`` addresses of stored pictures by file name; the page shows them on demand.
    """
    script = (files("dnp_guard.audit") / "templates" / "report.js").read_text(encoding="utf-8")
    outcomes = [name for name, _ in _decisions(_sum(summary.outcomes_over_time))]
    seen = [name for name, _ in _sum(summary.seen_over_time).most_common()]
    return (
        _environment(escaped=True)
        .get_template("report.html")
        .render(
            **_values(summary, source, verification, reviews, changes),
            script=Markup(script),  # noqa: S704 (our own script)
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            pictures=pictures or {},
            most=MOST,
            kept=HELD,
            outcomes_over_time=_plot(summary.outcomes_over_time, outcomes, "Images over time, by outcome"),
            seen_over_time=_plot(summary.seen_over_time, seen, "Images over time, by category seen"),
            injected_over_time=_plot(
                summary.over_time,
                [name for name, _ in summary.by_category.most_common()],
                "Negatives injected over time, by category",
            ),
            by_category=bars(summary.by_category.most_common(), "Negatives injected by category")
            if summary.by_category
            else None,
            decided=bars(_decided(summary), "Images by outcome"),
        )
    )


def markdown(
    summary: Summary,
    source: str,
    verification: Verification | None = None,
    reviews: Reviews | None = None,
    changes: Sequence[RecordedChange] = (),
) -> str:
    """Render the report in Markdown, with tables instead of plots, and without pictures.

    Args:
        summary: summary of the period.
        source: name of the log.
        verification: result of verifying the log; None if it was not verified.
        reviews: people's verdicts on images of the log.
        changes: changes of policy and log in the period, in order.
    """
    return (
        _environment(escaped=False)
        .get_template("report.md")
        .render(
            **_values(summary, source, verification, reviews, changes),
            slots=timeline(summary.over_time),
            outcomes=[name for name, _ in _decisions(_sum(summary.outcomes_over_time))],
            outcome_slots=timeline(summary.outcomes_over_time),
            by_category=summary.by_category.most_common(),
            decided=_decided(summary),
        )
    )


def listed(summary: Summary) -> list[ListedImage]:
    """List the latest images that were withheld, or that a policy in shadow would withhold, the latest first."""
    return [
        ListedImage(
            row,
            f"would be {row.would}" if row.would else row.decision,
            tuple(dict.fromkeys(sight.picture for sight in row.sights.values() if sight.picture)),
        )
        for row in reversed(summary.listed)
    ]


def document(
    summary: Summary, reviews: Reviews | None = None, changes: Sequence[RecordedChange] = ()
) -> dict[str, Any]:
    """Return the report as a JSON object for programs."""
    return {
        "first": summary.first,
        "last": summary.last,
        "records": summary.records,
        "generations": summary.generations,
        "abandoned": summary.abandoned,
        "unasked": summary.unasked,
        "images": summary.images,
        "queries": summary.queries,
        "skipped": summary.skipped,
        "injections": summary.injections,
        "waived": summary.waived,
        "injections_by_category": dict(summary.by_category),
        "seen": {name: dict(_decisions(counted)) for name, counted in _seen(summary)},
        "tenants": {name: dict(_decisions(counted)) for name, counted in sorted(summary.tenants.items())},
        "decisions": dict(_decisions(summary.decisions)),
        "would": dict(_decisions(_would(summary))),
        "degraded": dict(summary.degraded),
        "latency_ms": {f"p{share}": summary.percentile(share / 100) for share in PERCENTILES},
        "policies": [
            {
                "name": use.name,
                "revision": use.revision,
                "digest": use.digest,
                "mode": use.mode,
                "generations": use.generations,
                "steered": use.steered,
                "still_present": use.still_present,
            }
            for use in _policies(summary)
        ],
        "by_day": [
            dict(zip(("day", "tenant", "policy", "category", "outcome"), key, strict=True)) | {"images": count}
            for key, count in sorted(summary.by_day.items())
        ],
        "withheld": {"images": summary.withheld, "latest": [image.row.document() for image in listed(summary)]},
        "changes": [asdict(change) for change in changes],
        "reviews": (reviews or Reviews(())).document(),
    }


def _values(
    summary: Summary,
    source: str,
    verification: Verification | None,
    reviews: Reviews | None,
    changes: Sequence[RecordedChange],
) -> dict[str, Any]:
    return {
        "summary": summary,
        "source": source,
        "verification": verification,
        "reviews": reviews or Reviews(()),
        "listed": listed(summary),
        "changes": changes[: -_CHANGES - 1 : -1],
        "written": datetime.now(UTC).isoformat(timespec="minutes").replace("+00:00", "Z"),
        "version": __version__,
        "degraded": summary.degraded.most_common(),
        "latencies": [(f"p{share}", summary.percentile(share / 100)) for share in PERCENTILES],
        "policies": _policies(summary)[:_POLICIES],
        "seen": [(name, counted.total(), _listed(counted)) for name, counted in _seen(summary)],
        "tenants": [
            (name or "(none)", counted.total(), _listed(counted)) for name, counted in sorted(summary.tenants.items())
        ],
        "persistent": sorted(
            (use for use in _policies(summary) if use.steered), key=lambda use: (-use.share, -use.steered)
        )[:_POLICIES],
    }


def _plot(by_hour: Mapping[str, Counter[str]], series: Sequence[str], title: str) -> Plot | None:
    slots = timeline(by_hour)
    if not slots:
        return None
    return Plot(stacked(slots, series, title), tuple(legend(series)))


def _sum(by_hour: Mapping[str, Counter[str]]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for counts in by_hour.values():
        counted.update(counts)
    return counted


def _seen(summary: Summary) -> list[tuple[str, Counter[str]]]:
    return sorted(summary.seen.items(), key=lambda item: (-item[1].total(), item[0]))


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in _decisions(counted))


def _policies(summary: Summary) -> list[PolicyUse]:
    return sorted(summary.policies.values(), key=lambda use: (-use.generations, use.name, use.first))


def _decisions(counted: Counter[str]) -> list[tuple[str, int]]:
    known = [str(outcome) for outcome in Outcome]
    names = [*known, *sorted(counted.keys() - set(known))]
    return [(name, counted[name]) for name in names if counted[name]]


def _decided(summary: Summary) -> list[tuple[str, int]]:
    """Count images by outcome; images that are clean only because a policy is in shadow, by the outcome if enforced."""
    decisions = summary.decisions.copy()
    decisions[Outcome.CLEAN] -= sum(count for (outcome, _), count in summary.would.items() if outcome == Outcome.CLEAN)
    would = [(f"would have been {name}", count) for name, count in _decisions(_would(summary))]
    return [*_decisions(decisions), *would]


def _would(summary: Summary) -> Counter[str]:
    counted: Counter[str] = Counter()
    for (_, would), count in summary.would.items():
        counted[would] += count
    return counted


def _environment(*, escaped: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("dnp_guard.audit"),
        autoescape=escaped,  # noqa: S701 (off only for Markdown, whose cells are escaped)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["n"] = lambda value: f"{value:,}"
    environment.filters["when"] = lambda time: str(time)[:19].replace("T", " ")
    environment.filters["cell"] = _cell
    return environment


def _cell(text: object) -> str:
    """Escape a text for a Markdown table, so that it makes no cell, tag, link or code, and loads no picture."""
    escaped = "".join(f"\\{sign}" if sign in "\\|[]!`*" else sign for sign in clean(str(text)))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("://", ":&#47;&#47;")
