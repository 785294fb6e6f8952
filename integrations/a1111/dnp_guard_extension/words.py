"""Write the words of a negative in the prompt syntax of the host, AUTOMATIC1111's web UI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYNTAX = re.compile(r"[\\()\[\]]")
_KEYWORDS = re.compile(r"\b(AND|BREAK)\b")


def literal(words: str) -> str:
    r"""Return words so that the host's prompt syntax takes them literally.

    Brackets and backslashes are escaped. ``AND`` and ``BREAK``, which are keywords in capitals only, become lower case.
    ``<`` and ``>``, which call an extra network such as a LoRA, become spaces.
    """
    plain = words.replace("<", " ").replace(">", " ")
    plain = _KEYWORDS.sub(lambda match: match.group().lower(), plain)
    return _SYNTAX.sub(lambda match: "\\" + match.group(), plain).strip()


def unconditional(words: str, negative: str) -> str:
    """Return a negative prompt of the guard's words and the user's; the guard's come first: a host may cut the end."""
    mine = literal(words)
    return f"{mine}, {negative}" if negative.strip() else mine


def at_step(schedules: Sequence[Sequence[tuple[int, str]]], step: int) -> list[str]:
    """Resolve prompt editing: return for every prompt the text that applies at a step.

    Args:
        schedules: per prompt, pairs of a last step and the text that applies until then, in order, from the host's
            parser.
        step: number of earlier calls of the denoiser.
    """
    return [next((text for end, text in schedule if step <= end), schedule[-1][1]) for schedule in schedules]
