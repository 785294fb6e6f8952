"""Turn the probabilities in an answer into one decision per image. Pure; no torch.

Precedence is block > retry > blur > steer > monitor. During denoising, a decision lists the findings and the categories
to steer away from; the last query alone settles whether an image is blurred or blocked (:func:`settle`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from dnp_guard.policy.model.thresholds import at
from dnp_guard.steering import strength
from dnp_guard.steering.negatives import negative_for
from dnp_guard.types import Action, Decision, Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dnp_guard.policy import Category, Policy
    from dnp_guard.steering.strength import Push
    from dnp_guard.types import Question


@dataclass(frozen=True, slots=True)
class HeldCategory:
    """A category from which an image is still steered away, for some queries after it was last found.

    Attributes:
        terms: the terms of the category that were last found.
        unseen: number of answered queries since then that did not find the category.
        real: whether the image really is steered; False if the category is in shadow (recorded only).
        push: strength of the steering, under ``strength: controller``; otherwise None.
        stays: whether the category is held until the last step, as in a retry.
        still: number of answered queries that found the category although it was held already.
    """

    terms: tuple[str, ...]
    unseen: int = 0
    real: bool = True
    push: Push | None = None
    stays: bool = False
    still: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """The categories found in one image by its answered queries so far."""

    held: Mapping[str, HeldCategory] = field(default_factory=lambda: MappingProxyType({}))
    """Categories from which the image is still steered away, by id."""
    found: frozenset[str] = frozenset()
    """Ids of all categories ever found, except those in shadow."""


def find(
    policy: Policy,
    questions: Sequence[Question],
    row: Sequence[float],
    *,
    final: bool = False,
    progress: float | None = None,
) -> tuple[tuple[Finding, ...], Mapping[str, float]]:
    """Compare one image's answers with the thresholds.

    Args:
        policy: the policy in force.
        questions: the questions, possibly several per category.
        row: the probability of yes for each question.
        final: compare with ``final_threshold`` instead of ``threshold``.
        progress: fraction of the run that is done, for thresholds that change during the run. If None, the lowest
            threshold applies.

    Returns:
        The findings at or above their threshold, in policy order, and P(category) by id, the maximum over its terms.
    """
    findings: list[Finding] = []
    highest: dict[str, float] = {}
    for question, probability in zip(questions, row, strict=True):
        category = policy.category(question.category)
        threshold = category.final_threshold if final else at(category.threshold, progress)
        highest[category.id] = max(probability, highest.get(category.id, 0.0))
        if probability >= threshold:
            findings.append(Finding(category.id, question.term, probability, threshold))
    return tuple(findings), highest  # not a read-only view: reports must be picklable


def stricter(row: Sequence[float], negated: Sequence[float]) -> tuple[float, ...]:
    """Combine ``paired`` answers: per question the higher of P(yes) and of P(no) to the negated question."""
    return tuple(max(yes, 1 - no) for yes, no in zip(row, negated, strict=True))


def waive(
    policy: Policy, findings: Iterable[Finding], asked: Sequence[Question], rows: Sequence[Sequence[float]]
) -> tuple[Finding, ...]:
    """Return the findings that are excused by an ``allowed`` case of the policy for their term.

    Args:
        policy: the policy in force.
        findings: the findings.
        asked: questions about allowed cases, from :func:`~dnp_guard.policy.model.questions.allowed_questions`.
        rows: the probability of yes for each question, one row per picture of the image; every picture must be excused.
    """
    return tuple(finding for finding in findings if _excused(policy.category(finding.category), finding, asked, rows))


def _excused(category: Category, finding: Finding, asked: Sequence[Question], rows: Sequence[Sequence[float]]) -> bool:
    cases = category.excuses(finding.term)
    places = [
        place
        for place, question in enumerate(asked)
        if question.category == finding.category and question.term in cases
    ]
    return bool(places) and all(max(row[place] for place in places) >= category.allowed_threshold for row in rows)


def judge(
    policy: Policy,
    history: History,
    findings: Sequence[Finding],
    probabilities: Mapping[str, float],
    waived: Sequence[Finding] = (),
    *,
    progress: float | None = None,
) -> tuple[Decision, History]:
    """Decide about one image after an answered query during denoising.

    Args:
        policy: the policy in force.
        history: the history that this function returned after the image's last query; ``History()`` at first.
        findings: the findings of the query, from :func:`find`.
        probabilities: P(category) of the categories that the query asked about, from :func:`find`.
        waived: the excused findings, from :func:`waive`.
        progress: fraction of the run that is done; None if unknown.

    Returns:
        The decision, and the history for the next query. A category in shadow affects only ``would_…`` fields.
    """
    standing = tuple(finding for finding in findings if finding not in waived)
    seen = _terms(standing)
    held = {
        category: _unseen(before, progress) if category in probabilities else before
        for category, before in history.held.items()
        if category not in seen
        and (before.stays or category not in probabilities or before.unseen < policy.guidance.hold)
    }
    actions, enforced = _actions(policy, seen), _actions(policy, _out_of_shadow(policy, seen))
    held |= {
        category: HeldCategory(
            _joined(policy, history, category, terms),
            stays=category in history.held and history.held[category].stays,
            real=enforced.get(category, Action.MONITOR) is not Action.MONITOR,
            push=_push(policy, history, category, standing, progress),
            still=history.held[category].still + 1 if category in history.held else 0,
        )
        for category, terms in seen.items()
        if actions[category] is not Action.MONITOR
    }
    active = {category: state.terms for category, state in held.items()}
    real = {category: state.terms for category, state in held.items() if state.real}
    pushes = {category: state.push for category, state in held.items() if state.push is not None}
    decision = Decision(
        action=_strictest([*enforced.values(), *(Action.STEER for _ in real)]),
        negative=negative_for(policy, real, pushes, escalated=_escalated(policy, held, real)),
        findings=standing,
        waived=tuple(waived),
        probabilities=probabilities,
        why=_why(policy, enforced, real),
    )
    if active != real or enforced != actions:
        decision = replace(
            decision,
            would_action=_strictest([*actions.values(), *(Action.STEER for _ in active)]),
            would_negative=negative_for(policy, active, pushes, escalated=_escalated(policy, held, active)),
        )
    return decision, History(MappingProxyType(held), history.found | enforced.keys())


def judge_final(
    policy: Policy, findings: Sequence[Finding], probabilities: Mapping[str, float], waived: Sequence[Finding] = ()
) -> Decision:
    """Decide about one finished image: found categories call for ``still_present``, or for a stricter blur or block."""
    standing = tuple(finding for finding in findings if finding not in waived)
    actions = {
        category: _at_the_end(policy.category(category), action)
        for category, action in _actions(policy, _terms(standing)).items()
    }
    enforced = {
        category: _at_the_end(policy.category(category), action)
        for category, action in _actions(policy, _out_of_shadow(policy, _terms(standing))).items()
    }
    action = _strictest(enforced.values())
    decision = Decision(
        action=action,
        negative=None,
        findings=standing,
        waived=tuple(waived),
        probabilities=probabilities,
        why=_why(policy, enforced, {}),
        otherwise=_otherwise(policy, standing) if action is Action.RETRY else None,
    )
    return decision if enforced == actions else replace(decision, would_action=_strictest(actions.values()))


def with_words(policy: Policy, decision: Decision, offered: Sequence[str]) -> tuple[Decision, tuple[str, ...]]:
    """Add words to the negative prompt of a decision, if they are in the policy's vocabulary.

    Returns:
        The decision, and the words that were refused.
    """
    if decision.negative is None or not offered:
        return decision, tuple(offered)
    vocabulary = policy.vocabulary()
    accepted = [word for word in offered if word in vocabulary]
    negative = decision.negative
    words = tuple(dict.fromkeys([*negative.words, *accepted]))
    more = words[len(negative.words) :]
    groups = (*negative.groups, more) if negative.groups and more else negative.groups
    refused = tuple(word for word in offered if word not in vocabulary)
    return replace(decision, negative=replace(negative, words=words, groups=groups)), refused


def with_actions(decision: Decision, called_for: Sequence[Action]) -> Decision:
    """Replace a decision's action by the strictest that plugins call for, if that is stricter."""
    strictest = _strictest([*called_for, *([decision.action] if decision.action is not None else [])])
    if decision.action is Action.RETRY and strictest is Action.RETRY:
        return replace(decision, otherwise=_strictest([*called_for, decision.otherwise or Action.BLOCK]))
    if strictest is decision.action:
        return decision
    return replace(decision, otherwise=None, action=strictest, why=f"{decision.why}; a plugin calls for {strictest}")


def not_again(decision: Decision) -> Decision:
    """Replace the action ``retry`` by the one that applies if the image is not drawn again."""
    if decision.action is not Action.RETRY:
        return decision
    return replace(decision, action=decision.otherwise or Action.BLOCK, otherwise=None)


def settle(last: Decision | None, history: History, *, final: bool, steered: bool) -> Outcome:
    """Return the outcome of an image, without regard to failures.

    Args:
        last: the decision about the finished image, or with ``queries.final: false`` that of the last answered query.
        history: history of the image's queries during denoising.
        final: whether ``last`` is about the finished image.
        steered: whether a negative prompt was injected.
    """
    action = not_again(last).action if last is not None else None
    if action is Action.BLOCK:
        return Outcome.BLOCKED
    if action is Action.BLUR:
        return Outcome.BLURRED
    if steered:
        return Outcome.STEERED
    if history.found or (final and action is not None):
        return Outcome.MONITORED
    return Outcome.CLEAN


def _terms(findings: Iterable[Finding]) -> dict[str, tuple[str, ...]]:
    terms: dict[str, tuple[str, ...]] = {}
    for finding in findings:
        terms[finding.category] = (*terms.get(finding.category, ()), finding.term)
    return terms


def _joined(policy: Policy, history: History, category: str, terms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the found terms of a category, on a retry also those found before, in policy order."""
    before = history.held.get(category)
    if before is None or not before.stays:
        return terms
    return tuple(term for term in policy.category(category).terms if term in terms or term in before.terms)


def _push(
    policy: Policy, history: History, category: str, standing: Iterable[Finding], progress: float | None
) -> Push | None:
    if policy.guidance.strength != "controller":
        return None
    likeliest = max(
        (finding for finding in standing if finding.category == category), key=lambda finding: finding.probability
    )
    before = history.held[category].push if category in history.held else None
    weight = policy.category(category).severity.weight
    return strength.seen(before, likeliest.probability, likeliest.threshold, weight, progress)


def _escalated(policy: Policy, held: Mapping[str, HeldCategory], active: Iterable[str]) -> bool:
    """Return whether a separate guidance term is needed: a category persists, several are held, or this is a retry."""
    most = policy.guidance.escalate
    categories = [held[category] for category in active]
    persists = most is not None and (len(categories) > 1 or any(category.still >= most for category in categories))
    return persists or any(category.stays for category in categories)


def _unseen(before: HeldCategory, progress: float | None) -> HeldCategory:
    push = strength.gone(before.push, progress) if before.push is not None else None
    return replace(before, unseen=before.unseen + 1, push=push)


def _out_of_shadow(policy: Policy, seen: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {category: terms for category, terms in seen.items() if not policy.shadow(category)}


def _actions(policy: Policy, seen: Mapping[str, tuple[str, ...]]) -> dict[str, Action]:
    """Return the action for each found category; a rule makes it stricter if all categories of the rule are found."""
    actions = {category: Action(policy.category(category).action) for category in seen}
    for rule in policy.rules:
        if seen.keys() >= set(rule.all):
            for category in rule.all:
                actions[category] = Action.strictest(actions[category], Action(rule.action))
    return actions


def _at_the_end(category: Category, action: Action) -> Action:
    still_present = Action(category.still_present or Action.BLOCK)
    return Action.strictest(still_present, action) if action in {Action.BLUR, Action.BLOCK} else still_present


def _otherwise(policy: Policy, standing: Sequence[Finding]) -> Action:
    """Return the action if a retry is not made: at least as strict as every found category calls for."""
    otherwise = Action(policy.retries.otherwise) if policy.retries is not None else Action.BLOCK
    called_for = _actions(policy, _out_of_shadow(policy, _terms(standing)))
    ends = [Action(policy.category(category).still_present or Action.BLOCK) for category in called_for]
    also = [end for end in ends if end is not Action.RETRY]
    own = [action for action in called_for.values() if action is Action.BLUR]
    return Action.strictest(otherwise, *also, *own)


def _strictest(actions: Iterable[Action]) -> Action | None:
    known = tuple(actions)
    return Action.strictest(*known) if known else None


def _why(policy: Policy, actions: Mapping[str, Action], active: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{policy.category(category).title} calls for {action}" for category, action in actions.items()]
    parts += [f"{policy.category(category).title} is still held" for category in active if category not in actions]
    return "; ".join(parts) or "nothing of the policy was seen"
