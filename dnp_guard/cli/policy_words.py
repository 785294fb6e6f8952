"""What a policy says of its looks and its guidance, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.types import Action

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy
    from dnp_guard.policy.model.sections import Guidance, Queries

_STRENGTHS = {
    "constant": "throughout",
    "severity": "weighed by severity",
    "controller": "at most: it starts by severity and by how sure a look is, rises while what is seen does not fade, "
    "and eases when it is gone",
}
_DOES = {
    Action.MONITOR: "recorded",
    Action.STEER: "steered away from",
    Action.BLUR: "blurred",
    Action.RETRY: "made again",
    Action.BLOCK: "withheld",
}


def pace(queries: Queries) -> list[str]:
    """What makes looks fewer, or later, than the list of steps says."""
    said = []
    if queries.wait is False:
        said.append("denoising goes on while the model answers, and a verdict steers from the step at which it arrives")
    if queries.skip_similar is not None:
        said.append(f"a preview that is like the last one to {queries.skip_similar:g} is not asked about")
    if queries.skip_probe is not None:
        said.append(
            f"a look that a latent probe takes for clean is not asked about; of those that would find something it may "
            f"miss {queries.skip_probe.max_miss:g}"
        )
    if queries.back_off is not None:
        factor, below = queries.back_off.factor, queries.back_off.below
        said.append(
            f"after a look where nothing comes to {below:g} of its threshold, the next is due {factor:g} times as late"
        )
        if queries.back_off.steered is not None:
            said.append(f"while an image is steered, the next is due {queries.back_off.steered:g} times as late")
    if queries.budget_ms is not None:
        said.append(f"no more looks once {queries.budget_ms} ms were waited for answers")
    return said


def inputs(policy: Policy) -> str:
    """What is done about the pictures that a request brings."""
    if not policy.asks_inputs:
        return "not asked about"
    blocks = policy.inputs is not None and policy.inputs.action is Action.BLOCK
    what = "is blurred or blocked" if blocks else "is sensitive"
    refused = f"; a request is refused where one shows what {what} as a finished image"
    sensitive = any(category.sensitive for category in policy.categories)
    shadow = policy.mode == "shadow"
    return "asked about before the first step" + (refused if (blocks or sensitive) and not shadow else "")


def guidance(of: Guidance) -> list[str]:
    """How negatives push: how hard first, and then where, how often and with what."""
    if of.strength is None:
        return [f"at the host's own scale; held for {of.hold} looks"]
    said = [f"{_pushes(of)} {_STRENGTHS[of.strength]}; held for {of.hold} looks"]
    if of.mask is not None:
        said.append(f"only in the {of.mask:.0%} of the picture where the negative differs most")
    if of.reuse is not None and of.reuse > 1:
        said.append(f"evaluated at every {of.reuse}{_ordinal(of.reuse)} step, and used again in between")
    if of.batched:
        said.append("evaluated in the host's own batch, so that its other images are no longer the same to the bit")
    return said


def end(policy: Policy) -> list[str]:
    """What happens to an image whose final look fails, and what stands for one that is withheld."""
    said = []
    if (retries := policy.retries) is not None:
        times = "once" if retries.most == 1 else f"up to {retries.most} times"
        within = f", while the request takes less than {retries.within_ms} ms" if retries.within_ms else ""
        otherwise = _DOES[Action(retries.otherwise)]
        said.append(
            f"an image is made again {times} at {retries.scale:g} times the strength{within}; otherwise {otherwise}"
        )
    if policy.withheld is not None:
        under = "the image blurred beyond recognition" if policy.withheld.style == "blur" else "nothing"
        words = policy.withheld.words("") or "the guard's own words"
        said.append(f"in place of a withheld image: {words!r} over {under}")
    return said


def _pushes(of: Guidance) -> str:
    """What a negative pushes with at full strength."""
    separate = f"scale {of.scale:g}" if of.scale is not None else ""
    if of.attention is None:
        return separate
    attention = f"in attention by φ {of.attention.phi:g}, τ {of.attention.tau:g}, α {of.attention.alpha:g}"
    if of.escalate is not None:
        queries = "1 more query" if of.escalate == 1 else f"{of.escalate} more queries"
        attention += (
            f", plus {separate} after {queries} still saw the category or when several categories are in force,"
        )
    return f"{attention.removesuffix(',')}, or {separate} where that cannot be," if of.mode == "auto" else attention


def does(policy: Policy, category: Category) -> str:
    """What becomes of an image that shows a category; in shadow, what would."""
    would = "would be " if policy.shadow(category.id) else ""
    action = Action(category.action)
    meanwhile = "steered away from meanwhile, and " if action.rank > Action.STEER.rank and category.negative else ""
    said = f"{would}{meanwhile}{_DOES[action]}"
    if category.still_present:
        end = Action(category.still_present)
        if action in {Action.BLUR, Action.BLOCK}:
            end = Action.strictest(end, action)
        said += f"; {would}{_DOES[end]} if the finished image shows it"
    return f"{said}; in shadow, so no image is changed" if would else said


def _ordinal(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")  # noqa: PLR2004 (11th, 12th)
