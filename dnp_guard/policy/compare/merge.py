"""Merge two policies into one that is at least as strict as either. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.canonical import measured
from dnp_guard.policy.compare.diff import ON_FAILURE
from dnp_guard.policy.model.category import Severity
from dnp_guard.policy.model.policy import Policy
from dnp_guard.policy.model.scalars import MAX_INTEGER
from dnp_guard.policy.model.thresholds import lowest
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.sections import Audit, CategoryQueries, Guidance, Queries

_PRIVACY = ("plain", "redacted", "hmac", "none")
_KEPT = ("never", "found", "sampled")
_PREVIEWS = ("allow", "blur", "withhold")
_OF_A_STORE = frozenset({"select", "exceptions", "floor"})
_SEVERITIES = list(Severity)


def strictest(first: Policy, *others: Policy) -> Policy:
    """Merge policies; where they differ, the strictest value wins.

    The name, the revision, the wording of the questions and the mode of guidance come from the first policy, or from
    the first enforced one if others are in shadow mode (they only record). Merged with an enforced policy, a policy in
    shadow mode only adds categories that record and never change an image.

    Args:
        first: policy that gives the result its name.
        others: policies to merge into it, in order.

    Returns:
        The merged policy; ``first`` itself if there are no others.
    """
    for other in others:
        first = _both(first, other)
    return first


def _both(a: Policy, b: Policy) -> Policy:
    if a.mode != b.mode:
        return _beside(a, b) if a.mode == "enforce" else _beside(b, a)
    data: dict[str, Any] = a.resolved() | {
        "on_failure": max(a.on_failure, b.on_failure, key=ON_FAILURE.index),
        "queries": _queries(a.queries, b.queries),
        "question": a.question.model_dump(mode="json")
        | {
            "paired": a.question.paired or b.question.paired,
            "answer": a.question.answer if b.question.answer == "text" else "probabilities",
        },
        "guidance": _guidance(a.guidance, b.guidance),
        "preview": {
            "method": a.preview.method,
            "user_previews": max(a.preview.user_previews, b.preview.user_previews, key=_PREVIEWS.index),
        },
        "categories": [
            _dump(category) | _own_steps(a, b, category.id) | _own_scale(a, b, category.id)
            for category in _categories(a, b)
        ],
        "rules": [rule.model_dump(mode="json") for rule in dict.fromkeys((*a.rules, *b.rules))],
        "audit": _audit(a.audit, b.audit) | {"required": a.audit.required or b.audit.required},
    }
    return _validated(data | _retries(a, b) | _vlm(a, b) | _inputs(a, b))


def _inputs(a: Policy, b: Policy) -> dict[str, Any]:
    """Merge the treatment of input pictures: query them if either policy does, and refuse requests if either does."""
    if not (a.inputs or b.inputs):
        return {}
    actions = [Action(policy.inputs.action) for policy in (a, b) if policy.inputs]
    return {"inputs": {"query": a.asks_inputs or b.asks_inputs, "action": Action.strictest(*actions)}}


def _beside(enforced: Policy, shadow: Policy) -> Policy:
    """Return an enforced policy, with those categories added in shadow mode that only the shadow policy has.

    Everything in the shadow policy that could alter an image is left out: its failure mode, its limit on questions, its
    treatment of previews, and rules that include enforced categories.
    """
    taken = {category.id for category in enforced.categories}
    added = [category for category in shadow.categories if category.id not in taken]
    if not added:
        return enforced
    ids = {category.id for category in added}
    rules = [rule for rule in shadow.rules if ids.issuperset(rule.all)]
    data = enforced.resolved() | {
        "categories": [category.model_dump(mode="json", exclude_none=True) for category in enforced.categories]
        + [_in_shadow(category, enforced, shadow) for category in added],
        "rules": [rule.model_dump(mode="json") for rule in (*enforced.rules, *rules)],
        "audit": _audit(enforced.audit, shadow.audit) | {"required": enforced.audit.required},
    }
    data["queries"]["max_questions"] = min(enforced.queries.max_questions + shadow.queries.max_questions, MAX_INTEGER)
    return _validated(data | _vlm(enforced, shadow))


def _in_shadow(category: Category, enforced: Policy, shadow: Policy) -> dict[str, Any]:
    """Return a category of the shadow policy as data, with that policy's query steps and guidance scale as its own."""
    data = _dump(category) | {"mode": "shadow"}
    own, queries = category.queries or shadow.queries, enforced.queries
    if not queries.final:
        data.pop("still_present", None)
    elif (own.steps, own.of, _fractions(own)) != (queries.steps, queries.of, _fractions(queries)):
        data["queries"] = _steps(own)
    if enforced.inputs is not None and not enforced.inputs.query:
        data.pop("more_than_input", None)
    scale = shadow.scale(category.id)
    if enforced.guidance.scale is not None and scale not in {None, enforced.guidance.scale}:
        data["guidance"] = {"scale": scale}
    return data


def _audit(a: Audit, b: Audit) -> dict[str, Any]:
    return {
        "prompt": max(a.prompt, b.prompt, key=_PRIVACY.index),
        "previews": min(a.previews, b.previews, key=_KEPT.index),
        **(
            {"sample": min(shares)}
            if (shares := [audit.sample for audit in (a, b) if audit.sample is not None])
            else {}
        ),
        "retention_days": min(a.retention_days, b.retention_days),
    }


def _vlm(a: Policy, b: Policy) -> dict[str, Any]:
    """Return the ``vlm`` section with the backends that both policies allow; empty if neither policy has one."""
    if a.vlm and b.vlm:
        return {"vlm": {"allow": [address for address in a.vlm.allow if address in b.vlm.allow]}}
    either = a.vlm or b.vlm
    return {"vlm": either.model_dump(mode="json")} if either else {}


def _validated(data: dict[str, Any]) -> Policy:
    return Policy.model_validate({key: value for key, value in data.items() if key not in _OF_A_STORE})


def _queries(a: Queries, b: Queries) -> dict[str, Any]:
    same = (a.steps, a.of) == (b.steps, b.of)
    steps = (
        a.steps
        if same
        else sorted({step / queries.of if queries.of else step for queries in (a, b) for step in queries.steps})
    )
    merged: dict[str, Any] = {
        "steps": list(steps),
        "of": a.of if same else None,
        "sigmas": sorted({*(a.sigmas or ()), *(b.sigmas or ())}, reverse=True) or None,
        "final": _final(a, b),
        "skip_similar": _none_is_most(a.skip_similar, b.skip_similar),
        "deadline_ms": _none_is_most(a.deadline_ms, b.deadline_ms),
        "wait": a.wait if b.wait is False else b.wait,
        "budget_ms": _none_is_most(a.budget_ms, b.budget_ms),
        "max_questions": min(a.max_questions, b.max_questions),
    }
    if a.back_off and b.back_off:
        factor, below = (min(getattr(queries.back_off, key) for queries in (a, b)) for key in ("factor", "below"))
        merged["back_off"] = {"factor": factor, "below": below}
        if a.back_off.steered and b.back_off.steered:
            merged["back_off"]["steered"] = min(a.back_off.steered, b.back_off.steered)
    if a.skip_probe and b.skip_probe:
        merged["skip_probe"] = {"max_miss": min(a.skip_probe.max_miss, b.skip_probe.max_miss)}
    return {key: value for key, value in merged.items() if value is not None}


def _final(a: Queries, b: Queries) -> bool | dict[str, Any]:
    """Return the merged ``queries.final``: both policies' views of the finished image, or whether either queries it."""
    views = list(dict.fromkeys((*a.views, *b.views)))
    return {"views": views} if views else bool(a.final or b.final)


def _retries(a: Policy, b: Policy) -> dict[str, Any]:
    """Return the merged ``retries`` section: the stronger steering and the lower limits; empty if neither has one."""
    if a.retries is None or b.retries is None:
        either = a.retries or b.retries
        if either is None:
            return {}
        only = either.model_dump(mode="json", exclude_none=True)
        return {"retries": only | {"otherwise": _otherwise(a, b, Action(either.otherwise))}}
    both = (a.retries, b.retries)
    times = [retries.within_ms for retries in both if retries.within_ms is not None]
    return {
        "retries": {
            "most": min(retries.most for retries in both),
            "otherwise": _otherwise(a, b, Action.strictest(*(Action(retries.otherwise) for retries in both))),
            "scale": max(retries.scale for retries in both),
        }
        | ({"within_ms": min(times)} if times else {})
    }


def _otherwise(a: Policy, b: Policy, otherwise: Action) -> Action:
    """Return the action after the last retry: at least blur if one policy blurs a category that the other retries."""
    ends = [{category.id: category.still_present for category in policy.categories} for policy in (a, b)]
    pairs = [{ends[0][name], ends[1][name]} for name in ends[0].keys() & ends[1].keys()]
    return Action.strictest(otherwise, Action.BLUR) if {Action.BLUR, Action.RETRY} in pairs else otherwise


def _guidance(a: Guidance, b: Guidance) -> dict[str, Any]:
    merged: dict[str, Any] = {"mode": a.mode, "hold": max(a.hold, b.hold)}
    if a.attention is not None:
        both = [attention.attention for attention in (a, b) if attention.attention is not None]
        merged["attention"] = {
            key: max(getattr(attention, key) for attention in both) for key in ("phi", "tau", "alpha", "mask")
        }
        merged["escalate"] = min((count for count in (a.escalate, b.escalate) if count is not None), default=None)
    if a.mode in {"separate", "auto"} or merged.get("escalate") is not None:
        merged["scale"] = max((scale for scale in (a.scale, b.scale) if scale is not None), default=None)
    if a.mode != "replace":
        merged["strength"] = a.strength if b.strength in {a.strength, None} else "constant"
        merged["mask"] = _none_is_most(a.mask, b.mask)
        merged["reuse"] = None if a.reuse is None or b.reuse is None else min(a.reuse, b.reuse)
        merged["batched"] = a.batched
    return {key: value for key, value in merged.items() if value is not None}


def _categories(a: Policy, b: Policy) -> Iterable[Category]:
    others = {category.id: category for category in b.categories}
    for category in a.categories:
        other = others.pop(category.id, None)
        yield category if other is None else _category(category, other)
    yield from others.values()


def _category(a: Category, b: Category) -> Category:
    if a.mode != b.mode:
        return a if a.mode == "enforce" else b
    ends = [Action(category.still_present) for category in (a, b) if category.still_present]
    data = a.model_dump(mode="json", exclude_none=True) | {
        "look_for": list(dict.fromkeys((*a.look_for, *b.look_for))) if a.terms != b.terms else list(a.look_for),
        "allowed": _allowed(a, b),
        "negative": list(dict.fromkeys((*a.negative, *b.negative))),
        "threshold": lowest(a.threshold, b.threshold),
        "final_threshold": min(a.final_threshold, b.final_threshold),
        "allowed_threshold": max(a.allowed_threshold, b.allowed_threshold),
        "severity": max(Severity(a.severity), Severity(b.severity), key=_SEVERITIES.index),
        "action": Action.strictest(Action(a.action), Action(b.action)),
        "sensitive": a.sensitive or b.sensitive,
    }
    if a.terms != b.terms and not (a.look_for and b.look_for):
        data["look_for"] = list(dict.fromkeys((*a.terms, *b.terms)))
    if a.calibration is None and b.calibration is not None:
        data["calibration"] = b.calibration.model_dump(mode="json")
    rises = [category.more_than_input or 0.0 for category in (a, b)]
    data["more_than_input"] = None if not all(rises) or data["sensitive"] or _critical(a, b) else min(rises)
    if ends:
        data["still_present"] = Action.strictest(*ends)
    return type(a).model_validate(data)


def _critical(*categories: Category) -> bool:
    return any(category.severity is Severity.CRITICAL for category in categories)


def _allowed(a: Category, b: Category) -> list[str] | dict[str, list[str]]:
    """Return the merged ``allowed``: the cases that excuse a term in every policy that asks about the term."""
    if isinstance(a.allowed, tuple) and isinstance(b.allowed, tuple):
        return [case for case in a.allowed if case in b.allowed]
    merged: dict[str, list[str]] = {}
    for term in dict.fromkeys((*a.terms, *b.terms)):
        looking = [category for category in (a, b) if term in category.terms]
        cases = [case for case in looking[0].excuses(term) if case in looking[-1].excuses(term)]
        if cases:
            merged[term] = cases
    return merged


def _own_steps(a: Policy, b: Policy, name: str) -> dict[str, Any]:
    """Return a category's ``queries`` with the steps of both policies; empty if neither sets steps for the category."""
    having = [(policy, category) for policy in (a, b) for category in policy.categories if category.id == name]
    if all(category.queries is None for _, category in having):
        return {}
    used = [category.queries or policy.queries for policy, category in having]
    if all((queries.steps, queries.of, _fractions(queries)) == (used[0].steps, used[0].of, ()) for queries in used):
        return {"queries": _steps(used[0])}
    fractions = {step / queries.of if queries.of else step for queries in used for step in queries.steps}
    return {"queries": {"steps": sorted(fractions.union(*map(_fractions, used)))}}


def _steps(queries: Queries | CategoryQueries) -> dict[str, Any]:
    if levels := _fractions(queries):
        return {"steps": sorted({*(step / queries.of if queries.of else step for step in queries.steps), *levels})}
    return {"steps": list(queries.steps)} | ({"of": queries.of} if queries.of else {})


def _fractions(queries: Queries | CategoryQueries) -> tuple[float, ...]:
    """Convert a policy's noise levels to fractions of the run, as if noise fell evenly; a category has no levels."""
    return tuple(measured(1 - sigma) for sigma in getattr(queries, "sigmas", None) or ())


def _own_scale(a: Policy, b: Policy, name: str) -> dict[str, Any]:
    """Return a category's ``guidance`` with the higher scale of both policies; empty if neither sets one for it."""
    having = [policy for policy in (a, b) if any(category.id == name for category in policy.categories)]
    if _guidance(a.guidance, b.guidance).get("scale") is None or all(
        policy.category(name).guidance is None for policy in having
    ):
        return {}
    return {"guidance": {"scale": max(scale for policy in having if (scale := policy.scale(name)) is not None)}}


def _dump(category: Category) -> dict[str, Any]:
    return category.model_dump(mode="json", exclude_none=True, exclude={"guidance", "queries"})


def _none_is_most(a: float | None, b: float | None) -> float | None:
    """Return the larger of two limits; None, which means no limit, is the largest."""
    return None if a is None or b is None else max(a, b)
