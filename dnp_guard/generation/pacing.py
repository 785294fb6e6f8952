"""Which steps are looked at. Pure; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from dnp_guard.canonical import measured
from dnp_guard.policy.model.thresholds import at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.policy import Policy
    from dnp_guard.policy.model.sections import Queries
    from dnp_guard.types import Step

Reason = Literal["similar", "quiet", "unlikely", "budget_ms", "in_flight"]
"""Why a due step is passed over."""

TICKS: Final = 1000
"""Parts of a run whose steps are not known: its progress is counted in these."""


def due_steps(steps: Sequence[float | int], of: int | None, total: int) -> tuple[int, ...]:
    """Turn a policy's ``queries.steps`` into the steps of one run.

    Step k = floor(f n + 1/2), clipped to the run and without repetition.

    Args:
        steps: fractions of the run, 0…1, or step numbers where ``of`` is given.
        of: the run length that integer steps refer to; VL-DNP's list is of 50.
        total: n, the sampler steps this run executes.

    Returns:
        0-based steps, ascending.
    """
    fractions = [step / of for step in steps] if of else steps
    return tuple(sorted({min(max(math.floor(f * total + 0.5), 0), total - 1) for f in fractions}))


def due_levels(sigmas: Sequence[float], total: int, levels: Sequence[float] = ()) -> tuple[int, ...]:
    """Turn a policy's ``queries.sigmas`` into the steps of one run: for each, the first whose noise is no higher.

    Args:
        sigmas: shares of noise, σ/(α+σ).
        total: the sampler steps this run executes.
        levels: the share of noise that each of its steps begins with; without them, as many equal falls from 1 to 0.

    Returns:
        0-based steps, ascending; a level that no step begins under brings none.
    """
    if len(levels) != total:
        levels = [1 - index / total for index in range(total)]
    firsts = ((index for index, level in enumerate(levels) if measured(level) <= sigma) for sigma in sigmas)
    return tuple(sorted({step for first in firsts if (step := next(first, None)) is not None}))


def due_by_category(policy: Policy, total: int, levels: Sequence[float] = ()) -> dict[str, tuple[int, ...]]:
    """The steps of one run at which each category is looked for: its own, or the policy's.

    Args:
        policy: the policy in force.
        total: the sampler steps this run executes.
        levels: the share of noise that each of its steps begins with, where the host tells.
    """
    queries = policy.queries
    common = due_steps(queries.steps, queries.of, total)
    if queries.sigmas:
        by_level = due_levels(queries.sigmas, total, levels)
        # A look at the last step steers nothing any more, and the finished image is looked at in a moment.
        common = tuple(sorted({*common, *(step for step in by_level if step < total - 1 or not queries.final)}))
    return {
        category.id: due_steps(category.queries.steps, category.queries.of, total) if category.queries else common
        for category in policy.categories
    }


def is_due(due: Sequence[int], index: int, answered: int) -> bool:
    """Whether to look at step ``index`` when the last answered look was at step ``answered`` (-1 for none).

    A due step that went unanswered stays due at the next one, as does one that the host never showed.
    """
    return any(answered < step <= index for step in due)


@dataclass(frozen=True, slots=True)
class Pace:
    """When to query a generation again, given its answered queries.

    Attributes:
        waited_ms: how long the generation waited for them.
        until: the step before which nothing is due, after a quiet look.
    """

    waited_ms: float = 0.0
    until: float = 0.0


def spent(queries: Queries, pace: Pace) -> Reason | None:
    """Which limit the looks so far have reached, if any; the final look is made all the same."""
    if queries.budget_ms is not None and pace.waited_ms >= queries.budget_ms:
        return "budget_ms"
    return None


def nearest(policy: Policy, probabilities: Mapping[str, float], progress: float | None) -> float | None:
    """How near the likeliest category comes to its threshold, as a part of it, 1 and more for one that is seen.

    Args:
        policy: the policy in force.
        probabilities: P(category) of those that were asked about.
        progress: the part of the run that is done, for thresholds by range.

    Returns:
        None where only sensitive categories were asked about: of these nothing is told.
    """
    parts = [
        measured(probability) / threshold if (threshold := at(category.threshold, progress)) else 1.0
        for category in policy.categories
        if not category.sensitive and (probability := probabilities.get(category.id)) is not None
    ]
    return measured(max(parts)) if parts else None


def waited(pace: Pace, milliseconds: float) -> Pace:
    """The pace after the generation waited so long, for an answer or in vain."""
    return replace(pace, waited_ms=pace.waited_ms + milliseconds)


def after(queries: Queries, pace: Pace, step: int, near: float | None, *, steered: bool = False) -> Pace:
    """The pace after an answered look.

    After a quiet look at step k nothing is due before step f (k + 1) - 1, with f the back-off's factor: predictions
    sharpen as the noise falls, which is by about the same factor over such stretches. Anything that is not quiet brings
    back every step of the list, unless the image is steered from then on: it backs off by a factor of its own.

    Args:
        queries: of the policy.
        pace: before the look.
        step: k, 0-based.
        near: from :func:`nearest`, the highest of all images; 1 or more where something was found.
        steered: whether the look leaves a negative in force.
    """
    until, back_off = pace.until, queries.back_off
    if back_off is not None and steered and back_off.steered is not None:
        until = (step + 1) * back_off.steered - 1
    elif back_off is not None and near is not None:
        until = (step + 1) * back_off.factor - 1 if near < back_off.below else 0.0
    return replace(pace, until=until)


def place(step: Step) -> tuple[int, int | None]:
    """A step's number and the steps of the run; of :data:`TICKS` where only the progress is known."""
    if step.total is None and step.progress is not None:
        return tick(step.progress), TICKS
    return step.index, step.total


def progress(step: Step | None) -> float | None:
    """The part of the run that is done at a step; None where it is not known, and at the end."""
    at, total = place(step) if step is not None else (0, None)
    return at / total if total else None


def tick(progress: float) -> int:
    """The place, of :data:`TICKS`, that a run has reached."""
    return min(math.floor(progress * TICKS + 0.5), TICKS - 1)
