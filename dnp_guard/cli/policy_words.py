"""What a policy says of its looks and its guidance, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnp_guard.policy.model.sections import Guidance, Queries

_STRENGTHS = {
    "constant": "throughout",
    "severity": "weighed by severity",
    "controller": "at most: it starts by severity and by how sure a look is, rises while what is seen does not fade, "
    "and eases when it is gone",
}


def pace(queries: Queries) -> list[str]:
    """What makes looks fewer, or later, than the list of steps says."""
    said = []
    if queries.wait is False:
        said.append("denoising goes on while the model answers, and a verdict steers from the step at which it arrives")
    if queries.skip_similar is not None:
        said.append(f"a preview that is like the last one to {queries.skip_similar:g} is not asked about")
    if queries.back_off is not None:
        factor, below = queries.back_off.factor, queries.back_off.below
        said.append(
            f"after a look where nothing comes to {below:g} of its threshold, the next is due {factor:g} times as late"
        )
    if queries.budget_ms is not None:
        said.append(f"no more looks once {queries.budget_ms} ms were waited for answers")
    return said


def strength(guidance: Guidance) -> str:
    """How hard negatives push."""
    if guidance.scale is None or guidance.strength is None:
        return "at the host's own scale"
    return f"scale {guidance.scale:g} {_STRENGTHS[guidance.strength]}; held for {guidance.hold} looks"
