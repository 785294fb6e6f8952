"""Values of a session as fields of audit records. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.errors import VlmError
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from dnp_guard.policy import Policy
    from dnp_guard.types import Decision, Finding, Look, Negative, Step


def policy(of: Policy) -> dict[str, Any]:
    """``policy{name, revision, digest, mode}``."""
    return {"name": of.name, "revision": of.revision, "digest": of.digest, "mode": of.mode}


def findings(found: Iterable[Finding], sensitive: AbstractSet[str] = frozenset()) -> list[dict[str, Any]] | None:
    """``findings[{category, term, probability, threshold}]``; None for none.

    Args:
        found: in one image.
        sensitive: categories of which nothing is written but that they were found.
    """
    facts: list[dict[str, Any]] = []
    for finding in found:
        fact: dict[str, Any] = {"category": finding.category}
        if finding.category not in sensitive:
            fact |= {"term": finding.term, "probability": finding.probability, "threshold": finding.threshold}
        if fact not in facts:
            facts.append(fact)
    return facts or None


def tells(decision: Decision, sensitive: AbstractSet[str]) -> bool:
    """Whether a decision is about an image that shows something sensitive."""
    return any(finding.category in sensitive for finding in (*decision.findings, *decision.waived))


def negative(value: Negative, sensitive: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    """``negative{text, scale, mode}``, without its words where it is made from a sensitive category."""
    scale = {} if value.scale is None else {"scale": value.scale}
    if not sensitive.isdisjoint(value.categories):
        return {"mode": value.mode, **scale}
    return {"text": value.text, "mode": value.mode, **scale}


def look(step: Step | None, decision: Decision, sensitive: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    """Fields of a ``query`` record; ``would`` where something is in shadow."""
    would = {
        "decision": decision.would_action,
        "negative": decision.would_negative.text if decision.would_negative else None,
        "scale": decision.would_negative.scale if decision.would_negative else None,
    }
    return {
        "step": step.index if step is not None else None,
        "steps": step.total if step is not None else None,
        "sigma": step.sigma if step is not None else None,
        "findings": findings(decision.findings, sensitive),
        "decision": decision.action or "none",
        "would": {key: value for key, value in would.items() if value is not None} or None,
    }


def prompt(prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """``prompt{…}`` of a request: each kind's values in the order of the prompts, one value where there is one."""
    joined: dict[str, list[Any]] = {}
    for each in prompts:
        for key, value in each.items():
            joined.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in joined.items()} or None


def reason(error: Exception) -> str:
    """The label of ``dnp_guard_degraded_total`` for an error."""
    return error.reason if isinstance(error, VlmError) else "guard_error"


def why(outcome: Outcome, looks: Sequence[Look]) -> str:
    """One sentence on an image's outcome, for a person."""
    if outcome is Outcome.FAILED_CLOSED:
        return "the guard could not do its job, and the policy fails closed"
    if outcome is Outcome.FAILED_OPEN:
        return "the guard could not do its job, and the policy lets the image pass"
    return looks[-1].decision.why if looks else "nothing was looked at"
