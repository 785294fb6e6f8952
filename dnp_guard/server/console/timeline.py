"""The history of one image, step by step, for its page in the console. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.audit import previews
from dnp_guard.audit.events import (
    FindingWaived,
    GuardDegraded,
    NegativeCleared,
    NegativeInjected,
    QueryAnswered,
    QuerySkipped,
    RequestFinished,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class TimelineMoment:
    """One event in the history of an image.

    Attributes:
        step: the sampler's step, such as "5 of 20"; "final" for the query about the finished image, "end" for the
            image's outcome, "" if the event belongs to no step.
        what: short description.
        seen: for every category seen: category, term, probability and threshold; the two numbers are None for a
            sensitive category.
        picture: name of the stored preview; "" for none.
        latency: milliseconds until the query was answered; None if the event is no answer.
    """

    step: str
    what: str
    seen: tuple[tuple[str, str, float | None, float | None], ...] = ()
    picture: str = ""
    latency: float | None = None


def timeline(records: Iterable[Mapping[str, Any]]) -> list[TimelineMoment]:
    """List the events in the history of one image.

    Args:
        records: the generation's records about the image, in order.
    """
    return [moment for record in records if (moment := _moment(record)) is not None]


def _moment(record: Mapping[str, Any]) -> TimelineMoment | None:
    event = record["event"]
    describe = _TOLD.get(event)
    if describe is None:
        return None
    step = str(record["step"]) if "step" in record else _WITHOUT_STEP.get(event, "")
    if step and "steps" in record:
        step = f"{step} of {record['steps']}"
    latency = record.get("latency_ms")
    return TimelineMoment(
        step,
        describe(record),
        tuple(_seen(record)) if event in _SEEING else (),
        previews.named(record) or "",
        float(latency) if isinstance(latency, int | float) else None,
    )


_WITHOUT_STEP = {QueryAnswered.name: "final", RequestFinished.name: "end"}
_SEEING = frozenset({QueryAnswered.name, FindingWaived.name})  # the others repeat earlier findings


def _answered(record: Mapping[str, Any]) -> str:
    decision = str(record.get("decision", "none"))
    would = _object(record, "would").get("decision")
    shadow = f"; in shadow, would {would}" if would else ""
    return ("nothing called for" if decision == "none" else f"calls for {decision}") + shadow


def _injected(record: Mapping[str, Any]) -> str:
    negative = _object(record, "negative")
    scale = f" at scale {negative['scale']:g}" if isinstance(negative.get("scale"), int | float) else ""
    text = f"“{negative['text']}”" if "text" in negative else "(not recorded)"
    return f"steered away from {text}{scale} from step {record.get('applied_step', '?')} on"


def _finished(record: Mapping[str, Any]) -> str:
    would = _object(record, "would").get("decision")
    return f"{record.get('decision', '')}" + (f"; would have been {would}" if would else "")


_TOLD = {
    QueryAnswered.name: _answered,
    QuerySkipped.name: lambda record: f"not looked at: {record.get('reason', 'nothing new')}",
    NegativeInjected.name: _injected,
    NegativeCleared.name: lambda record: f"steered no more from step {record.get('applied_step', '?')} on",
    FindingWaived.name: lambda _: "excused by an allowed case",
    GuardDegraded.name: lambda record: f"the guard could not do its job: {record.get('reason', '')}",
    RequestFinished.name: _finished,
}


def _seen(record: Mapping[str, Any]) -> Iterable[tuple[str, str, float | None, float | None]]:
    findings = record.get("findings")
    for finding in findings if isinstance(findings, list) else ():
        if isinstance(finding, dict):
            numbers = [finding.get(name) for name in ("probability", "threshold")]
            probability, threshold = (float(number) if isinstance(number, int | float) else None for number in numbers)
            yield str(finding.get("category", "")), str(finding.get("term", "")), probability, threshold


def _object(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}
