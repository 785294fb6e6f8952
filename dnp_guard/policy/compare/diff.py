"""Describe the differences between two policies in sentences, and say which are stricter or milder. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dnp_guard.policy.compare.change import Change, Direction, changed, turn
from dnp_guard.policy.compare.ending import at_the_end
from dnp_guard.policy.compare.queries import inputs, over_input, queries, steps
from dnp_guard.policy.model.category import Severity
from dnp_guard.policy.model.questions import questions
from dnp_guard.policy.model.thresholds import falls, in_words
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.model.sections import Attention, Guidance


ON_FAILURE = ("open", "last", "closed")
"""The values of ``on_failure``, from the mildest to the strictest."""

_DONE = {
    Action.MONITOR: "recorded",
    Action.STEER: "steered",
    Action.BLUR: "blurred",
    Action.RETRY: "generated again",
    Action.BLOCK: "blocked",
}
_FOLLOWS = {
    "constant": "the scale is the same throughout",
    "severity": "the scale follows severity",
    "controller": "the scale follows the answers, and whether the finding fades",
}
_SEVERITIES = list(Severity)


def changes(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Return every difference between two policies: first those of the whole policy, then by category."""
    return (
        *_whole(before, after),
        *queries(before, after),
        *at_the_end(before, after),
        *inputs(before, after),
        *_guidance(before, after),
        *_rules(before, after),
        *_rollout(before, after),
        *_categories(before, after),
    )


def milder(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Return the changes that let more images through, and those whose direction is unclear."""
    return tuple(
        change for change in changes(before, after) if change.direction in {Direction.MILDER, Direction.UNCLEAR}
    )


def _whole(before: Policy, after: Policy) -> Iterator[Change]:
    if before.mode != after.mode:
        now = "images are steered, blurred and blocked" if after.mode == "enforce" else "nothing is altered or refused"
        yield changed("", "mode", before.mode, after.mode, now, turn(after.mode == "shadow", before.mode == "shadow"))
    if before.on_failure != after.on_failure:
        then = {
            "closed": "an image that the guard could not watch is withheld",
            "open": "an image that the guard could not watch passes",
            "last": "the last decision applies to an image that the guard could not watch to the end",
        }[after.on_failure]
        direction = turn(ON_FAILURE.index(before.on_failure), ON_FAILURE.index(after.on_failure))
        yield changed("", "on_failure", before.on_failure, after.on_failure, then, direction)
    if before.audit.required != after.audit.required:
        then = "an image without a record is withheld" if after.audit.required else "an image passes without a record"
        yield Change("", "audit.required", then, turn(before.audit.required, after.audit.required))
    for key in ("prompt", "previews", "sample", "retention_days"):
        was, now = getattr(before.audit, key), getattr(after.audit, key)
        if was != now:
            yield changed("", f"audit.{key}", was, now, "", Direction.NEITHER)
    for key in ("method", "user_previews"):
        was, now = getattr(before.preview, key), getattr(after.preview, key)
        if was != now:
            yield changed("", f"preview.{key}", was, now, "", Direction.UNCLEAR)
    if before.vlm != after.vlm:
        old, new = (set(policy.vlm.allow) if policy.vlm else None for policy in (before, after))
        narrower = new is not None and (old is None or new < old)
        direction = Direction.STRICTER if narrower else Direction.MILDER
        yield Change("", "vlm.allow", f"may use {', '.join(sorted(new)) if new else 'any backend'}", direction)


def _rollout(before: Policy, after: Policy) -> Iterator[Change]:
    if before.select != after.select:
        yield Change("", "select", "it is for other callers than before", Direction.UNCLEAR)
    for exception in after.exceptions or ():
        if exception not in (before.exceptions or ()):
            who = exception.tenant or "everyone"
            sentence = f"an exception for {who} until {exception.until:%Y-%m-%d %H:%M} UTC: {exception.reason}"
            yield Change(exception.category, "exceptions", sentence, Direction.MILDER)
    for exception in before.exceptions or ():
        if exception not in (after.exceptions or ()):
            yield Change(exception.category, "exceptions", "an exception is withdrawn", Direction.STRICTER)
    was, now = (frozenset(policy.floor.locked) if policy.floor else frozenset() for policy in (before, after))
    if removed := sorted(was - now):
        yield Change("", "floor", f"no longer locked: {', '.join(removed)}", Direction.MILDER)
    if added := sorted(now - was):
        yield Change("", "floor", f"now locked: {', '.join(added)}", Direction.STRICTER)


def _guidance(before: Policy, after: Policy) -> Iterator[Change]:
    was, now = before.guidance, after.guidance
    if was.mode != now.mode:
        yield changed("", "guidance.mode", was.mode, now.mode, "images are steered in another way", Direction.UNCLEAR)
    if was.scale is not None and now.scale is not None and was.scale != now.scale:
        then = "images are steered harder" if now.scale > was.scale else "images are steered less"
        yield changed("", "guidance.scale", was.scale, now.scale, then, turn(was.scale, now.scale))
    if was.strength is not None and now.strength is not None and was.strength != now.strength:
        # No strength exceeds the scale, and `constant` always uses all of it.
        if "constant" in {was.strength, now.strength}:
            direction = turn(was.strength == "constant", now.strength == "constant")
        else:
            direction = Direction.UNCLEAR
        then = _FOLLOWS[now.strength]
        yield changed("", "guidance.strength", was.strength, now.strength, then, direction)
    yield from _attention(was.attention, now.attention)
    yield from _escalate(was, now)
    shares = [1.0 if mask is None else mask for mask in (was.mask, now.mask)]
    if shares[0] != shares[1]:
        then = f"{'more' if shares[1] > shares[0] else 'less'} of the picture is steered"
        yield changed("", "guidance.mask", was.mask, now.mask, then, turn(*shares))
    every = [interval or 1 for interval in (was.reuse, now.reuse)]
    if every[0] != every[1]:
        then = f"the negative is evaluated {'less' if every[1] > every[0] else 'more'} often"
        yield changed("", "guidance.reuse", was.reuse, now.reuse, then, turn(*(-interval for interval in every)))
    if bool(was.batched) != bool(now.batched):
        then = f"the negatives are evaluated {'in the batch of the host' if now.batched else 'by themselves'}"
        yield Change("", "guidance.batched", then, Direction.NEITHER)
    if was.hold != now.hold:
        then = f"a negative stays {'longer' if now.hold > was.hold else 'shorter'} after its category is gone"
        yield changed("", "guidance.hold", was.hold, now.hold, then, turn(was.hold, now.hold))


def _attention(was: Attention | None, now: Attention | None) -> Iterator[Change]:
    if was is None or now is None:  # the change of mode reports it
        return
    for key in ("phi", "tau", "alpha", "mask"):
        old, new = getattr(was, key), getattr(now, key)
        if old != new:
            then = f"images are steered {'harder' if new > old else 'less'} in attention"
            yield changed("", f"guidance.attention.{key}", old, new, then, turn(old, new))


def _escalate(was: Guidance, now: Guidance) -> Iterator[Change]:
    if was.escalate == now.escalate or "replace" in {was.mode, now.mode}:
        return
    after = [math.inf if guidance.escalate is None else guidance.escalate for guidance in (was, now)]
    then = f"attention gets a separate term {'sooner' if after[1] < after[0] else 'later, or never'}"
    yield changed("", "guidance.escalate", was.escalate, now.escalate, then, turn(*(-count for count in after)))


def _rules(before: Policy, after: Policy) -> Iterator[Change]:
    for rule in before.rules:
        if rule not in after.rules:
            yield Change("", "rules", f"{' with '.join(rule.all)} is no longer {_done(rule.action)}", Direction.MILDER)
    for rule in after.rules:
        if rule not in before.rules:
            yield Change("", "rules", f"{' with '.join(rule.all)} is now {_done(rule.action)}", Direction.STRICTER)


def _categories(before: Policy, after: Policy) -> Iterator[Change]:
    old = {category.id: category for category in before.categories}
    new = {category.id: category for category in after.categories}
    for name in old:
        if name not in new:
            yield Change(name, "id", "no longer looked for", Direction.MILDER)
    for name, category in new.items():
        if name not in old:
            sentence = f"newly looked for, {_done(category.action)} from {in_words(category.threshold)} on"
            yield Change(name, "id", sentence, Direction.STRICTER)
        elif old[name] != category or before.question != after.question:
            yield from _category(before, after, old[name], category)


def _category(before: Policy, after: Policy, was: Category, now: Category) -> Iterator[Change]:
    name = now.id
    if was.threshold != now.threshold:
        yield _threshold(was, now)
    if was.calibration != now.calibration:
        then = f"measured on {now.calibration}" if now.calibration else "queries any model, measured or not"
        yield Change(name, "calibration", then, Direction.NEITHER)
    if was.final_threshold != now.final_threshold and after.queries.final:
        more = "more" if now.final_threshold < was.final_threshold else "fewer"
        end = _done(now.still_present or Action.BLOCK)
        then = f"{more} finished images {end}"
        yield _moved(name, "final_threshold", was.final_threshold, now.final_threshold, then, lower_is_stricter=True)
    if was.allowed_threshold != now.allowed_threshold and (was.allowed or now.allowed):
        then = f"{'fewer' if now.allowed_threshold > was.allowed_threshold else 'more'} findings excused"
        yield _moved(name, "allowed_threshold", was.allowed_threshold, now.allowed_threshold, then)
    for key in ("action", "still_present"):
        old, new = getattr(was, key), getattr(now, key)
        if old != new:
            ranks = [Action(action).rank if action else -1 for action in (old, new)]
            then = f"the finished image is {_done(new)}" if key == "still_present" and new else ""
            yield changed(name, key, old, new, then, turn(*ranks))
    if was.severity != now.severity:
        ranks = [_SEVERITIES.index(Severity(severity)) for severity in (was.severity, now.severity)]
        harder = "harder" if ranks[1] > ranks[0] else "less"
        then = {"severity": f"steered {harder}", "controller": f"steered {harder} at first"}.get(
            after.guidance.strength or "", ""
        )
        yield changed(name, "severity", was.severity, now.severity, then, turn(*ranks))
    yield from _own(before, after, was, now)
    yield from over_input(was, now)
    if was.mode != now.mode:
        then = "recorded only" if now.mode == "shadow" else "acted on"
        yield changed(name, "mode", was.mode, now.mode, then, turn(was.mode == "enforce", now.mode == "enforce"))
    if was.sensitive != now.sensitive:
        then = "now sensitive: always blocked, never stored" if now.sensitive else "no longer sensitive"
        yield Change(name, "sensitive", then, turn(was.sensitive, now.sensitive))
    yield from _lists(name, "look_for", was.terms, now.terms, "looks for", gain=Direction.STRICTER)
    yield from _lists(name, "allowed", *_cases(was, now), "excuses", gain=Direction.MILDER)
    yield from _lists(name, "negative", was.negative, now.negative, "injects", gain=Direction.STRICTER)
    yield from _wording(before, after, now)


def excused(category: Category) -> tuple[tuple[str, str], ...]:
    """Return a category's pairs of a term and a case that excuses it, such as ("a firearm", "a museum piece")."""
    return tuple((term, case) for term in category.terms for case in category.excuses(term))


def _cases(was: Category, now: Category) -> tuple[Sequence[str], Sequence[str]]:
    """Return a category's excuses in the old and the new policy, as ``TERM as CASE`` if either lists them by term."""
    if isinstance(was.allowed, tuple) and isinstance(now.allowed, tuple):
        return was.allowed, now.allowed
    old, new = ([f"{term} as {case}" for term, case in excused(category)] for category in (was, now))
    return old, new


def _threshold(was: Category, now: Category) -> Change:
    lower, higher = falls(was.threshold, now.threshold), falls(now.threshold, was.threshold)
    sentence = f"threshold {in_words(was.threshold)} → {in_words(now.threshold)}"
    if lower == higher:  # lower in one range and higher in another, or equal in another notation
        return Change(now.id, "threshold", sentence, Direction.UNCLEAR if lower else Direction.NEITHER)
    then = f"{'more' if lower else 'fewer'} images {_done(now.action)}"
    return Change(now.id, "threshold", f"{sentence}: {then}", Direction.STRICTER if lower else Direction.MILDER)


def _own(before: Policy, after: Policy, was: Category, now: Category) -> Iterator[Change]:
    """Yield the changes of the query steps and the guidance scale that a category has in place of the policy's."""
    name = now.id
    if was.queries != now.queries:
        yield from steps(name, was.queries or before.queries, now.queries or after.queries)
    old, new = (before.scale(name) or 0.0, after.scale(name) or 0.0)
    if (was.guidance or now.guidance) and old != new:
        yield changed(name, "guidance.scale", old, new, f"steered {'harder' if new > old else 'less'}", turn(old, new))


def _lists(
    name: str, key: str, was: Sequence[str], now: Sequence[str], verb: str, *, gain: Direction
) -> Iterator[Change]:
    loss = Direction.MILDER if gain is Direction.STRICTER else Direction.STRICTER
    if added := [text for text in now if text not in was]:
        yield Change(name, key, f"also {verb} {', '.join(added)}", gain)
    if removed := [text for text in was if text not in now]:
        yield Change(name, key, f"no longer {verb} {', '.join(removed)}", loss)


def _wording(before: Policy, after: Policy, category: Category) -> Iterator[Change]:
    old, new = (
        {question.term: question.text for question in questions(policy) if question.category == category.id}
        for policy in (before, after)
    )
    if any(text != new.get(term, text) for term, text in old.items()):
        yield Change(category.id, "question", "the questions are worded differently", Direction.UNCLEAR)
    elif category.allowed and before.question.allowed_template != after.question.allowed_template:
        yield Change(
            category.id, "question", "the questions about allowed cases are worded differently", Direction.UNCLEAR
        )


def _moved(name: str, key: str, old: float, new: float, then: str, *, lower_is_stricter: bool = False) -> Change:
    return changed(name, key, old, new, then, turn(new, old) if lower_is_stricter else turn(old, new))


def _done(action: Any) -> str:
    return _DONE[Action(action)]
