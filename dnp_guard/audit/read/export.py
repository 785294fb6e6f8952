"""A log in the forms that other programs read: CSV, Parquet, and the fields of the DSA Transparency Database."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import QueryAnswered, RequestFinished
from dnp_guard.extras import needs
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

COLUMNS: Final = (
    "seq",
    "time",
    "event",
    "request",
    "tenant",
    "policy.name",
    "policy.revision",
    "policy.digest",
    "policy.mode",
    "host.name",
    "host.version",
    "host.target",
    "vlm.name",
    "vlm.revision",
    "image",
    "step",
    "applied_step",
    "steps",
    "sigma",
    "findings",
    "decision",
    "would.decision",
    "negative.text",
    "negative.scale",
    "negative.mode",
    "latency_ms",
    "reason",
    "prompt",
    "run",
    "subject",
    "loaded.author",
    "loaded.approver",
    "loaded.reason",
    "exception",
    "verdict",
    "answer",
    "category",
    "by",
    "note",
    "prev",
    "hash",
)
"""Of CSV and Parquet, one row a record; ``findings``, ``prompt``, ``run`` and ``exception`` are JSON."""

_INTEGERS = frozenset({"seq", "image", "step", "applied_step", "steps"})
_NUMBERS = frozenset({"sigma", "negative.scale", "latency_ms"})

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
_BATCH = 20_000
_OPEN = 20_000


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """One record as a row of :data:`COLUMNS`; what it does not have is None."""
    row: dict[str, Any] = {}
    for column in COLUMNS:
        outer, _, inner = column.partition(".")
        value = record.get(outer)
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        row[column] = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
    return row


def to_csv(records: Iterable[Mapping[str, Any]], file: TextIO) -> int:
    """Write records as CSV, and say how many.

    A text that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for record in records:
        writer.writerow({column: _inert(value) for column, value in flat(record).items()})
        count += 1
    return count


def to_parquet(records: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write records as Parquet, and say how many.

    Raises:
        MissingExtra: pyarrow is missing.
    """
    needs("parquet", "writing Parquet")
    import pyarrow as pa  # noqa: PLC0415 (an extra)
    from pyarrow import parquet  # noqa: PLC0415

    kinds = {**dict.fromkeys(_INTEGERS, pa.int64()), **dict.fromkeys(_NUMBERS, pa.float64())}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in COLUMNS])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in _batches(_typed(flat(record)) for record in records):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def statements(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """A statement of reasons for each image that was blocked or blurred, as rows of :data:`DSA_COLUMNS`.

    What fails closed is an outage and no statement about content; what was steered was never withheld. The category is
    the one for content outside a platform's scope of service: which other applies is for the platform to say.
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
            yield _statement(record, visibility, found)


def to_dsa(records: Iterable[Mapping[str, Any]], file: TextIO) -> int:
    """Write statements of reasons as CSV, and say how many."""
    writer = csv.DictWriter(file, DSA_COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for statement in statements(records):
        writer.writerow({column: _inert(value) for column, value in statement.items()})
        count += 1
    return count


def _statement(record: Mapping[str, Any], visibility: str, found: list[str]) -> dict[str, str]:
    policy = record.get("policy") if isinstance(record.get("policy"), dict) else {}
    name = f"{policy.get('name', '')} {policy.get('revision', '')}".strip() if policy else ""
    day = str(record["time"])[:10]
    return {
        "puid": f"{record.get('request', '')}-{record.get('image', 0)}",
        "decision_visibility": visibility,
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": f"policy {name}",
        "incompatible_content_explanation": f"The image showed: {', '.join(found) or 'what the policy forbids'}.",
        "category": "STATEMENT_CATEGORY_SCOPE_OF_PLATFORM_SERVICE",
        "content_type": "CONTENT_TYPE_IMAGE",
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


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for column, value in row.items():
        if column in _INTEGERS:
            typed[column] = value if isinstance(value, int) else None
        elif column in _NUMBERS:
            typed[column] = float(value) if isinstance(value, int | float) else None
        else:
            typed[column] = None if value is None else str(value)
    return typed


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
