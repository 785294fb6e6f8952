"""Check the settings for input pictures and for noise levels: pure functions that yield the broken rules."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from dnp_guard.policy.model.category import Severity
from dnp_guard.policy.model.violation import Loc, Violation
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.sections import Inputs


def falling(sigmas: Sequence[float]) -> Iterator[Violation]:
    """Check that the noise levels at which to query are listed from high to low."""
    for index, (before, sigma) in enumerate(pairwise(sigmas), start=1):
        if sigma >= before:
            message = f"noise {sigma:g} does not come after {before:g}: noise falls during denoising"
            yield Violation(
                "sigma-order", ("queries", "sigmas", index), message, "List the levels once, from high to low."
            )
            return


def inputs(of: Inputs | None, categories: Sequence[Category]) -> Iterator[Violation]:
    """Check that a policy queries input pictures if it compares images with them or refuses requests for them.

    A sensitive or critical category must not make such a comparison: it is found whatever the input pictures show.
    """
    if of is not None and not of.query and of.action is Action.BLOCK:
        message = "`action: block` needs a query of the pictures, but `inputs` has `query: false`"
        yield Violation("inputs-unasked", ("inputs", "action"), message, "Write `query: true`.", (("inputs", "query"),))
    for index, category in enumerate(categories):
        at: Loc = ("categories", index)
        if category.more_than_input is None:
            continue
        if category.sensitive or category.severity is Severity.CRITICAL:
            kind = "sensitive" if category.sensitive else "critical"
            message = (
                f"`more_than_input` is not permitted for a {kind} category, which is found whatever a request contains"
            )
            also: tuple[Loc, ...] = ((*at, "severity"), (*at, "sensitive"))
            yield Violation("input-not-permitted", (*at, "more_than_input"), message, "Leave it out.", also)
        elif of is not None and not of.query:
            message = "`more_than_input` needs a query of the pictures, but `inputs` has `query: false`"
            hint = "Write `query: true`, or leave `inputs` out."
            yield Violation("inputs-unasked", (*at, "more_than_input"), message, hint, (("inputs", "query"),))
