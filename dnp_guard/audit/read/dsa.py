"""Statements of reasons for what was withheld, as the DSA Transparency Database has them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import QueryAnswered, RequestFinished
from dnp_guard.audit.read.export import inert
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
            if of is not None and of.name.upper() == "DSA":
                found[category.id] = of.id
            elif of is not None and (of.name, of.id) in _SAME:
                found[category.id] = _SAME[of.name, of.id]
    return found


def statements(
    records: Iterable[Mapping[str, Any]], categories: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """A statement of reasons for each image that was blocked or blurred, as rows of :data:`DSA_COLUMNS`.

    What fails closed is an outage and no statement about content; what was steered was never withheld.

    Args:
        records: of the log.
        categories: statement category of each category of the policy; one that is not there is content outside the
            platform's scope of service.
    """
    seen: dict[tuple[str, object], tuple[str, list[str]]] = {}
    for record in records:
        key = str(record.get("request", "")), record.get("image", 0)
        if record["event"] == QueryAnswered.name and (found := _found(record)):
            seen[key] = (record["time"], found)
            if len(seen) > _OPEN:
                del seen[next(iter(seen))]
        if record["event"] != RequestFinished.name:
            continue
        _, found = seen.pop(key, ("", []))
        visibility = _VISIBILITY.get(str(record.get("decision")))
        if visibility is not None:
            yield _statement(record, visibility, found, categories or {})


def to_dsa(records: Iterable[Mapping[str, Any]], file: TextIO, categories: Mapping[str, str] | None = None) -> int:
    """Write statements of reasons as CSV, and say how many."""
    writer = csv.DictWriter(file, DSA_COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for statement in statements(records, categories):
        writer.writerow({column: inert(value) for column, value in statement.items()})
        count += 1
    return count


def _statement(
    record: Mapping[str, Any], visibility: str, found: list[str], categories: Mapping[str, str]
) -> dict[str, str]:
    policy = record.get("policy") if isinstance(record.get("policy"), dict) else {}
    name = f"{policy.get('name', '')} {policy.get('revision', '')}".strip() if policy else ""
    day = str(record["time"])[:10]
    return {
        "puid": f"{record.get('request', '')}-{record.get('image', 0)}",
        "decision_visibility": visibility,
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": f"policy {name}",
        "incompatible_content_explanation": f"The image showed: {', '.join(found) or 'what the policy forbids'}.",
        "category": next((categories[name] for name in found if name in categories), _OTHER),
        "content_type": '["CONTENT_TYPE_IMAGE","CONTENT_TYPE_SYNTHETIC_MEDIA"]',
        "content_date": day,
        "application_date": day,
        "source_type": "SOURCE_VOLUNTARY",
        "automated_detection": "Yes",
        "automated_decision": "AUTOMATED_DECISION_FULLY",
        "decision_facts": "A vision-language model looked at the image while it was generated, and at the end.",
    }


def _found(record: Mapping[str, Any]) -> list[str]:
    findings = record.get("findings")
    categories = [str(each.get("category")) for each in findings or () if isinstance(each, dict)]
    return list(dict.fromkeys(categories))
