"""Estimate, from a log made in shadow mode, what enforcing a policy would have done. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.audit.events import QueryAnswered, RequestAbandoned, RequestFinished
from dnp_guard.audit.read.intervals import wilson
from dnp_guard.types import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.policy import Policy

_OF_END = {Action.BLOCK: Outcome.BLOCKED, Action.BLUR: Outcome.BLURRED, Action.MONITOR: Outcome.MONITORED}


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a tenant's images that would have had an outcome because of one category.

    Attributes:
        tenant: the tenant; "" if the log names none.
        category: id of the category; "" for the whole policy.
        outcome: outcome that the images would have had.
        count: number of such images.
        images: number of finished images.
        low: lower end of the share's 95 % confidence interval.
        high: upper end of that interval.
    """

    tenant: str
    category: str
    outcome: Outcome
    count: int
    images: int
    low: float
    high: float


def rehearsed(policy: Policy, records: Iterable[Mapping[str, Any]]) -> tuple[Share, ...]:
    """Count the outcomes that categories in shadow mode would have caused, by tenant, first those of the whole policy.

    Args:
        policy: the policy with categories in shadow mode.
        records: records of a log made under this policy, in order.
    """
    shadow = {category.id: category for category in policy.categories if policy.shadow(category.id)}
    open_images: dict[tuple[str, object], dict[str, Outcome]] = {}
    images: Counter[str] = Counter()
    counted: Counter[tuple[str, str, Outcome]] = Counter()
    for record in records:
        key = str(record.get("request", "")), record.get("image")
        if record["event"] == QueryAnswered.name:
            outcomes = open_images.setdefault(key, {})
            for name in _found(record) & shadow.keys():
                outcome = _outcome(policy, shadow[name], final="step" not in record)
                outcomes[name] = Outcome.strictest(outcomes.get(name, outcome), outcome)
        elif record["event"] == RequestFinished.name:
            tenant, outcomes = str(record.get("tenant", "")), open_images.pop(key, {})
            images[tenant] += 1
            for name, outcome in outcomes.items():
                counted[tenant, name, outcome] += 1
            if outcomes:
                counted[tenant, "", Outcome.strictest(*outcomes.values())] += 1
        elif record["event"] == RequestAbandoned.name:
            for gone in [other for other in open_images if other[0] == key[0]]:
                del open_images[gone]
    return tuple(
        Share(tenant, name, outcome, count, images[tenant], *wilson(count, images[tenant]))
        for (tenant, name, outcome), count in sorted(counted.items(), key=lambda item: (*item[0][:2], -item[0][2].rank))
    )


def _found(record: Mapping[str, Any]) -> set[str]:
    findings = record.get("findings")
    return {str(finding.get("category")) for finding in findings if isinstance(finding, dict)} if findings else set()


def _outcome(policy: Policy, category: Category, *, final: bool) -> Outcome:
    """Return the outcome that one finding of a category would have had under enforcement."""
    action = Action(category.action)
    if not final:
        return Outcome.STEERED if action is not Action.MONITOR and category.negative else Outcome.MONITORED
    end = Action(category.still_present or Action.BLOCK)
    if end is Action.RETRY and policy.retries is not None:
        end = Action(policy.retries.otherwise)  # the result of another attempt is unknown
    return _OF_END[Action.strictest(end, action) if action in {Action.BLUR, Action.BLOCK} else end]
