"""Convert policies, findings, decisions and prompts to fields of audit records. Pure."""

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
    """Return a policy as the ``policy`` object of an audit record: name, revision, digest and mode."""
    return {"name": of.name, "revision": of.revision, "digest": of.digest, "mode": of.mode}


def exception(of: PolicyException) -> ExceptionFields:
    """Return an exception, a policy's temporary change of a category, as ``exception`` of an audit record."""
    written: ExceptionFields = {
        "category": of.category,
        "set": of.set.model_dump(mode="json", exclude_none=True),
        "until": of.until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "approved_by": of.approved_by,
    }
    return written if of.tenant is None else {**written, "tenant": of.tenant}


def findings(found: Iterable[Finding], sensitive: AbstractSet[str] = frozenset()) -> list[FindingFields] | None:
    """Return findings as the ``findings`` list of an audit record; None if there are none.

    Args:
        found: findings in one image.
        sensitive: ids of sensitive categories, of whose findings only the category's id is recorded.
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
    """Map every category that a query found to its action, to ``waived`` if excused, or ``shadow`` if only recorded."""
    outcomes: dict[str, str] = {finding.category: "waived" for finding in decision.waived}
    for finding in decision.findings:
        category = finding.category
        outcomes[category] = "shadow" if of.shadow(category) else str(of.category(category).action)
    return outcomes


def tells(decision: Decision, sensitive: AbstractSet[str]) -> bool:
    """Return whether a decision has a finding of a sensitive category, waived or not."""
    return any(finding.category in sensitive for finding in (*decision.findings, *decision.waived))


def negative(value: Negative, sensitive: AbstractSet[str] = frozenset(), *, effective: bool) -> NegativeFields:
    """Return a negative prompt as the ``negative`` object of an audit record; no words if a category is sensitive."""
    both = value.attention is not None and value.scale is not None
    written: NegativeFields = {"mode": "attention+separate" if both else value.mode, "effective": effective}
    if value.scale is not None:
        written["scale"] = value.scale
    if value.attention is not None:
        steered = value.attention
        written["attention"] = {"phi": steered.phi, "tau": steered.tau, "alpha": steered.alpha}
        if steered.mask < 1:
            written["attention"]["mask"] = steered.mask
    if sensitive.isdisjoint(value.categories):
        written["text"] = value.text
    return written


def would(decision: Decision) -> WouldFields | None:
    """Return the decision that would apply without shadow mode, as the ``would`` object of an audit record.

    None if it is the same as the decision itself.
    """
    written: WouldFields = {}
    if decision.would_action is not None:
        written["decision"] = decision.would_action
    if decision.would_negative is not None:
        written["negative"] = decision.would_negative.text
        if decision.would_negative.scale is not None:
            written["scale"] = decision.would_negative.scale
    return written or None


def prompt(prompts: Sequence[Mapping[str, Any]]) -> PromptFields | None:
    """Join the ``prompt`` objects of a request's prompts into the one of its audit record.

    Each key holds a list of the prompts' values, in the order of the prompts, or the value itself if there is only one.
    """
    joined: dict[str, list[Any]] = {}
    for redacted in prompts:
        for key, value in redacted.items():
            joined.setdefault(key, []).append(value)
    written = {key: values[0] if len(values) == 1 else values for key, values in joined.items()}
    return cast("PromptFields", written) if written else None


def reason(error: Exception) -> str:
    """Return the label ``reason`` of an error in the metric ``dnp_guard_degraded_total``."""
    return error.reason if isinstance(error, VlmError) else "guard_error"


def why(
    policy: Policy,
    outcome: Outcome,
    queries: Sequence[QueryReport],
    negatives: Sequence[tuple[int, Negative]] = (),
    would: Outcome | None = None,
) -> str:
    """Explain an image's outcome in one sentence, for people.

    Args:
        policy: the policy in force.
        outcome: outcome of the image.
        queries: answered queries about the image.
        negatives: negatives that steered it.
        would: the outcome if no category were in shadow (recorded only); None if it is the same.
    """
    if outcome in _OF_FAILURE:
        return _OF_FAILURE[outcome]
    if not queries:
        return "nothing was looked at"
    last = queries[-1].decision
    seen = dict.fromkeys(finding.category for query in queries for finding in query.decision.findings)
    sentence = last.why
    if outcome is Outcome.STEERED and last.action is None:
        away = dict.fromkeys(category for _, negative in negatives for category in negative.categories)
        sentence = f"{_titles(policy, away)} was steered away from, and the last look does not find it"
    elif outcome is Outcome.MONITORED and last.action is None:
        sentence = f"{_titles(policy, seen)} was seen while the image was made, and the last look does not find it"
    if would is None:
        return sentence
    rehearsed = [category for category in seen if policy.shadow(category)] or list(seen)
    shadow = f"in shadow: would have been {would}, as {_titles(policy, rehearsed)} was seen"
    return shadow if outcome is Outcome.CLEAN else f"{sentence}; {shadow}"


def refused(inputs: Iterable[InputReport]) -> str:
    """Explain in one sentence why a request is refused for one of its own pictures; empty if it is not."""
    for index, report in enumerate(inputs):
        if report.action == "block":
            seen = report.decision.why if report.decision is not None else "the query about it was not answered"
            return f"picture {index} of the request is refused: {seen}"
    return ""


def with_attempts(why: str, attempts: int, not_again: str) -> str:
    """Add to an image's explanation how often the image was drawn, or why it was not drawn again."""
    parts = [why]
    if attempts > 1:
        parts.append(f"it was made {attempts} times")
    if not_again:
        parts.append(f"it was not made again: {not_again}" if attempts == 1 else f"the last time failed: {not_again}")
    return "; ".join(parts)


_OF_FAILURE = {
    Outcome.FAILED_CLOSED: "the guard could not do its job, and the policy fails closed",
    Outcome.FAILED_OPEN: "the guard could not do its job, and the policy lets the image pass",
    Outcome.UNASKED: "in shadow: no query was answered, so nobody knows what would have been done",
}


def _titles(policy: Policy, categories: Iterable[str]) -> str:
    return " and ".join(policy.category(category).title for category in categories) or "something of the policy"
