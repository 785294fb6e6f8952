from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from dnp_guard.audit.read.show import Filter, Log, generations, line, overview, timeline
from dnp_guard.audit.record import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.table import Table


def seen(category: str, probability: float) -> dict[str, Any]:
    return {"category": category, "term": "t", "probability": probability, "threshold": 0.5}


POLICY = {"name": "default", "revision": "1.0.0"}
RECORDS = [
    build("policy.loaded", policy=POLICY),
    build("request.started", request="r1", policy=POLICY),
    build(
        "query",
        request="r1",
        image=0,
        step=3,
        steps=30,
        sigma=7.25,
        findings=[seen("nudity", 0.9), seen("weapon", 0.5), seen("nudity", 0.6)],
        decision="steer",
        latency_ms=120.5,
    ),
    build(
        "negative.injected",
        request="r1",
        image=0,
        applied_step=4,
        negative={"text": "nudity, [red]", "scale": 7.5, "mode": "separate"},
    ),
    build("request.started", request="r2", policy=POLICY),
    build("query", request="r2", image=0, step=3, decision="none"),
    build("negative.cleared", request="r1", image=0, applied_step=9),
    build("query", request="r1", image=0, decision="none"),
    build("degraded", request="r1", reason="vlm_timeout"),
    build("request.finished", request="r1", image=0, decision="steered"),
    build("request.finished", request="r1", image=1, decision="clean"),
    build("request.finished", request="r2", image=0, decision="clean"),
    build("request.started", request="r3", policy=POLICY, tenant="acme"),
    build("request.abandoned", request="r4", policy=POLICY),
]


def text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def requests(**filters: str) -> list[str]:
    return [generation.request for generation in generations(RECORDS, Filter(**filters))]


def test_a_generation_sums_up_its_records() -> None:
    (first, *_) = generations(RECORDS)
    assert first.policy == "default 1.0.0"
    assert first.decision == "steered"
    assert first.categories == ["nudity", "weapon"]
    assert first.queries == 2
    assert first.negatives == 1
    assert first.degraded == 1


def test_a_generation_without_an_outcome_says_why() -> None:
    assert [generation.decision for generation in generations(RECORDS)[2:]] == ["unfinished", "abandoned"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["r1", "r2", "r3", "r4"]),
        ({"category": "weapon"}, ["r1"]),
        ({"decision": "clean"}, ["r1", "r2"]),
        ({"decision": "unfinished"}, ["r3"]),
        ({"category": "nudity", "decision": "blocked"}, []),
        ({"policy": "default"}, ["r1", "r2", "r3", "r4"]),
        ({"policy": "default 1.0.0"}, ["r1", "r2", "r3", "r4"]),
        ({"policy": "def"}, []),
        ({"tenant": "acme"}, ["r3"]),
        ({"since": "2000-01-01"}, ["r1", "r2", "r3", "r4"]),
        ({"until": "2000-01-01"}, []),
    ],
)
def test_generations_are_filtered_by_what_was_seen_and_decided(filters: dict[str, str], expected: list[str]) -> None:
    assert requests(**filters) == expected


def test_the_overview_has_a_row_for_each_generation() -> None:
    _, *rows = text(overview(generations(RECORDS))).splitlines()
    assert [row.split()[0] for row in rows] == ["r1", "r2", "r3", "r4"]


def test_the_timeline_shows_step_sigma_probabilities_and_what_was_injected() -> None:
    shown = text(timeline(record for record in RECORDS if record.get("request") == "r1"))
    assert [row.split() for row in shown.splitlines()[2:6]] == [
        ["3/30", "0", "7.25", "nudity", "███████░", "0.90", "steer", "120.5"],
        ["weapon", "████░░░░", "0.50"],
        ["0", "inject", "“nudity,", "[red]”", "×", "7.5", "from", "step", "4", "on"],
        ["0", "clear", "the", "negative", "from", "step", "9", "on"],
    ]


def test_the_timeline_names_the_final_look_and_the_outcome() -> None:
    shown = text(timeline(record for record in RECORDS if record.get("request") == "r1"))
    assert [row.split() for row in shown.splitlines()[6:9]] == [
        ["final", "0"],
        ["degraded:", "vlm_timeout"],
        ["0", "request.finished:", "steered"],
    ]


def test_a_record_of_a_followed_log_is_one_line() -> None:
    shown = [line(record)[14:] for record in RECORDS]
    assert shown[2] == "r1 image 0 3/30  query  nudity ███████░ 0.90 weapon ████░░░░ 0.50  steer"
    assert shown[3] == "r1 image 0  negative.injected  inject “nudity, [red]” × 7.5 from step 4 on"
    assert not any("\n" in line for line in shown)


def test_the_overview_says_what_shadow_would_have_done_with_the_strictest_image() -> None:
    ends = [("clean", None), ("clean", {"decision": "steered"}), ("clean", {"decision": "blocked"})]
    records = [
        build("request.finished", request="r1", image=index, decision=decision, **({"would": would} if would else {}))
        for index, (decision, would) in enumerate(ends)
    ]
    assert "clean, would have been blocked" in text(overview(generations(records)))
    assert "would" not in text(overview(generations(records[:1])))


def test_the_action_of_a_shadow_policy_is_shown() -> None:
    record = build("query", request="r1", decision="none", would={"decision": "block"})
    assert "would block" in text(timeline([record]))


def test_a_log_is_read_past_lines_that_are_no_records(log: Callable[..., Path], sealed_lines: list[bytes]) -> None:
    read = Log(log([sealed_lines[0], b"garbage\n", *sealed_lines[1:4], sealed_lines[4][:30]]))
    assert [record["seq"] for record in read] == [0, 1, 2, 3]
    assert read.skipped == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"findings": "x", "policy": 3, "negative": []},
        {"findings": [1, {"probability": "high"}, {}], "sigma": "Infinity", "step": {}, "would": 1},
    ],
)
def test_records_of_another_shape_are_shown_as_far_as_they_go(fields: dict[str, Any]) -> None:
    record = build("query", request="r9", **fields)
    assert "r9" in text(overview(generations([record])))
    assert text(timeline([record])) != ""
