"""Check the rules that concern several fields of a policy: pure functions that yield the broken rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dnp_guard.errors import did_you_mean
from dnp_guard.policy.model.category import Severity
from dnp_guard.policy.model.inputs import falling
from dnp_guard.policy.model.placeholders import ALLOWED_TEMPLATE, NEGATIVE, TEMPLATE, placeholders
from dnp_guard.policy.model.violation import Loc, Violation
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dnp_guard.policy.model.category import Category, Rule
    from dnp_guard.policy.model.scope import Floor, PolicyException
    from dnp_guard.policy.model.sections import CategoryQueries, Guidance, Queries, QuestionTemplate


def unknown_categories(
    categories: Sequence[Category], floor: Floor | None, exceptions: Sequence[PolicyException]
) -> Iterator[Violation]:
    """Check that locks and exceptions name known categories, and that locked and sensitive ones have no exception."""
    by_id = {category.id: category for category in categories}
    ids: tuple[Loc, ...] = tuple(("categories", index, "id") for index in range(len(categories)))
    locked = floor.locked if floor else ()
    named: list[tuple[Loc, str]] = [(("floor", "locked", index), name) for index, name in enumerate(locked)]
    named += [(("exceptions", index, "category"), exception.category) for index, exception in enumerate(exceptions)]
    for loc, name in named:
        if name not in by_id:
            hint = did_you_mean(name, list(by_id), "`{}`")
            yield Violation("unknown-category", loc, f"no category `{name}`", hint, ids)
        elif loc[0] == "exceptions" and (by_id[name].sensitive or name in locked):
            kind = "sensitive" if by_id[name].sensitive else "locked"
            message = f"the {kind} category `{name}` permits no exception"
            yield Violation("exception", loc, message, "Delete the exception.", ids)


_LESS = ("skip_probe", "budget_ms", "back_off")
"""Keys of ``queries`` that may skip the query of a due step, so that an early query could be the last."""


def steps(queries: Queries, categories: Sequence[Category]) -> Iterator[Violation]:
    """Check that query steps rise within the run, and that finished images are queried if queries may be skipped."""
    if not queries.steps and not queries.sigmas and not queries.final:
        at: Loc = ("queries", "steps")
        yield Violation(
            "never-looks", at, "no steps and `final: false`: the policy never queries an image", "Add steps."
        )
    for key in _LESS:
        if getattr(queries, key) is not None and not queries.final:
            message = f"`{key}` needs the final look, which is never skipped, but `queries` has `final: false`"
            final: tuple[Loc, ...] = (("queries", "final"),)
            yield Violation("skip-without-final", ("queries", key), message, "Leave it out.", final)
    yield from _rising(queries, ("queries",))
    yield from falling(queries.sigmas or ())
    for index, category in enumerate(categories):
        if category.queries is None:
            continue
        loc: Loc = ("categories", index, "queries")
        yield from _rising(category.queries, loc)
        if not queries.final:
            message = "a category's own steps need the final look, but `queries` has `final: false`"
            yield Violation("own-steps-without-final", loc, message, "Leave them out.", (("queries", "final"),))


def _rising(queries: Queries | CategoryQueries, where: Loc) -> Iterator[Violation]:
    steps, of = queries.steps, queries.of
    at: Loc = (*where, "steps")
    also: tuple[Loc, ...] = ((*where, "of"),)
    for index, step in enumerate(steps):
        loc: Loc = (*at, index)
        before = steps[index - 1] if index else None
        if of is None and step > 1:
            hint = f"Use 0 to 1, or add `of: {max(50, *steps)}`." if isinstance(step, int) else "Use 0 to 1."
            yield Violation("step-out-of-range", loc, f"step {step} is not a fraction", hint, also)
        elif of is not None and not isinstance(step, int):
            hint = "With `of`, steps are whole numbers."
            yield Violation("step-out-of-range", loc, f"step {step} is not whole", hint, also)
        elif of is not None and step >= of:
            yield Violation(
                "step-out-of-range", loc, f"step {step} is not below `of: {of}`", "The first step is 0.", also
            )
        elif before is not None and step <= before:
            message = f"step {step} does not come after {before}"
            yield Violation("step-order", loc, message, "List the steps once, from low to high.")
        else:
            continue
        return  # the others have the same fault, and one message is enough to mend them all


def templates(question: QuestionTemplate) -> Iterator[Violation]:
    """Check that the question templates have the placeholders they need, and no others."""
    at: Loc = ("question",)
    yield from _unknown(question.template, (*at, "template"), TEMPLATE)
    yield from _unknown(question.allowed_template, (*at, "allowed_template"), ALLOWED_TEMPLATE)
    for key, text, names in (
        ("template", question.template, TEMPLATE),
        ("allowed_template", question.allowed_template, ALLOWED_TEMPLATE),
    ):
        required = names[-1]
        if not _mistaken(text, names) and required not in placeholders(text) and not _unknown_in(text, names):
            of = "term" if required == "term" else "excuse"
            message = f"`{key}` asks the same question for every {of}, because it has no `${{{required}}}`"
            yield Violation("missing-placeholder", (*at, key), message, f"Put `${{{required}}}` into it.")


_ALL = (*TEMPLATE, *ALLOWED_TEMPLATE, *NEGATIVE)
_NAMES = "|".join(_ALL)
_MISTAKEN = re.compile(
    rf"\$?\{{+\s*({_NAMES})\s*\}}+|<({_NAMES})>|%({_NAMES})%|\$\(?({_NAMES})\)?(?![A-Za-z_])",
)
"""A placeholder as other languages write it."""


def _mistaken(text: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Find a placeholder that is not written as `${name}`, such as `{name}`, and return it with its name."""
    for match in _MISTAKEN.finditer(text):
        name = next(filter(None, match.groups()))
        if match[0] != f"${{{name}}}" and name in names:
            return match[0], name
    return None


def _unknown_in(text: str, names: Sequence[str]) -> bool:
    return any(name not in names for name in placeholders(text))


def _unknown(text: str, loc: Loc, names: Sequence[str]) -> Iterator[Violation]:
    if mistaken := _mistaken(text, names):
        written, name = mistaken
        yield Violation("unknown-placeholder", loc, f"`{written}` is not a placeholder", f"Write `${{{name}}}`.")
        return
    for name in placeholders(text):
        if name == "$":
            yield Violation(
                "unknown-placeholder", loc, "a `$` that does not begin a placeholder", "Write `$$` for a dollar sign."
            )
        elif name not in names:
            hint = did_you_mean(name, names, "`${{{}}}`") if names else "Placeholders are not replaced here."
            yield Violation("unknown-placeholder", loc, f"unknown placeholder `${{{name}}}`", hint)


def replacing(guidance: Guidance, categories: Sequence[Category]) -> Iterator[Violation]:
    """Check that `mode: replace` has no keys of a separate term, and that only attention modes have attention keys."""
    also: tuple[Loc, ...] = (("guidance", "mode"),)
    for key in ("attention", "escalate"):
        if getattr(guidance, key) is not None and guidance.mode in {"separate", "replace"}:
            message = f"`{key}` has no meaning in `mode: {guidance.mode}`"
            hint = "Leave it out, or use `mode: attention` or `mode: auto`."
            yield Violation("attention-without-mode", ("guidance", key), message, hint, also)
    if guidance.mode != "replace":
        return
    hint = "`mode: replace` works at the host's own scale. Leave it out, or use `mode: separate`."
    for key in ("scale", "strength"):
        if getattr(guidance, key) is not None:
            yield Violation(
                "replace-with-scale", ("guidance", key), f"`{key}` has no meaning in `mode: replace`", hint, also
            )
    hint_branch = "`mode: replace` evaluates no negative of its own. Leave it out, or use `mode: separate`."
    for key in ("mask", "reuse", "batched"):
        if getattr(guidance, key) is not None:
            message = f"`{key}` has no meaning in `mode: replace`"
            yield Violation("replace-without-branch", ("guidance", key), message, hint_branch, also)
    for index, category in enumerate(categories):
        if category.guidance is not None:
            loc = ("categories", index, "guidance", "scale")
            yield Violation("replace-with-scale", loc, "`scale` has no meaning in `mode: replace`", hint, also)


def attending(guidance: Guidance, categories: Sequence[Category]) -> Iterator[Violation]:
    """Check that `mode: attention` has no keys of a separate negative term, unless `escalate` can add that term."""
    if guidance.mode != "attention":
        return
    also: tuple[Loc, ...] = (("guidance", "mode"),)
    auto = "use `mode: auto`, where it applies to models that are steered by `separate`."
    if guidance.batched is not None:
        message, hint = "`batched` has no meaning in `mode: attention`", f"Leave it out, or {auto}"
        yield Violation("attention-with-branch", ("guidance", "batched"), message, hint, also)
    if guidance.escalate is not None:
        return
    keys = [("guidance", key) for key in ("scale", "mask") if getattr(guidance, key) is not None]
    own = [("categories", index, "guidance", "scale") for index, category in enumerate(categories) if category.guidance]
    for loc in (*keys, *own):
        message = f"`{loc[-1]}` has no meaning in `mode: attention` without `escalate`"
        yield Violation("attention-with-branch", loc, message, f"Leave it out, add `escalate`, or {auto}", also)


def ids(categories: Sequence[Category]) -> Iterator[Violation]:
    """Check that category ids are unique."""
    first: dict[str, int] = {}
    for index, category in enumerate(categories):
        if first.setdefault(category.id, index) != index:
            message = f"category `{category.id}` already exists, as number {first[category.id] + 1}"
            yield Violation("duplicate-category", ("categories", index, "id"), message, "Ids are unique.")


def words(category: Category, at: Loc) -> Iterator[Violation]:
    """Check that a category repeats no term or case, and has placeholders only where they are replaced."""
    for index, entry in enumerate(category.negative):
        yield from _unknown(entry, (*at, "negative", index), NEGATIVE)
    lists: list[tuple[Loc, Sequence[str]]] = [((*at, "look_for"), category.look_for)]
    if isinstance(category.allowed, Mapping):
        lists += [((*at, "allowed", term), cases) for term, cases in category.allowed.items()]
    else:
        lists.append(((*at, "allowed"), category.allowed))
    for loc, terms in lists:
        for term in _repeated(terms):
            twice = (*loc, len(terms) - 1 - terms[::-1].index(term))
            yield Violation("duplicate-term", twice, f"`{term}` is listed twice in `{loc[2]}`", "List it once.")
        for index, term in enumerate(terms):
            yield from _literal(term, (*loc, index))
    yield from _excuses(category, lists[1:], at)
    yield from _literal(category.title, (*at, "title"))
    yield from _literal(category.definition, (*at, "definition"))


def _excuses(category: Category, lists: Sequence[tuple[Loc, Sequence[str]]], at: Loc) -> Iterator[Violation]:
    """Check that no term excuses itself, and that a category looks for every term that it excuses."""
    also: tuple[Loc, ...] = ((*at, "look_for"), (*at, "title"))
    for term in category.allowed if isinstance(category.allowed, Mapping) else ():
        if term not in category.terms:
            hint = did_you_mean(term, category.terms)
            message = f"`{term}` has an excuse, but the category does not look for it"
            yield Violation("unknown-term", (*at, "allowed", term), message, hint, also)
    terms = {term.casefold() for term in category.terms}
    for loc, cases in lists:
        for index, case in enumerate(cases):
            if case.casefold() in terms:
                message = f"`{case}` excuses itself: the category both looks for it and allows it"
                yield Violation("excuses-itself", (*loc, index), message, "Delete it here, or in `look_for`.", also)


def _literal(text: str, loc: Loc) -> Iterator[Violation]:
    """Check that a text contains no placeholder, since it is the value of one; a lone dollar sign is permitted."""
    for name in placeholders(text):
        if name != "$":
            yield Violation(
                "unknown-placeholder",
                loc,
                f"placeholder `${{{name}}}` in a text where it is not replaced",
                "Write the words out.",
            )


def _repeated(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def actions(category: Category, at: Loc, *, final: bool) -> Iterator[Violation]:
    """Check that a category's actions and excuses are possible, and strict enough for its severity."""
    severity, still_present = (*at, "severity"), (*at, "still_present")
    if category.action is Action.STEER and not category.negative and not category.sensitive:
        also: tuple[Loc, ...] = ((*at, "negative"), (*at, "sensitive"))
        yield Violation(
            "steer-without-negative",
            (*at, "action"),
            f"category `{category.id}` steers, but has no `negative`",
            "Add the words to inject, or choose `action: monitor`, `blur` or `block`.",
            also,
        )
    if not final and category.still_present is not None:
        yield Violation(
            "still-present-without-final",
            still_present,
            "`still_present` needs the final look, but `queries` has `final: false`",
            "Leave `still_present` out, or query the finished image.",
            (("queries", "final"),),
        )
    if category.severity is Severity.CRITICAL and category.still_present is not Action.BLOCK:
        hint = "Write `still_present: block`." if final else "Query the finished image: `queries: {final: true}`."
        message = "a critical category requires `still_present: block`"
        yield Violation(
            "critical-must-block", still_present if final else severity, message, hint, (severity, still_present)
        )
    if category.allowed and (category.sensitive or category.severity is Severity.CRITICAL):
        kind = "sensitive" if category.sensitive else "critical"
        yield Violation(
            "allowed-not-permitted",
            (*at, "allowed"),
            f"`allowed` is not permitted for a {kind} category, which has no excuses",
            "Leave it out.",
            (severity, (*at, "sensitive")),
        )


def sensitive(
    category: Category, at: Loc, *, mode: str, on_failure: str, prompt: str, final: bool
) -> Iterator[Violation]:
    """Check that a sensitive category always blocks, and is never in shadow, calibrated or recorded in plain text."""
    if category.calibration is not None:
        message = f"sensitive category `{category.id}` cannot be calibrated"
        yield Violation("sensitive", (*at, "calibration"), message, "Leave it out.", ((*at, "sensitive"),))
    wrong: list[tuple[bool, Loc, str]] = [
        (category.action is not Action.BLOCK, (*at, "action"), "action: block"),
        (category.still_present is not Action.BLOCK, (*at, "still_present"), "still_present: block"),
        (on_failure != "closed", ("on_failure",), "on_failure: closed"),
        (mode == "shadow", ("mode",), "mode: enforce"),
        (category.mode == "shadow", (*at, "mode"), "mode: enforce"),
        (prompt == "plain", ("audit", "prompt"), "audit: {prompt: hmac}"),
    ]
    for is_wrong, loc, required in wrong:
        if not is_wrong:
            continue
        if loc[-1] == "still_present" and not final:
            loc, required = ("queries", "final"), "queries: {final: true}"  # noqa: PLW2901 (the key to mend)
        message = f"sensitive category `{category.id}` requires `{required}`"
        yield Violation("sensitive", loc, message, f"Write `{required}`.", ((*at, "sensitive"), (*at, "id")))


def combinations(listed: Sequence[Rule], categories: Sequence[Category], *, known: bool) -> Iterator[Violation]:
    """Check that rules for combined findings name existing categories, without repeats, and have a possible action.

    Args:
        listed: the rules for combined findings.
        categories: the categories of the policy.
        known: whether category ids are unique; if not, missing ids are not reported.
    """
    by_id = {category.id: (index, category) for index, category in enumerate(categories)}
    ids: tuple[Loc, ...] = tuple(("categories", index, "id") for index in range(len(categories)))
    for index, rule in enumerate(listed):
        at: Loc = ("rules", index)
        for position, name in enumerate(rule.all):
            if name not in by_id and known:
                hint = did_you_mean(name, list(by_id), "`{}`")
                yield Violation("unknown-category", (*at, "all", position), f"no category `{name}`", hint, ids)
        for name in _repeated(rule.all):
            yield Violation("duplicate-term", (*at, "all"), f"`{name}` is listed twice in `all`", "List it once.")
        members = [by_id[name] for name in rule.all if name in by_id]
        if rule.action is Action.STEER and members and not any(category.negative for _, category in members):
            yield Violation(
                "steer-without-negative",
                (*at, "action"),
                "the rule steers, but none of its categories has a `negative`",
                "Add the words to inject to one of them, or choose another action.",
                tuple(("categories", number, "negative") for number, _ in members),
            )
