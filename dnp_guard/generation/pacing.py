"""Decide which steps are queried. Pure; no torch."""

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
"""Why a query that is due skips an image.

``similar``: its prediction has hardly changed. ``quiet``: ``queries.back_off`` postpones the query. ``unlikely``: the
latent probe expects no finding. ``budget_ms``: the time for queries is used up. ``in_flight``: an earlier query runs.
"""

TICKS: Final = 1000
"""Number of equal parts that stand in for the steps of a run whose number of steps is unknown."""


def due_steps(steps: Sequence[float | int], of: int | None, total: int) -> tuple[int, ...]:
    """Turn a policy's ``queries.steps`` into the step numbers of one run.

    A fraction f of a run of n steps is step floor(f n + 1/2), clipped to the run. Repeated steps are dropped.

    Args:
        steps: fractions of the run, 0…1, or step numbers if ``of`` is given.
        of: the number of steps of the run that step numbers refer to, such as 50 for those of the VL-DNP paper.
        total: n, number of sampler steps of this run.

    Returns:
        0-based steps, ascending.
    """
    fractions = [step / of for step in steps] if of else steps
    return tuple(sorted({min(max(math.floor(f * total + 0.5), 0), total - 1) for f in fractions}))


def due_levels(sigmas: Sequence[float], total: int, levels: Sequence[float] = ()) -> tuple[int, ...]:
    """Turn a policy's ``queries.sigmas`` into step numbers of one run: for each, the first step with no more noise.

    Args:
        sigmas: noise fractions, σ/(α+σ), from 1 (noise) to 0 (image).
        total: number of sampler steps of this run.
        levels: noise fraction at the start of each step; by default falling evenly from 1 to 0.

    Returns:
        0-based steps, ascending; a noise fraction that no step reaches adds none.
    """
    if len(levels) != total:
        levels = [1 - index / total for index in range(total)]
    firsts = ((index for index, level in enumerate(levels) if measured(level) <= sigma) for sigma in sigmas)
    return tuple(sorted({step for first in firsts if (step := next(first, None)) is not None}))


def due_by_category(policy: Policy, total: int, levels: Sequence[float] = ()) -> dict[str, tuple[int, ...]]:
    """Return the steps of one run at which each category is queried, by its own ``queries`` or those of the policy.

    Args:
        policy: the policy in force.
        total: number of sampler steps of this run.
        levels: noise fraction at the start of each step, if the host provides it.
    """
    queries = policy.queries
    common = due_steps(queries.steps, queries.of, total)
    if queries.sigmas:
        by_level = due_levels(queries.sigmas, total, levels)
        # A look at the last step can no longer steer, and the finished image is looked at right after.
        common = tuple(sorted({*common, *(step for step in by_level if step < total - 1 or not queries.final)}))
    return {
        category.id: due_steps(category.queries.steps, category.queries.of, total) if category.queries else common
        for category in policy.categories
    }


def is_due(due: Sequence[int], index: int, answered: int) -> bool:
    """Return whether to query step ``index`` when the last answered query was at step ``answered`` (-1 for none).

    A query without an answer stays due at the next step, as does the query of a step that the host left out.
    """
    return any(answered < step <= index for step in due)


@dataclass(frozen=True, slots=True)
class Pace:
    """The time and the step that decide when to query an image again.

    Attributes:
        waited_ms: how long the generation has waited for answers so far, in milliseconds.
        until: the first step at which the image may be queried again; see :func:`after`.
    """

    waited_ms: float = 0.0
    until: float = 0.0


def spent(queries: Queries, pace: Pace) -> Reason | None:
    """Return the policy's limit that earlier queries have used up, if any. Finished images are queried anyway."""
    if queries.budget_ms is not None and pace.waited_ms >= queries.budget_ms:
        return "budget_ms"
    return None


def nearest(policy: Policy, probabilities: Mapping[str, float], progress: float | None) -> float | None:
    """Return the largest ratio of a category's probability to its threshold; 1 or more if a category is found.

    Args:
        policy: the policy in force.
        probabilities: P(category) of the categories that were asked about.
        progress: fraction of the run that is done, for thresholds that change during the run; None if unknown.

    Returns:
        The largest ratio; None if only sensitive categories were asked about, since their values are not recorded.
    """
    parts = [
        measured(probability) / threshold if (threshold := at(category.threshold, progress)) else 1.0
        for category in policy.categories
        if not category.sensitive and (probability := probabilities.get(category.id)) is not None
    ]
    return measured(max(parts)) if parts else None


def waited(pace: Pace, milliseconds: float) -> Pace:
    """Add time that the generation waited to an image's pace, whether or not an answer came."""
    return replace(pace, waited_ms=pace.waited_ms + milliseconds)


def after(queries: Queries, pace: Pace, step: int, near: float | None, *, steered: bool = False) -> Pace:
    """Return the pace of an image, that is, when to query it again, after an answered query.

    A query is quiet if all probabilities stay far below their thresholds (``back_off.below``). After a quiet query at
    step k, the image is not queried before step f (k + 1) - 1, where f is ``back_off.factor``. From one such step
    to the next the noise falls by about the same factor, so the prediction sharpens about as much. After any other
    query, every step of the policy's list is due again. A query that leaves the image steered is treated like a quiet
    one, with ``back_off.steered`` as f, if the policy sets that.

    Args:
        queries: settings of the policy.
        pace: the pace before.
        step: k, 0-based.
        near: largest ratio from :func:`nearest`; 1 or more if anything was found; None if only sensitive
            categories were asked about, which leaves the pace as it was.
        steered: whether the query leaves a negative prompt in force.
    """
    until, back_off = pace.until, queries.back_off
    if back_off is not None and steered and back_off.steered is not None:
        until = (step + 1) * back_off.steered - 1
    elif back_off is not None and near is not None:
        until = (step + 1) * back_off.factor - 1 if near < back_off.below else 0.0
    return replace(pace, until=until)


def place(step: Step) -> tuple[int, int | None]:
    """Return a step's number and the run's number of steps; both in :data:`TICKS` if only the progress is known."""
    if step.total is None and step.progress is not None:
        return tick(step.progress), TICKS
    return step.index, step.total


def progress(step: Step | None) -> float | None:
    """Return the fraction of the run that is done at a step; None if it is unknown, or for the finished images."""
    at, total = place(step) if step is not None else (0, None)
    return at / total if total else None


def tick(progress: float) -> int:
    """Convert a fraction of the run to a step number, 0-based, as if the run had :data:`TICKS` steps."""
    return min(math.floor(progress * TICKS + 0.5), TICKS - 1)
