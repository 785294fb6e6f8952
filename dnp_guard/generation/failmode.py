"""Decide what happens when the guard cannot do its job. Nothing else decides this. Pure; no torch.

A missed look during the run changes nothing at once: the current negatives stay, and the query is put again at the next
step. Any later answered look clears the miss. This module decides the end: the outcome of an image whose last miss was
never cleared.
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
        on_failure: the policy's choice.
        outcome: the outcome by the answered looks.
        missed: whether a look was missed and no later one was answered.
        answered: whether any look was answered at all.
        request_caused: whether the request itself caused the failure (too big, too many questions); always closed.

    Returns:
        ``outcome`` if nothing is missing. Otherwise ``failed_closed`` under ``closed``; under ``last`` the last
        decision, or ``failed_closed`` without one; under ``open`` ``failed_open``, except that a blur or block that
        was already decided stays: an outcome is only ever tightened.
    """
    if not missed:
        return outcome
    if request_caused or on_failure == "closed" or (on_failure == "last" and not answered):
        return Outcome.FAILED_CLOSED
    if on_failure == "last" or outcome in {Outcome.BLURRED, Outcome.BLOCKED}:
        return outcome
    return Outcome.FAILED_OPEN


def of_input(on_failure: OnFailure, *, refuses: bool, request_caused: bool) -> InputAction:
    """Return whether a request goes on although the query about one of its own pictures was not answered.

    Args:
        on_failure: the policy's choice.
        refuses: whether a request may be refused for its pictures.
        request_caused: whether the request caused it, as with a picture that cannot be shown; always closed.
    """
    return "block" if refuses and (request_caused or on_failure != "open") else "pass"
