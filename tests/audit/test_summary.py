from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dnp_guard.audit.read.summary import HELD, Summary, summarise, timeline
from dnp_guard.audit.record import build

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = {"name": "default", "revision": "1", "digest": "d", "mode": "enforce"}


def findings(*categories: str) -> list[dict[str, Any]]:
    return [{"category": name, "term": "t", "probability": 0.9, "threshold": 0.5} for name in categories]


def event(name: str, hours: float = 0, **fields: Any) -> dict[str, Any]:
    return build(name, at=START + timedelta(hours=hours), policy=POLICY, **fields)


def generation(request: str, *, seen: tuple[str, ...] = (), final: tuple[str, ...] = (), hours: float = 0) -> list[Any]:
    injected = [event("negative.injected", hours, request=request, image=0, findings=findings(*seen))] if seen else []
    return [
        event("request.started", hours, request=request),
        event("query", hours, request=request, image=0, step=3, findings=findings(*seen) or None, latency_ms=10.0),
        *injected,
        event("query", hours, request=request, image=0, findings=findings(*final) or None, latency_ms=100.0),
        event("request.finished", hours, request=request, image=0, decision="blocked" if final else "clean"),
    ]


def test_it_counts_what_happened() -> None:
    of = summarise([*generation("r1", seen=("nudity", "weapon")), *generation("r2"), event("degraded", reason="a: b")])
    assert of.generations == 2
    assert of.images == 2
    assert of.queries == 4
    assert of.injections == 1
    assert of.decisions == {"clean": 2}
    assert of.degraded == {"a": 1}


def test_a_negative_counts_once_under_the_first_category() -> None:
    of = summarise([*generation("r1", seen=("nudity", "weapon")), event("negative.injected", request="r1", image=0)])
    assert of.by_category == {"nudity": 1, HELD: 1}
    assert of.by_category.total() == of.injections


@pytest.mark.parametrize(("final", "still"), [(("nudity",), 1), (("weapon",), 0), ((), 0)])
def test_a_steered_category_that_is_found_at_the_end_is_still_present(final: tuple[str, ...], still: int) -> None:
    (use,) = summarise(generation("r1", seen=("nudity",), final=final)).policies.values()
    assert use.generations == 1
    assert use.steered == 1
    assert use.still_present == still


def test_a_category_that_was_never_steered_is_not_still_present() -> None:
    (use,) = summarise(generation("r1", final=("nudity",))).policies.values()
    assert use.steered == 0
    assert use.still_present == 0


def test_percentiles_are_right_to_a_few_percent() -> None:
    of = summarise([event("query", request="r", latency_ms=float(value)) for value in range(1, 1001)])
    assert [of.percentile(share) for share in (0.5, 0.99)] == [
        pytest.approx(500, rel=0.06),
        pytest.approx(990, rel=0.06),
    ]


def test_without_answers_there_is_no_percentile() -> None:
    assert Summary().percentile(0.5) is None


@pytest.mark.parametrize(("days", "label"), [(1, "2026-01-01T00"), (40, "2026-01-01"), (400, "2026-01")])
def test_the_timeline_is_by_hour_day_or_month(days: int, label: str) -> None:
    hours = [24 * day + hour for day in range(days) for hour in (0, 1)]
    of = summarise(record for hour in hours for record in generation(str(hour), seen=("a",), hours=hour))
    slots = timeline(of.over_time)
    assert slots[0][0] == label
    assert sum(counts.total() for _, counts in slots) == 2 * days
    assert len(slots) <= 60


def test_images_are_counted_by_day_tenant_policy_category_and_outcome() -> None:
    of = summarise([*generation("r1", seen=("nudity",), final=("nudity",)), *generation("r2", hours=30)])
    assert of.by_day == {
        ("2026-01-01", "", "default 1", "", "blocked"): 1,
        ("2026-01-01", "", "default 1", "nudity", "blocked"): 1,
        ("2026-01-02", "", "default 1", "", "clean"): 1,
    }


def test_monitored_categories_are_named() -> None:
    look = event("query", request="r1", image=0, findings=findings("apparent_minor"), decision="none")
    of = summarise([look, event("request.finished", request="r1", image=0, decision="monitored")])
    assert of.seen == {"apparent_minor": {"monitored": 1}}


def test_the_latest_withheld_images_are_listed_and_all_are_counted() -> None:
    of = summarise(record for number in range(502) for record in generation(str(number), final=("a",)))
    assert of.withheld == 502
    assert len(of.listed) == 500
    assert of.listed[-1].request == "501"


def test_only_the_period_counts() -> None:
    records = [event("query", hours, request="r", latency_ms=1.0) for hours in range(5)]
    assert summarise(records, "2026-01-01T01:00:00.000Z", "2026-01-01T03:00:00.000Z").queries == 2


def test_a_generation_without_an_answer_is_unasked() -> None:
    records = [event("request.started", request="r"), event("request.finished", request="r", image=0, decision="clean")]
    assert summarise([*records, *generation("r2")]).unasked == 1


def test_unended_generations_do_not_pile_up() -> None:
    started = [event("request.started", request=str(number)) for number in range(20_100)]
    ended = [event("request.finished", request=str(number), image=0, decision="clean") for number in (99, 100)]
    assert summarise([*started, *ended]).unasked == 1  # the summary forgets those of the first hundred
