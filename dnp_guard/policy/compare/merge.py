"""Two policies as one that is at least as strict as either. Pure."""

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
    """The policy that does what each of several would, the strictest where they differ.

    Name, revision, wording of the questions and kind of guidance are the first's, an enforced one's where only some are
    enforced. Beside one that is enforced, a policy in shadow adds its own categories in shadow, and changes no image.

    Args:
        first: gives the result its name.
        others: merged into it one after the other.

    Returns:
        The first itself where there are no others.
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
            _dump(each) | _own_steps(a, b, each.id) | _own_scale(a, b, each.id) for each in _categories(a, b)
        ],
        "rules": [rule.model_dump(mode="json") for rule in dict.fromkeys((*a.rules, *b.rules))],
        "audit": _audit(a.audit, b.audit) | {"required": a.audit.required or b.audit.required},
    }
    return _validated(data | _retries(a, b) | _vlm(a, b) | _inputs(a, b))


def _inputs(a: Policy, b: Policy) -> dict[str, Any]:
    """What is done about a request's own pictures: asked about where either asks, refused where either refuses."""
    if not (a.inputs or b.inputs):
        return {}
    actions = [Action(each.inputs.action) for each in (a, b) if each.inputs]
    return {"inputs": {"query": a.asks_inputs or b.asks_inputs, "action": Action.strictest(*actions)}}


def _beside(enforced: Policy, shadow: Policy) -> Policy:
    """An enforced policy, and what one in shadow looks for besides.

    Of the policy in shadow everything stays out that could alter an image: its failure mode, its bound on questions,
    its hold on previews, and rules over categories that are enforced.
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
    """A category of a policy in shadow, with the steps and the scale that it has there."""
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
        **({"sample": min(shares)} if (shares := [each.sample for each in (a, b) if each.sample is not None]) else {}),
        "retention_days": min(a.retention_days, b.retention_days),
    }


def _vlm(a: Policy, b: Policy) -> dict[str, Any]:
    """The backends that both allow; nothing where neither says any."""
    if a.vlm and b.vlm:
        return {"vlm": {"allow": [address for address in a.vlm.allow if address in b.vlm.allow]}}
    either = a.vlm or b.vlm
    return {"vlm": either.model_dump(mode="json")} if either else {}


def _validated(data: dict[str, Any]) -> Policy:
    return Policy.model_validate({key: value for key, value in data.items() if key not in _OF_A_STORE})


def _queries(a: Queries, b: Queries) -> dict[str, Any]:
    same = (a.steps, a.of) == (b.steps, b.of)
    steps = a.steps if same else sorted({step / each.of if each.of else step for each in (a, b) for step in each.steps})
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
        factor, below = (min(getattr(each.back_off, key) for each in (a, b)) for key in ("factor", "below"))
        merged["back_off"] = {"factor": factor, "below": below}
        if a.back_off.steered and b.back_off.steered:
            merged["back_off"]["steered"] = min(a.back_off.steered, b.back_off.steered)
    if a.skip_probe and b.skip_probe:
        merged["skip_probe"] = {"max_miss": min(a.skip_probe.max_miss, b.skip_probe.max_miss)}
    return {key: value for key, value in merged.items() if value is not None}


def _final(a: Queries, b: Queries) -> bool | dict[str, Any]:
    """The final look that both make together."""
    views = list(dict.fromkeys((*a.views, *b.views)))
    return {"views": views} if views else bool(a.final or b.final)


def _retries(a: Policy, b: Policy) -> dict[str, Any]:
    """The second chance of both: as hard as either, within the time of either; nothing where neither gives one."""
    if a.retries is None or b.retries is None:
        either = a.retries or b.retries
        if either is None:
            return {}
        only = either.model_dump(mode="json", exclude_none=True)
        return {"retries": only | {"otherwise": _otherwise(a, b, Action(either.otherwise))}}
    both = (a.retries, b.retries)
    times = [each.within_ms for each in both if each.within_ms is not None]
    return {
        "retries": {
            "most": min(each.most for each in both),
            "otherwise": _otherwise(a, b, Action.strictest(*(Action(each.otherwise) for each in both))),
            "scale": max(each.scale for each in both),
        }
        | ({"within_ms": min(times)} if times else {})
    }


def _otherwise(a: Policy, b: Policy, otherwise: Action) -> Action:
    """What retries end in, at least a blur where either policy blurs what the other makes again."""
    ends = [{category.id: category.still_present for category in each.categories} for each in (a, b)]
    pairs = [{ends[0][name], ends[1][name]} for name in ends[0].keys() & ends[1].keys()]
    return Action.strictest(otherwise, Action.BLUR) if {Action.BLUR, Action.RETRY} in pairs else otherwise


def _guidance(a: Guidance, b: Guidance) -> dict[str, Any]:
    merged: dict[str, Any] = {"mode": a.mode, "hold": max(a.hold, b.hold)}
    if a.attention is not None:
        both = [each.attention for each in (a, b) if each.attention is not None]
        merged["attention"] = {key: max(getattr(each, key) for each in both) for key in ("phi", "tau", "alpha")}
        merged["escalate"] = min((each for each in (a.escalate, b.escalate) if each is not None), default=None)
    if a.mode in {"separate", "auto"} or merged.get("escalate") is not None:
        merged["scale"] = max((each for each in (a.scale, b.scale) if each is not None), default=None)
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
    ends = [Action(each.still_present) for each in (a, b) if each.still_present]
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
    rises = [each.more_than_input or 0.0 for each in (a, b)]
    data["more_than_input"] = None if not all(rises) or data["sensitive"] or _critical(a, b) else min(rises)
    if ends:
        data["still_present"] = Action.strictest(*ends)
    return type(a).model_validate(data)


def _critical(*categories: Category) -> bool:
    return any(category.severity is Severity.CRITICAL for category in categories)


def _allowed(a: Category, b: Category) -> list[str] | dict[str, list[str]]:
    """The cases that excuse a term in each policy that looks for it."""
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
    """The steps at which either policy looks for a category that has steps of its own in one of them."""
    having = [(each, category) for each in (a, b) for category in each.categories if category.id == name]
    if all(category.queries is None for _, category in having):
        return {}
    used = [category.queries or each.queries for each, category in having]
    if all((each.steps, each.of, _fractions(each)) == (used[0].steps, used[0].of, ()) for each in used):
        return {"queries": _steps(used[0])}
    fractions = {step / each.of if each.of else step for each in used for step in each.steps}
    return {"queries": {"steps": sorted(fractions.union(*map(_fractions, used)))}}


def _steps(queries: Queries | CategoryQueries) -> dict[str, Any]:
    if levels := _fractions(queries):
        return {"steps": sorted({*(step / queries.of if queries.of else step for step in queries.steps), *levels})}
    return {"steps": list(queries.steps)} | ({"of": queries.of} if queries.of else {})


def _fractions(queries: Queries | CategoryQueries) -> tuple[float, ...]:
    """The parts of a run at which its noise, falling evenly, comes to a policy's levels; a category has steps alone."""
    return tuple(measured(1 - sigma) for sigma in getattr(queries, "sigmas", None) or ())


def _own_scale(a: Policy, b: Policy, name: str) -> dict[str, Any]:
    """The scale of a category that has one of its own in either policy: the higher that either uses."""
    having = [each for each in (a, b) if any(category.id == name for category in each.categories)]
    if _guidance(a.guidance, b.guidance).get("scale") is None or all(
        each.category(name).guidance is None for each in having
    ):
        return {}
    return {"guidance": {"scale": max(scale for each in having if (scale := each.scale(name)) is not None)}}


def _dump(category: Category) -> dict[str, Any]:
    return category.model_dump(mode="json", exclude_none=True, exclude={"guidance", "queries"})


def _none_is_most(a: float | None, b: float | None) -> float | None:
    """The larger of two bounds, of which none is the largest: what omits them always asks, or always waits."""
    return None if a is None or b is None else max(a, b)
