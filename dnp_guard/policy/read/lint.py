"""What is valid in a policy and may still not do what its author wants."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dnp_guard.errors import Problem
    from dnp_guard.policy.read.loading import Loaded

WINDOW = 75
"""Tokens that CLIP's text encoder reads of a prompt; what comes after them has no effect."""

_TOKENS = re.compile(r"\w{1,8}|[^\w\s]")


def tokens(text: str) -> int:
    """About how many tokens a text has: one a word, more for a long one, one a sign."""
    return len(_TOKENS.findall(text))


def warnings(loaded: Loaded) -> Iterator[Problem]:
    """What an author should look at again."""
    guidance = loaded.policy.guidance
    if guidance.strength == "controller" and guidance.hold == 0:
        yield loaded.document.problem(
            ("guidance", "strength"),
            "controller-without-hold",
            "with `hold: 0` a negative goes at the first look that no longer sees its category, and nothing eases",
            "Write `hold: 1` or more.",
        )
    for index, category in enumerate(loaded.policy.categories):
        longest = tokens(", ".join(category.words(category.terms)))
        if longest > WINDOW:
            yield loaded.document.problem(
                ("categories", index, "negative"),
                "long-negative",
                f"with everything found, the negative has about {longest} tokens, and a text encoder reads {WINDOW}",
                "Use fewer or shorter words.",
            )
