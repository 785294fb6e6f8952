"""Statements of reasons for withheld images, in the format of the EU's DSA Transparency Database since July 2025."""

from __future__ import annotations

import csv
import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import QueryAnswered, RequestFinished
from dnp_guard.audit.read.dsa_categories import OTHER, PREFIX, nearest_of
from dnp_guard.audit.read.export import inert
from dnp_guard.audit.read.taxonomy import found_categories
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TextIO

    from dnp_guard.audit.read.dsa_categories import StatementCategory

DSA_COLUMNS: Final = (
    "puid",
    "decision_visibility",
    "decision_visibility_other",
    "decision_ground",
    "incompatible_content_ground",
    "incompatible_content_explanation",
    "category",
    "category_addition",
    "category_specification",
    "content_type",
    "content_date",
    "application_date",
    "source_type",
    "automated_detection",
    "automated_decision",
    "decision_facts",
)
"""Columns of a statement of reasons that a log can fill; the platform adds others, such as `territorial_scope`."""

REQUEST_STATEMENTS: Final = 100
"""Most statements per request to the database's API."""

_VISIBILITY: Final = {
    str(Outcome.BLOCKED): ("DECISION_VISIBILITY_CONTENT_DISABLED", ""),
    str(Outcome.BLURRED): ("DECISION_VISIBILITY_OTHER", "The image is shown blurred beyond recognition."),
}
_OPEN = 20_000


def statements(
    records: Iterable[Mapping[str, Any]], categories: Mapping[str, StatementCategory] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a statement of reasons per blocked or blurred image, with the fields of :data:`DSA_COLUMNS`.

    An image that was withheld because the guard failed has no statement, since this says nothing about its content. A
    steered image has none, since it was not withheld.

    Args:
        records: records of the log.
        categories: statement category by id of the policy category; it takes precedence over the record's `taxonomy`.
            A category without either is filed as "other violation of the platform's terms".
    """
    seen: dict[tuple[str, object], dict[str, StatementCategory]] = {}
    for record in records:
        key = str(record.get("request", "")), record.get("image", 0)
        if record["event"] == QueryAnswered.name and (names := found_categories(record)):
            listed = record.get("taxonomy") or {}
            own = {name: nearest_of(str(of.get("name")), str(of.get("id"))) for name, of in listed.items()}
            seen[key] = {name: (categories or {}).get(name) or own.get(name) or OTHER for name in names}
            if len(seen) > _OPEN:
                del seen[next(iter(seen))]
        if record["event"] != RequestFinished.name:
            continue
        shown = seen.pop(key, {})
        visibility = _VISIBILITY.get(str(record.get("decision")))
        if visibility is not None:
            yield _statement(record, *visibility, shown)


def to_dsa(
    records: Iterable[Mapping[str, Any]], file: TextIO, categories: Mapping[str, StatementCategory] | None = None
) -> int:
    """Write statements of reasons as CSV, in which lists are JSON, and return the number of statements."""
    writer = csv.DictWriter(file, DSA_COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for statement in statements(records, categories):
        writer.writerow({column: _cell(value) for column, value in statement.items()})
        count += 1
    return count


def to_dsa_json(
    records: Iterable[Mapping[str, Any]], file: TextIO, categories: Mapping[str, StatementCategory] | None = None
) -> int:
    """Write request bodies for the database's API, one per line, and return the number of statements in them."""
    rows = (
        {name: value for name, value in statement.items() if value} for statement in statements(records, categories)
    )
    count = 0
    while batch := list(islice(rows, REQUEST_STATEMENTS)):
        file.write(json.dumps({"statements": batch}, ensure_ascii=False) + "\n")
        count += len(batch)
    return count


def _statement(
    record: Mapping[str, Any], visibility: str, other: str, shown: Mapping[str, StatementCategory]
) -> dict[str, Any]:
    policy = record.get("policy") if isinstance(record.get("policy"), dict) else {}
    name = f"{policy.get('name', '')} {policy.get('revision', '')}".strip() if policy else ""
    day = str(record["time"])[:10]
    # Specific categories come before OTHER_VIOLATION_TC.
    filed = sorted(dict.fromkeys(shown.values()), key=lambda of: of.category == OTHER.category) or [OTHER]
    names = list(dict.fromkeys(PREFIX + of.category for of in filed))
    return {
        "puid": f"{record.get('request', '')}-{record.get('image', 0)}",
        "decision_visibility": [visibility],
        "decision_visibility_other": other,
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": f"policy {name}",
        "incompatible_content_explanation": f"The image showed: {', '.join(shown) or 'forbidden content'}.",
        "category": names[0],
        "category_addition": names[1:],
        "category_specification": [f"KEYWORD_{of.keyword}" for of in filed if of.keyword],
        "content_type": ["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_SYNTHETIC_MEDIA"],
        "content_date": day,
        "application_date": day,
        "source_type": "SOURCE_VOLUNTARY",
        "automated_detection": "Yes",
        "automated_decision": "AUTOMATED_DECISION_FULLY",
        "decision_facts": "A vision-language model checked the image during its generation and at the end.",
    }


def _cell(value: object) -> object:
    if isinstance(value, list):
        return json.dumps(value) if value else ""
    return inert(value)
