"""Describe a policy's queries and guidance in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.types import Action

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy
    from dnp_guard.policy.model.sections import Guidance, Queries

_STRENGTHS = {
    "constant": "throughout",
    "severity": "weighted by severity",
    "controller": "at most: it starts by severity and by the probability of the answer, rises while the finding does "
    "not fade, and eases when it is gone",
}
_DOES = {
    Action.MONITOR: "recorded",
    Action.STEER: "steered away from",
    Action.BLUR: "blurred",
    Action.RETRY: "generated again",
    Action.BLOCK: "withheld",
}


def pace(queries: Queries) -> list[str]:
    """Describe the keys that skip or delay queries, one sentence per key."""
    sentences = []
    if queries.wait is False:
        sentences.append(
            "denoising continues while the model answers, and a verdict steers from the step at which it arrives"
        )
    if queries.skip_similar is not None:
        sentences.append(f"a preview with a similarity of {queries.skip_similar:g} to the last one is not queried")
    if queries.skip_probe is not None:
        sentences.append(
            f"a query is skipped if a latent probe expects no finding; it may miss {queries.skip_probe.max_miss:g} of "
            f"the queries with a finding"
        )
    if queries.back_off is not None:
        factor, below = queries.back_off.factor, queries.back_off.below
        sentences.append(
            f"after a query where no term reaches {below:g} of its threshold, the next is due {factor:g} times as far "
            "into the run"
        )
        if queries.back_off.steered is not None:
            sentences.append(
                f"while an image is steered, the next is due {queries.back_off.steered:g} times as far into the run"
            )
    if queries.budget_ms is not None:
        sentences.append(f"no more queries during denoising after a total wait of {queries.budget_ms} ms for answers")
    return sentences


def inputs(policy: Policy) -> str:
    """Describe how a policy treats the pictures that a request contains."""
    if not policy.asks_inputs:
        return "not queried"
    blocks = policy.inputs is not None and policy.inputs.action is Action.BLOCK
    refusing = "that would be blurred or blocked as a finished image" if blocks else "with a sensitive category"
    refused = f"; a request with a picture {refusing} is refused"
    sensitive = any(category.sensitive for category in policy.categories)
    shadow = policy.mode == "shadow"
    return "queried before the first step" + (refused if (blocks or sensitive) and not shadow else "")


def guidance(of: Guidance) -> list[str]:
    """Describe how negative prompts steer an image: how strongly, in which part of it, how often, in which batch."""
    if of.strength is None:
        return [f"at the host's own scale; held for {of.hold} queries"]
    sentences = [f"{_pushes(of)} {_STRENGTHS[of.strength]}; held for {of.hold} queries"]
    if of.mask is not None:
        sentences.append(f"only in the {of.mask:.0%} of the picture where the negative differs most")
    if of.reuse is not None and of.reuse > 1:
        sentences.append(f"evaluated at every {of.reuse}{_ordinal(of.reuse)} step, and reused in between")
    if of.batched:
        sentences.append("evaluated in the host's own batch, so that its other images are no longer bit-identical")
    return sentences


def end(policy: Policy) -> list[str]:
    """Describe how an image is generated again, and the picture that replaces a withheld image."""
    sentences = []
    if (retries := policy.retries) is not None:
        times = "once" if retries.most == 1 else f"up to {retries.most} times"
        within = f", while the request takes less than {retries.within_ms} ms" if retries.within_ms else ""
        otherwise = _DOES[Action(retries.otherwise)]
        sentences.append(
            f"an image is generated again {times} at {retries.scale:g} times the strength{within}; "
            f"otherwise it is {otherwise}"
        )
    if policy.withheld is not None:
        under = "the image blurred beyond recognition" if policy.withheld.style == "blur" else "nothing"
        words = policy.withheld.words("") or "the guard's own words"
        sentences.append(f"in place of a withheld image: {words!r} over {under}")
    return sentences


def _pushes(of: Guidance) -> str:
    """Describe the scale at which a negative prompt steers at full strength, and how it steers in attention."""
    separate = f"scale {of.scale:g}" if of.scale is not None else ""
    if of.attention is None:
        return separate
    attention = f"in attention by φ {of.attention.phi:g}, τ {of.attention.tau:g}, α {of.attention.alpha:g}"
    if of.attention.mask < 1:
        attention += f" at {of.attention.mask:.0%} of the positions"
    if of.escalate is not None:
        queries = "1 more query" if of.escalate == 1 else f"{of.escalate} more queries"
        attention += (
            f", plus {separate} after {queries} still found the category or when several categories are in force,"
        )
    return f"{attention.removesuffix(',')}, or {separate} where that is impossible," if of.mode == "auto" else attention


def does(policy: Policy, category: Category) -> str:
    """Describe the response to an image that shows a category; in shadow mode, the response that there would be."""
    would = "would be " if policy.shadow(category.id) else ""
    action = Action(category.action)
    meanwhile = "steered away from meanwhile, and " if action.rank > Action.STEER.rank and category.negative else ""
    text = f"{would}{meanwhile}{_DOES[action]}"
    if category.still_present:
        end = Action(category.still_present)
        if action in {Action.BLUR, Action.BLOCK}:
            end = Action.strictest(end, action)
        text += f"; {would}{_DOES[end]} if the finished image shows it"
    return f"{text}; in shadow, so no image is changed" if would else text


def _ordinal(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")  # noqa: PLR2004 (11th, 12th)
