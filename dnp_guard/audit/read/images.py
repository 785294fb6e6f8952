"""Collect the records of every finished image into one row: outcome, reason, and strength of the evidence."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import (
    FindingWaived,
    GuardDegraded,
    NegativeInjected,
    QueryAnswered,
    RequestFinished,
    RequestStarted,
)
from dnp_guard.audit.previews import named
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ACTED_ON: Final = frozenset(map(str, (Outcome.STEERED, Outcome.BLURRED, Outcome.BLOCKED)))
"""Outcomes of images that were altered or withheld for their findings."""

_OPEN: Final = 20_000
"""Most unfinished generations that are followed; the oldest ones beyond this number are dropped."""


@dataclass(slots=True)
class Sight:
    """The strongest evidence of one policy category in one image: the finding with the highest probability.

    Attributes:
        category: id of the category.
        term: term that was found; "" if the record does not name it.
        probability: probability of the term; None for a sensitive category, of which records give no details.
        threshold: threshold of the finding.
        step: step of the query; None for the query about the finished image.
        final: whether the query about the finished image found the category, at any probability.
        picture: file name of a stored picture in which a query found the category; "" for none.
    """

    category: str
    term: str
    probability: float | None
    threshold: float | None
    step: int | None
    final: bool
    picture: str = ""

    @property
    def margin(self) -> float | None:
        """How far the probability is above the threshold: 0 at the threshold, 1 at probability 1; None if unknown."""
        if self.probability is None or self.threshold is None or self.threshold >= 1:
            return None
        return (self.probability - self.threshold) / (1 - self.threshold)

    def text(self) -> str:
        """Describe the evidence in a few words."""
        named = self.category + (f" ({self.term})" if self.term else "")
        sure = f" {self.probability:.2f} of {self.threshold:.2f}" if self.margin is not None else ""
        return f"{named}{sure} at {'the final look' if self.step is None else f'step {self.step}'}"


@dataclass(slots=True)
class ImageRow:
    """The collected records of one image.

    Attributes:
        request: id of the generation.
        image: index in the batch.
        time: time at which the image was finished.
        tenant: tenant of the generation; "" if there is none.
        policy: name and revision of the policy.
        mode: ``enforce`` or ``shadow``.
        decision: outcome of the image.
        would: outcome if the policy enforced what it only records in shadow; "" if that makes no difference.
        sights: strongest evidence of every category found, by category id.
        judged: whether a query about the finished image was answered.
        waived: categories that an allowed case excused.
        negatives: number of negative prompts injected.
        failures: reasons why the guard could not do its job for this generation.
    """

    request: str
    image: int
    time: str = ""
    tenant: str = ""
    policy: str = ""
    mode: str = ""
    decision: str = ""
    would: str = ""
    sights: dict[str, Sight] = field(default_factory=dict)
    judged: bool = False
    waived: list[str] = field(default_factory=list)
    negatives: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Id of the image: that of the generation, a slash, and the index in the batch."""
        return f"{self.request}/{self.image}"

    @property
    def why(self) -> str:
        """The reason for the outcome, in a few words."""
        if self.decision in {Outcome.FAILED_CLOSED, Outcome.FAILED_OPEN, Outcome.UNASKED}:
            return "; ".join(self.failures) or "no query was answered"
        last = [sight for sight in self.sights.values() if sight.final]
        evidence = "; ".join(sight.text() for sight in last or self.sights.values())
        if self.judged and self.sights and not last:
            evidence += "; not seen in the finished image"
        shadow = f"in shadow, would have been {self.would}" if self.would else ""
        excused = f"excused: {', '.join(self.waived)}" if self.waived else ""
        return "; ".join(filter(None, [evidence, excused, shadow]))

    @property
    def margin(self) -> float | None:
        """The largest :attr:`Sight.margin` of all categories found; None if none is known."""
        known = [sight.margin for sight in self.sights.values() if sight.margin is not None]
        return max(known, default=None)

    def document(self) -> dict[str, Any]:
        """Return the row as a JSON object for programs."""
        return {
            "request": self.request,
            "image": self.image,
            "time": self.time,
            "tenant": self.tenant or None,
            "policy": self.policy,
            "mode": self.mode,
            "decision": self.decision,
            "would": self.would or None,
            "categories": list(self.sights),
            "waived": self.waived,
            "negatives": self.negatives,
            "margin": self.margin,
            "why": self.why,
        }


def images(records: Iterable[Mapping[str, Any]]) -> Iterator[ImageRow]:
    """Yield every finished image of a log, in the order in which they were finished.

    Args:
        records: records of the log.
    """
    follower = Follower()
    for record in records:
        row = follower.add(record)
        if row is not None:
            yield row


class Follower:
    """Collects records, passed in the order of the log, into one row per image; stores only unfinished images.

    Args:
        rows: rows of unfinished images from an earlier run, to continue with.
        failures: reasons why the guard could not do its job, by id of the generation, from that run.
    """

    def __init__(self, rows: Iterable[ImageRow] = (), failures: Mapping[str, list[str]] | None = None) -> None:
        self._open: OrderedDict[str, dict[int, ImageRow]] = OrderedDict()
        self._failures: dict[str, list[str]] = dict(failures or {})
        for row in rows:
            self._follow(row.request)[row.image] = row

    def open(self) -> list[ImageRow]:
        """Return the rows of the unfinished images."""
        return [row for rows in self._open.values() for row in rows.values()]

    def failures(self) -> dict[str, list[str]]:
        """Return the reasons why the guard could not do its job, by id of a generation with unfinished images."""
        return {request: reasons for request, reasons in self._failures.items() if self._open.get(request)}

    def add(self, record: Mapping[str, Any]) -> ImageRow | None:
        """Add a record; if it finishes an image, return the row of that image, otherwise None."""
        event, request = record["event"], str(record.get("request", ""))
        if not request:
            return None
        if event == RequestStarted.name:
            self._follow(request)
        elif event == GuardDegraded.name:
            self._follow(request)
            self._failures.setdefault(request, []).append(str(record.get("reason", "")))
        elif event == QueryAnswered.name:
            _see(self._row(request, record), record)
        elif event == FindingWaived.name:
            row = self._row(request, record)
            row.waived += [name for name in _names(record) if name not in row.waived]
        elif event == NegativeInjected.name:
            self._row(request, record).negatives += 1
        elif event == RequestFinished.name:
            return self._finish(request, record)
        return None

    def _follow(self, request: str) -> dict[int, ImageRow]:
        rows = self._open.setdefault(request, {})
        if len(self._open) > _OPEN:
            oldest, _ = self._open.popitem(last=False)
            self._failures.pop(oldest, None)
        return rows

    def _row(self, request: str, record: Mapping[str, Any]) -> ImageRow:
        image = record.get("image", 0)
        index = image if isinstance(image, int) else 0
        return self._follow(request).setdefault(index, ImageRow(request, index))

    def _finish(self, request: str, record: Mapping[str, Any]) -> ImageRow:
        row = self._row(request, record)
        policy, would = record.get("policy"), record.get("would")
        fields = policy if isinstance(policy, dict) else {}
        row.time, row.decision = str(record["time"]), str(record.get("decision", ""))
        row.tenant, row.mode = str(record.get("tenant") or ""), str(fields.get("mode", ""))
        row.policy = " ".join(str(fields[key]) for key in ("name", "revision") if key in fields)
        row.would = str(would.get("decision", "")) if isinstance(would, dict) else ""
        row.failures = list(dict.fromkeys(self._failures.get(request, [])))
        rows = self._open[request]
        del rows[row.image]
        return row


def _see(row: ImageRow, record: Mapping[str, Any]) -> None:
    step, picture = record.get("step"), named(record) or ""
    row.judged |= "step" not in record
    for finding in _findings(record):
        category = str(finding.get("category", ""))
        values = [finding.get(name) for name in ("probability", "threshold")]
        probability, threshold = (float(value) if isinstance(value, int | float) else None for value in values)
        before = row.sights.get(category)
        if before is None or (probability or 0.0) > (before.probability or 0.0):
            at = step if isinstance(step, int) else None
            row.sights[category] = Sight(
                category,
                str(finding.get("term", "")),
                probability,
                threshold,
                at,
                final=bool(before and before.final),
                picture=picture or (before.picture if before else ""),
            )
        row.sights[category].final |= "step" not in record


def _findings(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    findings = record.get("findings")
    return [finding for finding in findings if isinstance(finding, dict)] if isinstance(findings, list) else []


def _names(record: Mapping[str, Any]) -> list[str]:
    return [str(finding.get("category", "")) for finding in _findings(record)]
