"""Write a negative's words in the host's prompt language."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYNTAX = re.compile(r"[\\()\[\]]")
_KEYWORDS = re.compile(r"\b(AND|BREAK)\b")


def literal(words: str) -> str:
    r"""Escape words, so that they have no meaning in the host's prompt language.

    Brackets and backslashes are escaped. Other forms are changed: ``AND`` and ``BREAK`` are keywords in capitals only,
    and ``<…>`` calls an extra network.
    """
    plain = words.replace("<", " ").replace(">", " ")
    plain = _KEYWORDS.sub(lambda match: match.group().lower(), plain)
    return _SYNTAX.sub(lambda match: "\\" + match.group(), plain).strip()


def unconditional(words: str, negative: str) -> str:
    """Return the text in place of the unconditional: the guard's words first, because a host may truncate it."""
    mine = literal(words)
    return f"{mine}, {negative}" if negative.strip() else mine


def at_step(schedules: Sequence[Sequence[tuple[int, str]]], step: int) -> list[str]:
    """Resolve prompt editing at a step, for every prompt.

    Args:
        schedules: per prompt the texts with the last step of each text, in order, from the host's parser.
        step: number of earlier calls of the denoiser.
    """
    return [next((text for end, text in schedule if step <= end), schedule[-1][1]) for schedule in schedules]
