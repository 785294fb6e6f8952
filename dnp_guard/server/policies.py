"""Decide which policies a session of the service may run under."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.generation import reach
from dnp_guard.policy import questions_per_image
from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dnp_guard.guard import Guard
    from dnp_guard.policy import Policy
    from dnp_guard.server.guards import Guards
    from dnp_guard.server.sessions import SessionStore
    from dnp_guard.server.settings import Limits
    from dnp_guard.server.tokens import Grant

_log = logging.getLogger("dnp_guard.server")


def check(policy: Policy, store: SessionStore) -> None:
    """Check that a store may hold sessions under a policy.

    Raises:
        DnpGuardError: the policy has a sensitive category, and the store would keep its findings outside this process.
    """
    sensitive = [category.id for category in policy.categories if category.sensitive]
    if sensitive and not store.private:
        raise DnpGuardError(
            f"policy {policy.name!r}: category {sensitive[0]!r} is sensitive, so its findings must not be stored",
            hint="Serve it with one worker and without --store.",
        )


def admit(policy: Policy, store: SessionStore, images: int, limits: Limits, can: Sequence[str]) -> None:
    """Check that a session may run under a policy, and that its host can steer as the policy requires.

    Args:
        policy: the policy in force for the session.
        store: the store that would hold the session.
        images: number of images generated together.
        limits: limits of the service.
        can: features that the host announced, such as ``attention``.

    Raises:
        Refusal: the store may not hold the session, it may need too many questions, or the host lacks a feature.
    """
    try:
        check(policy, store)
    except DnpGuardError as error:
        _log.warning("%s", error)
        raise Refusal("unready", "The service may not keep sessions under this policy; its log says more.") from error
    needed = images * questions_per_image(policy)
    if needed > limits.questions:
        raise Refusal("refused", f"It may need {needed} questions; {limits.questions} per session are allowed.")
    if "attention" not in can and reach.in_attention(policy, shown=False):
        raise Refusal("policy", f"Policy {policy.name!r} steers in attention, which this host cannot do.")
    # The protocol carries one negative prompt and its scale per image, but no mask.
    if policy.guidance.mask is not None and policy.mode != "shadow":
        raise Refusal("policy", f"Policy {policy.name!r} has guidance.mask, which hosts of the service cannot apply.")


@contextmanager
def selected(
    guards: Guards, grant: Grant, name: str | None, region: str | None, surface: str | None
) -> Iterator[Guard]:
    """Put the policy of a session into force inside a ``with`` block, and yield the guard.

    Args:
        guards: guards of the tenants.
        grant: the permissions of the session's token.
        name: name of a stricter policy that the session requests; None or empty for none.
        region: region of the caller, for a store with policies per region.
        surface: surface of the caller, such as ``ads``, for a store with policies per surface.

    Raises:
        Refusal: there is no such policy, or the token does not allow it.
    """
    guard, stricter = guards.granted(grant, name or None)
    try:
        with guard.tightened(stricter, region=region, surface=surface):
            yield guard
    except PolicyError as error:
        raise Refusal("policy", str(error)) from error
