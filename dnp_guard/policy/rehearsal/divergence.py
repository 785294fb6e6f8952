"""Compare two records of one generation, and find where the decisions differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from dnp_guard.audit.events import NegativeCleared, NegativeInjected, QueryAnswered, QuerySkipped, RequestFinished

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOLERANCE = 1e-3
"""Relative difference below which probabilities and scales are equal; machines round sums differently."""

_DECISIONS = frozenset(
    {QueryAnswered.name, QuerySkipped.name, NegativeInjected.name, NegativeCleared.name, RequestFinished.name}
)


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """One decision about one image, read from an audit record.

    Attributes:
        step: denoising step of the query; None for the query of the finished image, and for the outcome.
        event: name of the record's event, such as ``query``.
        decision: the decision, in words.
        scale: scale of the negative; None without one.
        probabilities: probabilities of the findings, by category and term.
    """

    step: int | None
    event: str
    decision: str
    scale: float | None
    probabilities: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        scale = f" × {self.scale:g}" if self.scale is not None else ""
        return f"{self.decision}{scale}"

    def same(self, other: RecordedDecision) -> bool:
        """Return whether two decisions agree, apart from rounding differences in the scale."""
        if (self.step, self.event, self.decision) != (other.step, other.event, other.decision):
            return False
        if self.scale is None or other.scale is None:
            return self.scale is other.scale
        return abs(self.scale - other.scale) <= TOLERANCE * max(self.scale, other.scale)


@dataclass(frozen=True, slots=True)
class Parting:
    """The first difference between the decisions about one image.

    Attributes:
        image: index in the batch.
        step: step of the difference; None at the end.
        recorded: the recorded decision; None if the record has no more.
        now: the new decision; None if there are no more.
    """

    image: int
    step: int | None
    recorded: str | None
    now: str | None

    def __str__(self) -> str:
        at = "at the end" if self.step is None else f"at step {self.step}"
        return f"image {self.image} differs {at}: recorded {self.recorded or 'nothing'}, now {self.now or 'nothing'}"


def trail(records: Iterable[Mapping[str, Any]], request: str) -> dict[int, list[RecordedDecision]]:
    """Return the recorded decisions of one generation, in order, by index of the image in the batch."""
    decisions: dict[int, list[RecordedDecision]] = {}
    for record in records:
        if record.get("request") == request and record.get("event") in _DECISIONS:
            decisions.setdefault(int(record["image"]), []).append(_point(record))
    return decisions


def partings(
    recorded: Mapping[int, list[RecordedDecision]], now: Mapping[int, list[RecordedDecision]]
) -> tuple[Parting, ...]:
    """Return, for every image, the first decision that the policy takes otherwise now than in the record.

    Images whose decisions are all equal are omitted.
    """
    differences = []
    for image in sorted({*recorded, *now}):
        for here, there in zip_longest(recorded.get(image, []), now.get(image, [])):
            if here is None or there is None or not here.same(there):
                step = here.step if here is not None else there.step if there is not None else None
                differences.append(Parting(image, step, str(here) if here else None, str(there) if there else None))
                break
    return tuple(differences)


def furthest(recorded: Mapping[int, list[RecordedDecision]], now: Mapping[int, list[RecordedDecision]]) -> float:
    """Return the largest difference between two probabilities of the same term, up to where the decisions differ."""
    differences = [0.0]
    for image, points in recorded.items():
        for here, there in zip(points, now.get(image, []), strict=False):
            if not here.same(there):
                break
            other = dict(there.probabilities)
            differences += [abs(p - other[term]) for term, p in here.probabilities if term in other]
    return max(differences)


def _point(record: Mapping[str, Any]) -> RecordedDecision:
    event, negative = str(record["event"]), record.get("negative", {})
    findings = record.get("findings", []) if event == QueryAnswered.name else []
    terms = tuple(
        (f"{finding['category']}: {finding.get('term', '')}", finding.get("probability", 1.0)) for finding in findings
    )
    decision = {
        QueryAnswered.name: lambda: ", ".join([str(record["decision"]), *(term for term, _ in terms)]),
        QuerySkipped.name: lambda: f"skipped ({record.get('reason', 'similar')})",
        NegativeInjected.name: lambda: f"−{negative.get('text', '')} from step {record['applied_step']}",
        NegativeCleared.name: lambda: f"cleared from step {record['applied_step']}",
        RequestFinished.name: lambda: str(record["decision"]),
    }[event]()
    return RecordedDecision(record.get("step"), event, decision, negative.get("scale"), terms)
