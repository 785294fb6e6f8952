"""The nearest valid name for a misspelt one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def nearest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like a given one, if any is."""
    folded = name.lower().replace("-", "_")
    by_folded = {candidate.lower().replace("-", "_"): candidate for candidate in valid}
    close = get_close_matches(folded[:100], list(by_folded), n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(name: str, valid: Sequence[str], form: str = "`{}`") -> str:
    """A sentence that offers the nearest valid name, or all of them where none is near.

    >>> did_you_mean("treshold", ["threshold", "title"])
    'Did you mean `threshold`?'
    >>> did_you_mean("colour", ["id", "title"])
    'Valid here: `id`, `title`.'
    """
    if best := nearest(name, valid):
        return f"Did you mean {form.format(best)}?"
    return f"Valid here: {', '.join(form.format(candidate) for candidate in valid)}."
