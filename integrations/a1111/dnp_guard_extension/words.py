"""The negative's words as the host's prompt language has to have them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYNTAX = re.compile(r"[\\()\[\]]")
_KEYWORDS = re.compile(r"\b(AND|BREAK)\b")


def literal(words: str) -> str:
    r"""Words without a meaning in the host's prompt language.

    Brackets and backslashes are escaped. What cannot be escaped loses its form: ``AND`` and ``BREAK`` are keywords in
    capitals only, and ``<…>`` calls an extra network.
    """
    plain = words.replace("<", " ").replace(">", " ")
    plain = _KEYWORDS.sub(lambda match: match.group().lower(), plain)
    return _SYNTAX.sub(lambda match: "\\" + match.group(), plain).strip()


def unconditional(words: str, negative: str) -> str:
    """What takes the unconditional's place: the guard's words first, since a host may cut off what is too long."""
    mine = literal(words)
    return f"{mine}, {negative}" if negative.strip() else mine


def at_step(schedules: Sequence[Sequence[tuple[int, str]]], step: int) -> list[str]:
    """Each prompt as prompt editing has it at a step.

    Args:
        schedules: for each prompt what it is up to and with a step, in order, as the host's parser gives it.
        step: calls of the denoiser so far.
    """
    return [next((text for end, text in schedule if step <= end), schedule[-1][1]) for schedule in schedules]
