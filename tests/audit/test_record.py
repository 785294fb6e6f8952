from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.audit.record import LONGEST, build, clean
from dnp_guard.canonical import canonical
from dnp_guard.errors import AuditError
from dnp_guard.types import Finding, Outcome

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


def test_a_record_names_its_format_time_and_event() -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert build("query", at=at, step=3) == {"v": 1, "time": "2026-03-01T10:00:00.123Z", "event": "query", "step": 3}


def test_a_record_without_a_time_is_of_now() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert before <= datetime.fromisoformat(build("query")["time"]) <= datetime.now(UTC)


def test_absent_fields_are_left_out_at_every_depth() -> None:
    record = build("query", step=None, policy={"name": "p", "revision": None}, findings=[{"term": None}], reason="")
    assert {key: record[key] for key in record if key not in {"v", "time", "event"}} == {
        "policy": {"name": "p"},
        "findings": [{}],
        "reason": "",
    }


@pytest.mark.parametrize("field", ["v", "time", "seq", "prev", "hash"])
def test_the_fields_of_the_log_itself_are_refused(field: str) -> None:
    with pytest.raises(AuditError, match=f"the log itself writes the audit field {field!r}"):
        build("query", **{field: 1})


def test_a_value_that_is_not_json_is_refused_with_its_place() -> None:
    with pytest.raises(AuditError, match=r"run\.seeds\[1\] contains a object"):
        build("query", run={"seeds": [1, object()]})


def test_dataclasses_and_enumerations_become_json() -> None:
    record = build("request.finished", decision=Outcome.BLOCKED, findings=(Finding("a", "b", 0.5, 0.25),))
    assert json.loads(canonical(record)) == {
        **record,
        "decision": "blocked",
        "findings": [{"category": "a", "term": "b", "probability": 0.5, "threshold": 0.25}],
    }


def test_measurements_have_six_significant_decimals_and_other_floats_all_of_them() -> None:
    record = build("query", sigma=14.6146412293, latency_ms=np.float32(0.1), negative={"scale": 1 / 3})
    assert record["sigma"] == 14.6146
    assert record["latency_ms"] == 0.1
    assert record["negative"]["scale"] == 1 / 3


@pytest.mark.parametrize(
    ("value", "written"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (2**64, str(2**64)), (np.int64(7), 7)],
)
def test_numbers_that_json_cannot_hold_become_strings(value: float, written: object) -> None:
    assert build("query", sigma=value)["sigma"] == written


def test_control_and_bidirectional_characters_are_stripped_and_line_breaks_become_spaces() -> None:
    assert clean("a\x1b[31m\u202eb\u2066\r\nc\x00\x85d\ud800") == "a[31mb c d\N{REPLACEMENT CHARACTER}"


def test_a_string_is_cut_at_the_longest_length() -> None:
    assert clean("x" * (LONGEST + 1)) == "x" * (LONGEST - 1) + "…"


@given(anything)
def test_whatever_json_like_value_is_recorded_has_a_canonical_form(value: object) -> None:
    record = build("degraded", detail=value)
    assert json.loads(canonical(record))["event"] == "degraded"
