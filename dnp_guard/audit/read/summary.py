"""Summarise a period of an audit log in one pass, in memory that does not grow with the log."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import (
    FindingWaived,
    GuardDegraded,
    NegativeInjected,
    QueryAnswered,
    QuerySkipped,
    RequestAbandoned,
    RequestFinished,
    RequestStarted,
)
from dnp_guard.audit.read.images import Follower
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dnp_guard.audit.read.images import ImageRow

HELD: Final = "kept from an earlier look"
"""Stands for the category of a negative prompt without a finding in the query that caused it."""

_OPEN = 20_000
_STEPS = 40  # bins per factor of ten: the percentiles are accurate to 6 %
_SLOTS = 60
_MOST_LISTED = 500
_WITHHELD = frozenset(map(str, (Outcome.BLURRED, Outcome.BLOCKED, Outcome.FAILED_CLOSED)))


@dataclass(slots=True)
class PolicyUse:
    """The use of one revision of a policy, and its results.

    Attributes:
        name: name of the policy.
        revision: revision of the policy.
        digest: digest of the policy.
        mode: ``enforce`` or ``shadow``.
        first: time of its first record.
        last: time of its last record.
        generations: number of generations begun under it.
        steered: number of images with a negative prompt from the guard.
        still_present: number of these images that, when finished, still showed what they were steered away from.
    """

    name: str
    revision: str
    digest: str
    mode: str
    first: str
    last: str
    generations: int = 0
    steered: int = 0
    still_present: int = 0

    @property
    def share(self) -> float:
        """Fraction of the steered images that, when finished, still showed what they were steered away from."""
        return self.still_present / self.steered if self.steered else 0.0


@dataclass(slots=True)
class Summary:
    """Counts of the records in a period.

    Under a policy in shadow, which only records, an image also has the outcome that enforcing the policy would give.

    Attributes:
        first: time of the first record; "" for none.
        last: time of the last record.
        records: number of records.
        generations: number of generations begun.
        abandoned: number of generations that ended without images.
        images: number of finished images.
        queries: number of answered queries; one about several images counts once per image.
        skipped: number of skipped queries, counted in the same way.
        injections: number of negative prompts injected, including changed ones, over all images.
        waived: number of findings that an allowed case excused.
        by_category: injections by category.
        seen: finished images by category found, then by outcome; under shadow, by ``would be`` and the outcome if
            enforced.
        tenants: finished images by tenant, then by outcome as in ``seen``.
        over_time: injections by hour, then by category.
        outcomes_over_time: finished images by hour, then by outcome as in ``seen``.
        seen_over_time: finished images by hour, then by category found.
        by_day: finished images by day, tenant, policy, category and outcome; the category "" stands for all images.
        withheld: number of images that were withheld, or would have been if enforced.
        listed: the latest of the withheld images.
        decisions: finished images by outcome.
        would: finished images by their outcome and the outcome if enforced, where these differ.
        degraded: number of times that the guard could not do its job, by reason.
        latencies: number of answers by logarithm of their latency.
        policies: use of every policy, by its name, revision, digest and mode.
        unasked: number of finished generations without an answered query.
    """

    first: str = ""
    last: str = ""
    records: int = 0
    generations: int = 0
    abandoned: int = 0
    images: int = 0
    queries: int = 0
    skipped: int = 0
    injections: int = 0
    waived: int = 0
    unasked: int = 0
    by_category: Counter[str] = field(default_factory=Counter)
    seen: dict[str, Counter[str]] = field(default_factory=dict)
    tenants: dict[str, Counter[str]] = field(default_factory=dict)
    over_time: dict[str, Counter[str]] = field(default_factory=dict)
    outcomes_over_time: dict[str, Counter[str]] = field(default_factory=dict)
    seen_over_time: dict[str, Counter[str]] = field(default_factory=dict)
    by_day: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    withheld: int = 0
    listed: deque[ImageRow] = field(default_factory=lambda: deque(maxlen=_MOST_LISTED))
    decisions: Counter[str] = field(default_factory=Counter)
    would: Counter[tuple[str, str]] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)
    policies: dict[tuple[str, ...], PolicyUse] = field(default_factory=dict)
    _open: OrderedDict[str, _Open] = field(default_factory=OrderedDict)
    _images: Follower = field(default_factory=Follower)

    def percentile(self, share: float) -> float | None:
        """Return a percentile of the latency of answers, in milliseconds; None if there are no answers.

        Args:
            share: fraction of the answers that took no longer, such as 0.9.
        """
        left = share * self.latencies.total()
        for place in sorted(self.latencies):
            left -= self.latencies[place]
            if left <= 0:
                return float(10 ** ((place + 0.5) / _STEPS))
        return None

    def add(self, record: Mapping[str, Any]) -> None:  # noqa: C901 (one branch per event)
        """Count one record; pass the records in the order of the log."""
        event, time, request = record["event"], record["time"], str(record.get("request", ""))
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)
        self.records += 1
        policy = self._policy(record, time)
        if (row := self._images.add(record)) is not None:
            self._image(row)
        if event == RequestStarted.name:
            self.generations += 1
            if policy is not None:
                policy.generations += 1
            self._open[request] = _Open()
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        elif event == QueryAnswered.name:
            self._query(record, self._open.get(request), policy)
        elif event == QuerySkipped.name:
            self.skipped += 1
        elif event == NegativeInjected.name:
            self._injected(record, self._open.get(request), policy)
        elif event == FindingWaived.name:
            self.waived += len(_findings(record))
        elif event == GuardDegraded.name:
            self.degraded[str(record.get("reason", "")).partition(":")[0]] += 1
        elif event == RequestFinished.name:
            self.images += 1
            self.decisions[str(record.get("decision", ""))] += 1
            would = record.get("would")
            if isinstance(would, dict):
                self.would[str(record.get("decision", "")), str(would.get("decision", ""))] += 1
            opened = self._open.pop(request, None)
            self.unasked += opened is not None and not opened.asked
        elif event == RequestAbandoned.name:
            self.abandoned += 1
            self._open.pop(request, None)

    def _image(self, row: ImageRow) -> None:
        outcome = f"would be {row.would}" if row.would else row.decision
        self.tenants.setdefault(row.tenant, Counter())[outcome] += 1
        hour = row.time[:13]
        self.outcomes_over_time.setdefault(hour, Counter())[outcome] += 1
        for category in row.sights:
            self.seen.setdefault(category, Counter())[outcome] += 1
            self.seen_over_time.setdefault(hour, Counter())[category] += 1
        for category in ("", *row.sights):
            self.by_day[row.time[:10], row.tenant, row.policy, category, outcome] += 1
        if row.decision in _WITHHELD or row.would in _WITHHELD:
            self.withheld += 1
            self.listed.append(row)

    def _policy(self, record: Mapping[str, Any], time: str) -> PolicyUse | None:
        policy = record.get("policy")
        if not isinstance(policy, dict):
            return None
        key = tuple(str(policy.get(name, "")) for name in ("name", "revision", "digest", "mode"))
        use = self.policies.get(key)
        if use is None:
            name, revision, digest, mode = key
            use = self.policies[key] = PolicyUse(name, revision, digest, mode, time, time)
        use.last = max(use.last, time)
        return use

    def _query(self, record: Mapping[str, Any], opened: _Open | None, policy: PolicyUse | None) -> None:
        self.queries += 1
        latency = record.get("latency_ms")
        if isinstance(latency, int | float) and latency > 0:
            self.latencies[math.floor(math.log10(latency) * _STEPS)] += 1
        if opened is None:
            return
        opened.asked = True
        steered = opened.steered.get(record.get("image", 0), frozenset())
        if policy is not None and "step" not in record and steered & set(_categories(record)):
            policy.still_present += 1

    def _injected(self, record: Mapping[str, Any], opened: _Open | None, policy: PolicyUse | None) -> None:
        self.injections += 1
        categories = list(_categories(record))
        leading = categories[0] if categories else HELD
        self.by_category[leading] += 1
        self.over_time.setdefault(record["time"][:13], Counter())[leading] += 1
        if opened is None:
            return
        image = record.get("image", 0)
        if policy is not None and image not in opened.steered:
            policy.steered += 1
        opened.steered[image] = opened.steered.get(image, frozenset()) | set(categories)


@dataclass(slots=True)
class _Open:
    """A generation without a finished image yet: whether a query was answered, and the steered categories by image."""

    asked: bool = False
    steered: dict[object, frozenset[str]] = field(default_factory=dict)


def timeline(by_hour: Mapping[str, Counter[str]]) -> list[tuple[str, Counter[str]]]:
    """Return the counts in order of time: by hour, or for a long period merged by day or month."""
    for digits in (13, 10, 7):
        slots: dict[str, Counter[str]] = {}
        for hour, counted in by_hour.items():
            slots.setdefault(hour[:digits], Counter()).update(counted)
        if len(slots) <= _SLOTS:
            break
    return sorted(slots.items())


def summarise(records: Iterable[Mapping[str, Any]], since: str = "", until: str = "") -> Summary:
    """Summarise the records of a log in a period.

    Args:
        records: records of the log.
        since: start of the period, inclusive; "" for the beginning of the log.
        until: end of the period, exclusive; "" for the end of the log.
    """
    summary = Summary()
    for record in records:
        if since <= record["time"] and (not until or record["time"] < until):
            summary.add(record)
    return summary


def _findings(record: Mapping[str, Any]) -> list[Any]:
    findings = record.get("findings")
    return findings if isinstance(findings, list) else []


def _categories(record: Mapping[str, Any]) -> Iterator[str]:
    for finding in _findings(record):
        if isinstance(finding, dict):
            yield str(finding.get("category", ""))
