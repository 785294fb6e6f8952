"""Export the records of an audit log as CSV or Parquet."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.extras import needs

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
    "taxonomy",
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
"""Columns in CSV and Parquet; values of ``findings``, ``taxonomy``, ``prompt``, ``run`` and ``exception`` are JSON."""

_INTEGERS = frozenset({"seq", "image", "step", "applied_step", "steps"})
_NUMBERS = frozenset({"sigma", "negative.scale", "latency_ms"})

_BATCH = 20_000


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record to a table row with the columns :data:`COLUMNS`; missing fields are None."""
    row: dict[str, Any] = {}
    for column in COLUMNS:
        outer, _, inner = column.partition(".")
        value = record.get(outer)
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        row[column] = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
    return row


def to_csv(records: Iterable[Mapping[str, Any]], file: TextIO) -> int:
    """Write records as CSV, and return their number.

    Put an apostrophe before a text that a spreadsheet would take for a formula.
    """
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for record in records:
        writer.writerow({column: inert(value) for column, value in flat(record).items()})
        count += 1
    return count


def to_parquet(records: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write records as Parquet, and return their number.

    Raises:
        MissingExtra: pyarrow is not installed.
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


def inert(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would take for a formula; return other values unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
