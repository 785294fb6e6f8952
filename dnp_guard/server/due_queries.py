"""Find the queries that the policy requires at certain steps and that the host has not sent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.generation import pacing

if TYPE_CHECKING:
    from dnp_guard.hosts.protocol import QueryMessage
    from dnp_guard.policy import Policy
    from dnp_guard.server.sessions import Stored


def due(policy: Policy, total: int) -> list[int]:
    """List the steps at which the policy requires a query about any category.

    Args:
        policy: the policy in force.
        total: number of steps of the run. If it is unknown, :data:`pacing.TICKS`: the list then holds positions in
            the run, counted in that many equal parts.
    """
    return sorted({step for steps in pacing.due_by_category(policy, total).values() for step in steps})


def unasked(policy: Policy, total: int | None, asked: int) -> str:
    """Describe the first required query that never came, such as "no query came for step 5"; empty if all came.

    Args:
        policy: the policy in force.
        total: number of steps of the run; None if it is unknown.
        asked: the latest step for which a query came, or the latest position if ``total`` is None; -1 for none.
    """
    return _named([step for step in due(policy, total or pacing.TICKS) if step > asked], total)


def left_out(policy: Policy, total: int | None, stored: Stored, query: QueryMessage, end: int | None) -> str:
    """Describe the first due step that the run has passed without a query; empty if there is none.

    A due step is one at which the policy requires a query. The query may come at that step or at the next one.

    If the number of steps is unknown, positions in the run are due in place of steps:

    - If the query gives ``since``, the progress at the step before it, every due position up to there is missed.
    - Otherwise nothing is missed if the query is at the very next step. If it skips steps, every due position that the
      run has passed is missed, except the last, which the query itself meets.

    Positions are compared unrounded, because hosts compare them with their progress in the same way.

    A host may announce that the run has ended. A query at a later step shows that this was not true.

    Args:
        policy: the policy in force.
        total: number of steps of the run; None if it is unknown.
        stored: the session before the query.
        query: the query.
        end: step at which the host announced the end of the run; None if it has not.
    """
    if end is not None and query.step > end:
        return f"the run went on after its end at step {end}"
    owed = [step for step in due(policy, total or pacing.TICKS) if step > stored.asked]
    if total is not None:
        passed = [step for step in owed if step < query.step - 1]
    elif query.since is not None:
        passed = [step for step in owed if step / pacing.TICKS <= query.since]
    elif query.step > stored.step + 1:
        passed = [step for step in owed if step / pacing.TICKS <= (query.progress or 0.0)][:-1]
    else:
        passed = []
    return _named(passed, total)


def _named(steps: list[int], total: int | None) -> str:
    where = "step {}" if total else f"{{}} of {pacing.TICKS} parts of the run"
    return f"no query came for {where.format(steps[0])}" if steps else ""
