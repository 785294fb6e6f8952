from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from dnp_guard.audit.read.dsa import DSA_COLUMNS, statements, to_dsa, to_dsa_json
from dnp_guard.audit.read.dsa_categories import categories_of, nearest_of
from dnp_guard.audit.read.export import COLUMNS, flat, to_csv, to_parquet
from dnp_guard.audit.read.taxonomy import classified
from dnp_guard.audit.record import build
from dnp_guard.errors import AuditError
from dnp_guard.policy import load_policy
from tests.policies import policy, star

FINDING = {"category": "nudity", "term": "t", "probability": 0.9, "threshold": 0.5}
POLICY = {"name": "default", "revision": "1.0.0", "digest": "d", "mode": "enforce"}
POLICIES = Path(__file__).parents[2] / "policies"
EMBEDDED = {POLICIES / "glyphs.yaml", POLICIES / "glyphs-light.yaml"}
"""Policies of the embedded models, whose categories are in no taxonomy of hazards."""


def generation(decision: str) -> list[dict[str, Any]]:
    common = {"request": "r1", "image": 0, "policy": POLICY}
    return [
        build("query", **common, step=3, sigma=7.25, findings=[FINDING], latency_ms=10.0),
        build("query", **common, findings=[FINDING], latency_ms=10.0),
        build("request.finished", **common, decision=decision),
    ]


def rows(write: Any, records: list[dict[str, Any]]) -> list[dict[str, str]]:
    file = io.StringIO()
    write(records, file)
    return list(csv.DictReader(io.StringIO(file.getvalue())))


def test_a_record_is_one_row_of_csv() -> None:
    first, *_ = rows(to_csv, generation("clean"))
    assert first["event"] == "query"
    assert first["policy.name"] == "default"
    assert first["sigma"] == "7.25"
    assert json.loads(first["findings"]) == [FINDING]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_text_is_a_formula(text: str) -> None:
    (row,) = rows(to_csv, [build("degraded", reason=text)])
    assert row["reason"] == f"'{text}"


def test_parquet_has_the_same_rows_with_types(tmp_path: Path) -> None:
    records = generation("clean")
    written = to_parquet(records, tmp_path / "a.parquet")
    read = parquet.read_table(tmp_path / "a.parquet")
    assert written == 3
    assert read.column_names == list(COLUMNS)
    assert read.to_pylist()[0]["sigma"] == 7.25
    assert read.to_pylist()[0]["step"] == 3


def test_parquet_of_strange_records_is_written(tmp_path: Path) -> None:
    records = [build("query", step="x", sigma="Infinity", tenant=3, findings="none")]
    to_parquet(records, tmp_path / "a.parquet")
    (row,) = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert row["step"] is None
    assert row["sigma"] is None
    assert row["tenant"] == "3"


@pytest.mark.parametrize(
    ("decision", "visibility"),
    [
        ("blocked", ['["DECISION_VISIBILITY_CONTENT_DISABLED"]']),
        ("blurred", ['["DECISION_VISIBILITY_OTHER"]']),
        ("steered", []),
        ("clean", []),
        ("failed_closed", []),
    ],
)
def test_a_statement_of_reasons_is_made_for_what_was_withheld_for_its_content(
    decision: str, visibility: list[str]
) -> None:
    assert [row["decision_visibility"] for row in rows(to_dsa, generation(decision))] == visibility


def test_a_statement_names_the_policy_and_the_category() -> None:
    (row,) = rows(to_dsa, generation("blocked"))
    assert tuple(row) == DSA_COLUMNS
    assert row["puid"] == "r1-0"
    assert row["incompatible_content_ground"] == "policy default 1.0.0"
    assert row["incompatible_content_explanation"].endswith("nudity.")


def test_an_export_says_who_approved_what_ran_and_whose_prompt_it_was() -> None:
    records = [
        build("policy.loaded", policy=POLICY, loaded={"approver": "bob", "reason": "fewer false alarms"}),
        build("request.started", request="r1", policy=POLICY, prompt={"hmac": "f" * 64}, run={"seed": 7}),
    ]
    loaded, started = rows(to_csv, records)
    assert loaded["loaded.approver"] == "bob"
    assert loaded["loaded.reason"] == "fewer false alarms"
    assert json.loads(started["prompt"]) == {"hmac": "f" * 64}
    assert json.loads(started["run"]) == {"seed": 7}


def test_missing_fields_of_a_record_are_empty() -> None:
    assert set(flat({"event": "query", "policy": 3}).values()) == {"query", None}


@pytest.mark.parametrize(
    ("taxonomy", "category", "keywords"),
    [
        ({"name": "DSA", "id": "STATEMENT_CATEGORY_VIOLENCE"}, "VIOLENCE", []),
        ({"name": "DSA", "id": "STATEMENT_CATEGORY_SCOPE_OF_PLATFORM_SERVICE"}, "OTHER_VIOLATION_TC", []),
        ({"name": "LlavaGuard", "id": "O4"}, "OTHER_VIOLATION_TC", ["KEYWORD_NUDITY"]),
        ({"name": "LlavaGuard", "id": "O6"}, "UNSAFE_AND_PROHIBITED_PRODUCTS", ["KEYWORD_PROHIBITED_PRODUCTS"]),
        ({"name": "AILuminate", "id": "dfm"}, "ILLEGAL_OR_HARMFUL_SPEECH", ["KEYWORD_DEFAMATION"]),
        ({"name": "AILuminate", "id": "ncr"}, "OTHER_VIOLATION_TC", []),
        (None, "OTHER_VIOLATION_TC", []),
    ],
)
def test_the_statement_category_is_that_of_the_taxonomy(
    taxonomy: dict[str, str] | None, category: str, keywords: list[str]
) -> None:
    of = policy(categories=[star(id="nudity", **({"taxonomy": taxonomy} if taxonomy else {}))])
    (row,) = statements(generation("blocked"), categories_of([of]))
    assert row["category"] == f"STATEMENT_CATEGORY_{category}"
    assert row["category_specification"] == keywords


def test_the_other_categories_of_an_image_are_additions_and_the_least_telling_is_last() -> None:
    of = {"nudity": nearest_of("LlavaGuard", "O4"), "gore": nearest_of("LlavaGuard", "O2")}
    records = [
        build("query", request="r1", image=0, findings=[FINDING, {**FINDING, "category": "gore"}]),
        build("request.finished", request="r1", image=0, decision="blocked"),
    ]
    (row,) = statements(records, {name: category for name, category in of.items() if category})
    assert row["category"] == "STATEMENT_CATEGORY_VIOLENCE"
    assert row["category_addition"] == ["STATEMENT_CATEGORY_OTHER_VIOLATION_TC"]


def test_a_statement_category_that_the_database_does_not_know_is_refused() -> None:
    of = policy(categories=[star(taxonomy={"name": "DSA", "id": "STATEMENT_CATEGORY_VIOLENC"})])
    with pytest.raises(AuditError) as refused:
        categories_of([of])
    assert refused.value.hint == "Did you mean STATEMENT_CATEGORY_VIOLENCE?"


def test_requests_to_the_database_hold_a_hundred_statements_at_most() -> None:
    records = [
        build("request.finished", request=f"r{number}", image=0, decision="blocked", policy=POLICY)
        for number in range(101)
    ]
    file = io.StringIO()
    assert to_dsa_json(records, file) == 101
    bodies = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [len(body["statements"]) for body in bodies] == [100, 1]
    assert bodies[0]["statements"][0]["decision_visibility"] == ["DECISION_VISIBILITY_CONTENT_DISABLED"]


SHIPPED = sorted({*POLICIES.glob("*.yaml"), *POLICIES.glob("packs/*.yaml")} - EMBEDDED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_category_of_a_shipped_policy_has_a_taxonomy(path: Path) -> None:
    assert [of.id for of in load_policy(path).categories if of.taxonomy is None] == []


def test_a_statement_says_that_the_image_is_synthetic() -> None:
    (row,) = statements(generation("blurred"))
    assert row["content_type"] == ["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_SYNTHETIC_MEDIA"]


LISTED = {"nudity": {"name": "LlavaGuard", "id": "O4"}}


def test_an_export_names_the_taxonomy_that_the_policy_gave_what_was_found() -> None:
    loaded = build("policy.loaded", policy=POLICY, loaded={"taxonomy": LISTED})
    records = list(classified([loaded, *generation("blocked")]))
    assert [json.loads(row["taxonomy"]) for row in rows(to_csv, records) if row["taxonomy"]] == [LISTED] * 2
    (statement,) = rows(to_dsa, records)
    assert statement["category_specification"] == '["KEYWORD_NUDITY"]'


def test_a_taxonomy_is_of_the_tenant_whose_policy_says_it_and_of_no_other() -> None:
    loaded = build("policy.loaded", policy=POLICY, tenant="a", loaded={"taxonomy": LISTED})
    assert not any("taxonomy" in record for record in classified([loaded, *generation("blocked")]))
