"""Show an audit log to a person: its generations, or one generation step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from dnp_guard.audit.chain import is_record, parse, tombstone
from dnp_guard.audit.events import (
    GuardDegraded,
    NegativeCleared,
    NegativeInjected,
    QueryAnswered,
    RequestAbandoned,
    RequestFinished,
)
from dnp_guard.audit.read.choose import known
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.record import clean
from dnp_guard.errors import AuditError
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

UNFINISHED: Final = "unfinished"
ABANDONED: Final = "abandoned"

_BAR = 8
_OUTCOMES = [str(outcome) for outcome in Outcome]
_STYLES = {
    "failed_open": "magenta",
    "unasked": "magenta",
    "clean": "green",
    "monitored": "cyan",
    "steered": "yellow",
    "blurred": "red",
    "blocked": "red",
    "failed_closed": "magenta",
}


class Log:
    """The records of a log, as an iterable that reads the log again in every iteration.

    Args:
        path: the log.

    Attributes:
        skipped: number of lines that were neither records nor tombstones in the last iteration;
            :func:`dnp_guard.audit.read.verify` names them.

    Raises:
        AuditError: at the end of an iteration, if the log has lines and none of them is a record.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.skipped = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.skipped, known = 0, False
        for line in read_lines(self.path):
            record = parse(line.data) or {}
            if is_record(record):
                known = True
                yield record
            else:
                buried = tombstone(record) is not None
                self.skipped += not buried
                known = known or buried
        if self.skipped and not known:
            raise AuditError(f"{self.path}: none of its lines is an audit record", hint="Check the path.")

    def only(self, *events: str) -> Iterator[dict[str, Any]]:
        """Yield the records with one of the given event names, without parsing other lines."""
        marks = [b'"event":"%b"' % event.encode() for event in events]
        for line in read_lines(self.path):
            if any(mark in line.data for mark in marks):
                record = parse(line.data) or {}
                if is_record(record) and record["event"] in events:
                    yield record


@dataclass(slots=True)
class GenerationRow:
    """The row of one generation in the list of generations.

    Attributes:
        request: id of the generation.
        time: time of its first record.
        policy: name and revision of the policy.
        tenant: tenant of the generation; "" if there is none.
        decisions: outcomes of the images, or ``abandoned``.
        would: outcomes of images if the policy enforced what it only records in shadow, where they differ.
        categories: ids of the categories found, in the order in which they were found.
        queries: number of answered queries; one about several images counts once per image.
        negatives: number of negative prompts injected, including changed ones, over all images.
        degraded: number of times that the guard could not do its job.
    """

    request: str
    time: str
    policy: str
    tenant: str = ""
    decisions: list[str] = field(default_factory=list)
    would: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    queries: int = 0
    negatives: int = 0
    degraded: int = 0

    @property
    def decision(self) -> str:
        """The strictest outcome of the images; ``abandoned`` or ``unfinished`` if there is none."""
        return _strictest(self.decisions) or next(iter(self.decisions), UNFINISHED)

    @property
    def summary(self) -> str:
        """The decision, and the one that there would be if the policy enforced what it only records in shadow."""
        would = _strictest(self.would)
        return f"{self.decision}, would have been {would}" if would else self.decision

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record of this generation in the row."""
        event = record["event"]
        self.queries += event == QueryAnswered.name
        self.negatives += event == NegativeInjected.name
        self.degraded += event == GuardDegraded.name
        if event == RequestFinished.name:
            self.decisions.append(str(record.get("decision", "")))
            self.would += [str(would)] if (would := _object(record, "would").get("decision")) else []
        if event == RequestAbandoned.name:
            self.decisions.append(ABANDONED)
        self.categories += [category for category in _probabilities(record) if category not in self.categories]


@dataclass(frozen=True, slots=True)
class Filter:
    """Criteria for generations; a criterion that is None accepts every generation.

    Attributes:
        category: id of a category that was found.
        decision: outcome of an image, or ``abandoned`` or ``unfinished``.
        policy: name of the policy, with or without its revision.
        tenant: tenant of the generation.
        since: earliest time at which the generation began, inclusive, in the format of records.
        until: latest time at which it began, exclusive, in the format of records.
    """

    category: str | None = None
    decision: str | None = None
    policy: str | None = None
    tenant: str | None = None
    since: str | None = None
    until: str | None = None

    def check(self, rows: Iterable[GenerationRow]) -> None:
        """Raise an error for a criterion that no generation can meet, such as a misspelt name.

        Args:
            rows: all generations of the log.

        Raises:
            AuditError: there is no such decision, or the log has no such category, policy or tenant.
        """
        among = list(rows)
        known("decision", self.decision, [*_OUTCOMES, ABANDONED, UNFINISHED])
        if among:
            known("category", self.category, {name for row in among for name in row.categories})
            known("policy", self.policy, {name for row in among for name in (row.policy, row.policy.partition(" ")[0])})
            known("tenant", self.tenant, {row.tenant for row in among})

    def takes(self, generation: GenerationRow) -> bool:
        """Return whether a generation meets all criteria."""
        return (
            (self.category is None or self.category in generation.categories)
            and (self.decision is None or self.decision in (generation.decisions or [UNFINISHED]))
            and (self.policy is None or self.policy in {generation.policy, generation.policy.partition(" ")[0]})
            and (self.tenant is None or self.tenant == generation.tenant)
            and (self.since is None or self.since <= generation.time)
            and (self.until is None or generation.time < self.until)
        )


def generations(records: Iterable[Mapping[str, Any]], criteria: Filter | None = None) -> list[GenerationRow]:
    """List the generations of a log, in the order in which they began.

    Args:
        records: records of the log.
        criteria: filter that the generations must pass; None for all.
    """
    rows: dict[str, GenerationRow] = {}
    for record in records:
        if (request := record.get("request")) is None:
            continue
        generation = rows.get(str(request))
        if generation is None:
            policy = _object(record, "policy")
            name = " ".join(str(policy[key]) for key in ("name", "revision") if key in policy)
            generation = GenerationRow(str(request), record["time"], name, str(record.get("tenant", "")))
            rows[generation.request] = generation
        generation.add(record)
    return [row for row in rows.values() if criteria is None or criteria.takes(row)]


def overview(rows: Iterable[GenerationRow]) -> Table:
    """Make a table for the terminal, with one row per generation."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("request", "began", "policy", "decision", "seen"):
        table.add_column(heading, no_wrap=heading in {"request", "began"}, overflow="fold")
    for heading in ("queries", "negatives", "degraded"):
        table.add_column(heading, justify="right")
    for row in rows:
        outcome = _text(row.summary, _STYLES.get(_strictest(row.would) or row.decision, ""))
        seen, began = _text(", ".join(row.categories)), _text(row.time[:19].replace("T", " "))
        counts = [str(row.queries), str(row.negatives), str(row.degraded)]
        table.add_row(_text(row.request), began, _text(row.policy), outcome, seen, *counts)
    return table


def line(record: Mapping[str, Any]) -> str:
    """Format one record as one line, for a person who follows the log."""
    seen = " ".join(f"{category} {_bar(value)}" for category, value in _probabilities(record).items())
    where = " ".join(filter(None, [str(record.get("request", ""))[:8], _image(record), _step(record)]))
    then = _then(record)
    event = "" if then.startswith(record["event"]) else record["event"]
    return clean("  ".join(filter(None, [record["time"][11:23], where, event, seen, then])))


def timeline(records: Iterable[Mapping[str, Any]]) -> Table:
    """Make a table for the terminal of one generation's records: findings and actions, step by step."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("image", justify="right")
    table.add_column("σ", justify="right")
    table.add_column("seen", no_wrap=True)
    table.add_column("then")
    table.add_column("ms", justify="right")
    for record in records:
        bars = "\n".join(f"{clean(category)} {_bar(value)}" for category, value in _probabilities(record).items())
        table.add_row(
            _text(_step(record)),
            _text(str(record.get("image", ""))),
            _text(_number(record.get("sigma"))),
            Text(bars),
            _text(_then(record)),
            _text(_number(record.get("latency_ms"))),
        )
    return table


def _text(text: str, style: str = "") -> Text:
    # A forged log may contain commands for the terminal.
    return Text(clean(text), style)


def _strictest(decisions: Iterable[str]) -> str:
    """Return the strictest of the outcomes; "" if there is none."""
    return max((decision for decision in decisions if decision in _OUTCOMES), key=_OUTCOMES.index, default="")


def _image(record: Mapping[str, Any]) -> str:
    return f"image {record['image']}" if "image" in record else ""


def _step(record: Mapping[str, Any]) -> str:
    if "step" not in record:
        return "final" if record["event"] == QueryAnswered.name else ""
    return f"{record['step']}/{record['steps']}" if "steps" in record else str(record["step"])


def _then(record: Mapping[str, Any]) -> str:
    event, negative = record["event"], _object(record, "negative")
    decision, reason = str(record.get("decision", "")), str(record.get("reason", ""))
    start = f"from step {record['applied_step']} on" if "applied_step" in record else ""
    would = str(_object(record, "would").get("decision", ""))
    if event == RequestFinished.name and would:
        return f"{decision}: would have been {would}"
    if event == QueryAnswered.name:
        return ", ".join(filter(None, ["" if decision == "none" else decision, would and f"would {would}"]))
    if event == NegativeInjected.name:
        scale = f" × {_number(negative['scale'])}" if "scale" in negative else ""
        return f"inject “{negative.get('text', '')}”{scale} {start}".rstrip()
    if event == NegativeCleared.name:
        return f"clear the negative {start}".rstrip()
    return ": ".join(filter(None, [event, decision, reason]))


def _bar(probability: float) -> str:
    full = round(_BAR * min(1.0, max(0.0, probability)))
    return f"{'█' * full}{'░' * (_BAR - full)} {probability:.2f}"


def _probabilities(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the highest probability of the findings in a query's record, by category."""
    highest: dict[str, float] = {}
    findings = record.get("findings") if record["event"] == QueryAnswered.name else None
    for finding in findings if isinstance(findings, list) else ():
        if isinstance(finding, dict) and isinstance(value := finding.get("probability"), int | float):
            category = str(finding.get("category", ""))
            highest[category] = max(value, highest.get(category, 0.0))
    return highest


def _object(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _number(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
