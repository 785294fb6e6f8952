"""Which steps are looked at. Pure; no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.policy import Policy
    from dnp_guard.types import Step

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


def due_by_category(policy: Policy, total: int) -> dict[str, tuple[int, ...]]:
    """The steps of one run at which each category is looked for: its own, or the policy's."""
    common = due_steps(policy.queries.steps, policy.queries.of, total)
    return {
        category.id: due_steps(category.queries.steps, category.queries.of, total) if category.queries else common
        for category in policy.categories
    }


def is_due(due: Sequence[int], index: int, answered: int) -> bool:
    """Whether to look at step ``index`` when the last answered look was at step ``answered`` (-1 for none).

    A due step that went unanswered stays due at the next one, as does one that the host never showed.
    """
    return any(answered < step <= index for step in due)


def place(step: Step) -> tuple[int, int | None]:
    """A step's number and the steps of the run; of :data:`TICKS` where only the progress is known."""
    if step.total is None and step.progress is not None:
        return tick(step.progress), TICKS
    return step.index, step.total


def tick(progress: float) -> int:
    """The place, of :data:`TICKS`, that a run has reached."""
    return min(math.floor(progress * TICKS + 0.5), TICKS - 1)
