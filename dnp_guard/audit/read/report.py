"""A period of a log as a page, for people who were not there: HTML that loads nothing, or Markdown."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from dnp_guard._version import __version__
from dnp_guard.audit.read.plots import COLOURS, bars, stacked
from dnp_guard.audit.read.verdicts import Reviews
from dnp_guard.audit.record import clean
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from dnp_guard.audit.read.summary import PolicyUse, Summary
    from dnp_guard.audit.read.verify import Verification

PERCENTILES: Final = (50, 90, 99)
_POLICIES = 20


def html(
    summary: Summary, source: str, verification: Verification | None = None, reviews: Reviews | None = None
) -> str:
    """The page, whole in itself.

    Args:
        summary: of the period.
        source: name of the log.
        verification: of the log, where it was checked.
        reviews: what people said of its images.
    """
    slots, series = summary.timeline(), [name for name, _ in summary.by_category.most_common()]
    return (
        _environment(escaped=True)
        .get_template("report.html")
        .render(
            **_values(summary, source, verification, reviews),
            over_time=stacked(slots, series, "Negatives injected over time, by category") if slots else None,
            by_category=bars(summary.by_category.most_common(), "Negatives injected by category"),
            decided=bars(_decided(summary), "Images by outcome"),
            legend=[(name, COLOURS[place % len(COLOURS)]) for place, name in enumerate(series)],
        )
    )


def markdown(
    summary: Summary, source: str, verification: Verification | None = None, reviews: Reviews | None = None
) -> str:
    """The same in Markdown, with tables in the place of plots.

    Args:
        summary: of the period.
        source: name of the log.
        verification: of the log, where it was checked.
        reviews: what people said of its images.
    """
    return (
        _environment(escaped=False)
        .get_template("report.md")
        .render(
            **_values(summary, source, verification, reviews),
            slots=summary.timeline(),
            by_category=summary.by_category.most_common(),
            decided=_decided(summary),
        )
    )


def document(summary: Summary, reviews: Reviews | None = None) -> dict[str, Any]:
    """The same for programs."""
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
        "reviews": (reviews or Reviews(())).document(),
    }


def _values(
    summary: Summary, source: str, verification: Verification | None, reviews: Reviews | None
) -> dict[str, Any]:
    return {
        "summary": summary,
        "source": source,
        "verification": verification,
        "reviews": reviews or Reviews(()),
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
    """Images by outcome; those that only shadow left clean by the outcome that they would have had."""
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
        autoescape=escaped,  # noqa: S701 (only Markdown is not, whose cells are)
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
    """A text that Markdown shows as it is: no table, tag, link, code, and above all no picture from elsewhere."""
    escaped = "".join(f"\\{sign}" if sign in "\\|[]!`*" else sign for sign in clean(str(text)))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("://", ":&#47;&#47;")
