"""Which due queries a host still owes to a session, and which it has left out. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.generation import pacing

if TYPE_CHECKING:
    from dnp_guard.hosts.protocol import QueryMessage
    from dnp_guard.policy import Policy
    from dnp_guard.server.sessions import Stored


def due(policy: Policy, total: int) -> list[int]:
    """List the steps at which any category is due.

    Args:
        policy: the policy in force.
        total: number of steps of the run; :data:`pacing.TICKS` where it is unknown.
    """
    return sorted({step for steps in pacing.due_by_category(policy, total).values() for step in steps})


def unasked(policy: Policy, total: int | None, asked: int) -> str:
    """Name the first due query that never came, for a person; empty where none is owed.

    Args:
        policy: the policy in force.
        total: number of steps of the run; None where it is unknown.
        asked: how far in the run a query has come.
    """
    return _named([step for step in due(policy, total or pacing.TICKS) if step > asked], total)


def left_out(policy: Policy, total: int | None, stored: Stored, query: QueryMessage, end: int | None) -> str:
    """Name the first due step that the run has passed before a query, and that no query came for.

    A due step is met by a query at it or at the next step. Where the number of steps is unknown, the host says how far
    the step before had come; one that does not say so may pass one due place between two queries, or as many as lie in
    one step. A query at a step after the end shows that the run had not ended.

    Places are compared unrounded, as hosts compare them with the progress.

    Args:
        policy: the policy in force.
        total: number of steps of the run; None where it is unknown.
        stored: the session before the query.
        query: the query.
        end: step at which the host said that the run had ended; None if it has not said so.
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
