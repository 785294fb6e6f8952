"""Statements of reasons for what was withheld, as the DSA Transparency Database has them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import QueryAnswered, RequestFinished
from dnp_guard.audit.read.export import inert
from dnp_guard.audit.read.taxonomy import found_categories
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TextIO

    from dnp_guard.policy.model.policy import Policy

DSA_COLUMNS: Final = (
    "puid",
    "decision_visibility",
    "decision_ground",
    "incompatible_content_ground",
    "incompatible_content_explanation",
    "category",
    "content_type",
    "content_date",
    "application_date",
    "source_type",
    "automated_detection",
    "automated_decision",
    "decision_facts",
)
"""Of a statement of reasons, as far as the log knows; the platform adds what only it knows."""

_VISIBILITY = {
    str(Outcome.BLOCKED): "DECISION_VISIBILITY_CONTENT_DISABLED",
    str(Outcome.BLURRED): "DECISION_VISIBILITY_CONTENT_INTERACTION_RESTRICTED",
}
_OTHER = "STATEMENT_CATEGORY_SCOPE_OF_PLATFORM_SERVICE"
_SAME: Final = {
    ("AILuminate", "cse"): "STATEMENT_CATEGORY_PROTECTION_OF_MINORS",
    ("AILuminate", "hte"): "STATEMENT_CATEGORY_ILLEGAL_OR_HARMFUL_SPEECH",
    ("AILuminate", "ipv"): "STATEMENT_CATEGORY_INTELLECTUAL_PROPERTY_INFRINGEMENTS",
    ("AILuminate", "ssh"): "STATEMENT_CATEGORY_SELF_HARM",
    ("AILuminate", "vcr"): "STATEMENT_CATEGORY_VIOLENCE",
    ("LlavaGuard", "O2"): "STATEMENT_CATEGORY_VIOLENCE",
    ("LlavaGuard", "O4"): "STATEMENT_CATEGORY_PORNOGRAPHY_OR_SEXUALIZED_CONTENT",
}
"""Entries of other lists of hazards that mean what a statement category does."""

_OPEN = 20_000


def categories_of(policies: Iterable[Policy]) -> dict[str, str]:
    """The statement category of each category of some policies, by the category's ``taxonomy``.

    A taxonomy named ``DSA`` says it itself; of other lists, those entries count whose meaning is the same.
    """
    found: dict[str, str] = {}
    for policy in policies:
        for category in policy.categories:
            of = category.taxonomy
            if of is not None and (same := _same(of.name, of.id)):
                found[category.id] = same
    return found


def _same(name: str, entry: str) -> str | None:
    """The statement category of an entry of a list of hazards; None where none means the same."""
    return entry if name.upper() == "DSA" else _SAME.get((name, entry))


def statements(
    records: Iterable[Mapping[str, Any]], categories: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """A statement of reasons for each image that was blocked or blurred, as rows of :data:`DSA_COLUMNS`.

    What fails closed is an outage and no statement about content; what was steered was never withheld.

    Args:
        records: of the log.
        categories: statement category of each category of the policy, before what the record's own `taxonomy` says;
            one that neither says is content outside the platform's scope of service.
    """
    seen: dict[tuple[str, object], dict[str, str | None]] = {}
    for record in records:
        key = str(record.get("request", "")), record.get("image", 0)
        if record["event"] == QueryAnswered.name and (found := found_categories(record)):
            listed = record.get("taxonomy") or {}
            own = {name: _same(str(of.get("name")), str(of.get("id"))) for name, of in listed.items()}
            seen[key] = {name: (categories or {}).get(name) or own.get(name) for name in found}
            if len(seen) > _OPEN:
                del seen[next(iter(seen))]
        if record["event"] != RequestFinished.name:
            continue
        shown = seen.pop(key, {})
        visibility = _VISIBILITY.get(str(record.get("decision")))
        if visibility is not None:
            yield _statement(record, visibility, shown)


def to_dsa(records: Iterable[Mapping[str, Any]], file: TextIO, categories: Mapping[str, str] | None = None) -> int:
    """Write statements of reasons as CSV, and say how many."""
    writer = csv.DictWriter(file, DSA_COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for statement in statements(records, categories):
        writer.writerow({column: inert(value) for column, value in statement.items()})
        count += 1
    return count


def _statement(record: Mapping[str, Any], visibility: str, shown: Mapping[str, str | None]) -> dict[str, str]:
    policy = record.get("policy") if isinstance(record.get("policy"), dict) else {}
    name = f"{policy.get('name', '')} {policy.get('revision', '')}".strip() if policy else ""
    day = str(record["time"])[:10]
    return {
        "puid": f"{record.get('request', '')}-{record.get('image', 0)}",
        "decision_visibility": visibility,
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": f"policy {name}",
        "incompatible_content_explanation": f"The image showed: {', '.join(shown) or 'what the policy forbids'}.",
        "category": next(filter(None, shown.values()), _OTHER),
        "content_type": '["CONTENT_TYPE_IMAGE","CONTENT_TYPE_SYNTHETIC_MEDIA"]',
        "content_date": day,
        "application_date": day,
        "source_type": "SOURCE_VOLUNTARY",
        "automated_detection": "Yes",
        "automated_decision": "AUTOMATED_DECISION_FULLY",
        "decision_facts": "A vision-language model looked at the image while it was generated, and at the end.",
    }
