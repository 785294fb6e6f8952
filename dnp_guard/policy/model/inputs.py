"""The rules of a request's own pictures, and of noise levels: pure functions that name what breaks them, and where."""

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
    """Noise levels fall."""
    for index, (before, sigma) in enumerate(pairwise(sigmas), start=1):
        if sigma >= before:
            message = f"noise {sigma:g} does not come after {before:g}: noise falls while an image is made"
            yield Violation("sigma-order", ("queries", "sigmas", index), message, "List each once, falling.")
            return


def inputs(of: Inputs | None, categories: Sequence[Category]) -> Iterator[Violation]:
    """What is compared with the request's own pictures, or blocked for them, is asked about in them."""
    if of is not None and not of.query and of.action is Action.BLOCK:
        message = "`action: block` needs the pictures asked about, and `inputs` has `query: false`"
        yield Violation("inputs-unasked", ("inputs", "action"), message, "Write `query: true`.", (("inputs", "query"),))
    for index, category in enumerate(categories):
        at: Loc = ("categories", index)
        if category.more_than_input is None:
            continue
        if category.sensitive or category.severity is Severity.CRITICAL:
            kind = "sensitive" if category.sensitive else "critical"
            message = f"a {kind} category is found whatever a request brings: `more_than_input` is not permitted"
            also: tuple[Loc, ...] = ((*at, "severity"), (*at, "sensitive"))
            yield Violation("input-not-permitted", (*at, "more_than_input"), message, "Leave it out.", also)
        elif of is not None and not of.query:
            message = "`more_than_input` needs the pictures asked about, and `inputs` has `query: false`"
            hint = "Write `query: true`, or leave `inputs` out."
            yield Violation("inputs-unasked", (*at, "more_than_input"), message, hint, (("inputs", "query"),))
