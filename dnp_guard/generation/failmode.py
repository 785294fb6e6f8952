"""Decide what happens when the guard cannot do its job. No other module decides this. Pure; no torch.

A query that fails during denoising has no effect yet: the current negative prompts stay in force, and the query is put
again at the next step. A later answer makes up for it. If none arrives, this module decides the outcome of the image.
"""

from __future__ import annotations

from typing import Literal

from dnp_guard.types import InputAction, Outcome

OnFailure = Literal["closed", "open", "last"]


def resolve(
    on_failure: OnFailure,
    outcome: Outcome,
    *,
    missed: bool,
    answered: bool,
    request_caused: bool = False,
) -> Outcome:
    """Return the outcome of one image, with failures taken into account.

    Args:
        on_failure: ``on_failure`` of the policy.
        outcome: the outcome by the answered queries alone.
        missed: whether a query failed and no later one was answered.
        answered: whether any query was answered at all.
        request_caused: whether the request itself caused the failure (too big, too many questions). It then fails
            closed, whatever the policy says.

    Returns:
        ``outcome`` if no query is missed. Otherwise, under ``closed``, ``failed_closed``; under ``last``, ``outcome``,
        or ``failed_closed`` if no query was answered; under ``open``, ``failed_open``, but a blur or block that was
        already decided stays, because an outcome never becomes milder.
    """
    if not missed:
        return outcome
    if request_caused or on_failure == "closed" or (on_failure == "last" and not answered):
        return Outcome.FAILED_CLOSED
    if on_failure == "last" or outcome in {Outcome.BLURRED, Outcome.BLOCKED}:
        return outcome
    return Outcome.FAILED_OPEN


def of_input(on_failure: OnFailure, *, refuses: bool, request_caused: bool) -> InputAction:
    """Return whether to block or pass a request if the query about one of its own pictures was not answered.

    Args:
        on_failure: ``on_failure`` of the policy.
        refuses: whether the policy may refuse a request for its pictures; if not, the request passes.
        request_caused: whether the request caused the failure, as with a picture that cannot be decoded. ``open`` does
            not apply then.
    """
    return "block" if refuses and (request_caused or on_failure != "open") else "pass"
