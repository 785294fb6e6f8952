"""Values of a session as fields of audit records. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dnp_guard.errors import VlmError
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from dnp_guard.audit.shapes import (
        ExceptionFields,
        FindingFields,
        NegativeFields,
        PolicyFields,
        PromptFields,
        WouldFields,
    )
    from dnp_guard.policy import Policy, PolicyException
    from dnp_guard.types import Decision, Finding, InputReport, Negative, QueryReport


def policy(of: Policy) -> PolicyFields:
    """``policy{name, revision, digest, mode}``."""
    return {"name": of.name, "revision": of.revision, "digest": of.digest, "mode": of.mode}


def exception(of: PolicyException) -> ExceptionFields:
    """``exception{category, set, until, approved_by, tenant}``."""
    told: ExceptionFields = {
        "category": of.category,
        "set": of.set.model_dump(mode="json", exclude_none=True),
        "until": of.until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "approved_by": of.approved_by,
    }
    return told if of.tenant is None else {**told, "tenant": of.tenant}


def findings(found: Iterable[Finding], sensitive: AbstractSet[str] = frozenset()) -> list[FindingFields] | None:
    """``findings[{category, term, probability, threshold}]``; None for none.

    Args:
        found: in one image.
        sensitive: categories of which nothing is written but that they were found.
    """
    facts: list[FindingFields] = []
    for finding in found:
        fact: FindingFields = {"category": finding.category}
        if finding.category not in sensitive:
            fact["term"] = finding.term
            fact["probability"], fact["threshold"] = finding.probability, finding.threshold
        if fact not in facts:
            facts.append(fact)
    return facts or None


def seen(of: Policy, decision: Decision) -> dict[str, str]:
    """The categories that a look saw, each with the action that it has, ``waived``, or ``shadow``."""
    outcomes: dict[str, str] = {finding.category: "waived" for finding in decision.waived}
    for finding in decision.findings:
        category = finding.category
        outcomes[category] = "shadow" if of.shadow(category) else str(of.category(category).action)
    return outcomes


def tells(decision: Decision, sensitive: AbstractSet[str]) -> bool:
    """Whether a decision is about an image that shows something sensitive."""
    return any(finding.category in sensitive for finding in (*decision.findings, *decision.waived))


def negative(value: Negative, sensitive: AbstractSet[str] = frozenset(), *, effective: bool) -> NegativeFields:
    """``negative{text, scale, mode, effective}``, without its words where it is made from a sensitive category."""
    both = value.attention is not None and value.scale is not None
    told: NegativeFields = {"mode": "attention+separate" if both else value.mode, "effective": effective}
    if value.scale is not None:
        told["scale"] = value.scale
    if value.attention is not None:
        phi, tau, alpha = value.attention.phi, value.attention.tau, value.attention.alpha
        told["attention"] = {"phi": phi, "tau": tau, "alpha": alpha}
    if sensitive.isdisjoint(value.categories):
        told["text"] = value.text
    return told


def would(decision: Decision) -> WouldFields | None:
    """``would{decision, negative, scale}``; None where nothing is in shadow."""
    told: WouldFields = {}
    if decision.would_action is not None:
        told["decision"] = decision.would_action
    if decision.would_negative is not None:
        told["negative"] = decision.would_negative.text
        if decision.would_negative.scale is not None:
            told["scale"] = decision.would_negative.scale
    return told or None


def prompt(prompts: Sequence[Mapping[str, Any]]) -> PromptFields | None:
    """``prompt{…}`` of a request: each kind's values in the order of the prompts, one value where there is one."""
    joined: dict[str, list[Any]] = {}
    for each in prompts:
        for key, value in each.items():
            joined.setdefault(key, []).append(value)
    told = {key: values[0] if len(values) == 1 else values for key, values in joined.items()}
    return cast("PromptFields", told) if told else None


def reason(error: Exception) -> str:
    """The label of ``dnp_guard_degraded_total`` for an error."""
    return error.reason if isinstance(error, VlmError) else "guard_error"


def why(
    policy: Policy,
    outcome: Outcome,
    queries: Sequence[QueryReport],
    negatives: Sequence[tuple[int, Negative]] = (),
    would: Outcome | None = None,
) -> str:
    """One sentence on an image's outcome, for a person.

    Args:
        policy: the policy in force.
        outcome: of the image.
        queries: answered about it.
        negatives: injected.
        would: what the outcome would have been if nothing were in shadow.
    """
    if outcome in _OF_FAILURE:
        return _OF_FAILURE[outcome]
    if not queries:
        return "nothing was looked at"
    last = queries[-1].decision
    seen = dict.fromkeys(finding.category for query in queries for finding in query.decision.findings)
    said = last.why
    if outcome is Outcome.STEERED and last.action is None:
        away = dict.fromkeys(category for _, negative in negatives for category in negative.categories)
        said = f"{_titles(policy, away)} was steered away from, and the last look sees none of it"
    elif outcome is Outcome.MONITORED and last.action is None:
        said = f"{_titles(policy, seen)} was seen while the image was made, and the last look sees none of it"
    if would is None:
        return said
    rehearsed = [category for category in seen if policy.shadow(category)] or list(seen)
    told = f"in shadow: would have been {would}, as {_titles(policy, rehearsed)} was seen"
    return told if outcome is Outcome.CLEAN else f"{said}; {told}"


def refused(inputs: Iterable[InputReport]) -> str:
    """One sentence on a request that is refused for a picture of its own; empty for one that is not."""
    for index, each in enumerate(inputs):
        if each.action == "block":
            seen = each.decision.why if each.decision is not None else "it was not answered about"
            return f"picture {index} of the request is refused: {seen}"
    return ""


def with_attempts(why: str, attempts: int, not_again: str) -> str:
    """The sentence on an image, and how often it was made or why not again."""
    told = [why]
    if attempts > 1:
        told.append(f"it was made {attempts} times")
    if not_again:
        told.append(f"it was not made again: {not_again}" if attempts == 1 else f"the last time failed: {not_again}")
    return "; ".join(told)


_OF_FAILURE = {
    Outcome.FAILED_CLOSED: "the guard could not do its job, and the policy fails closed",
    Outcome.FAILED_OPEN: "the guard could not do its job, and the policy lets the image pass",
    Outcome.UNASKED: "in shadow: no query was answered, so nobody knows what would have been done",
}


def _titles(policy: Policy, categories: Iterable[str]) -> str:
    return " and ".join(policy.category(category).title for category in categories) or "something of the policy"
