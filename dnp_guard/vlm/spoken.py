"""What a model says in words, read strictly."""

from __future__ import annotations

import re

from dnp_guard.errors import VlmBadAnswer

_WORD = re.compile(r"[^\W\d_]+")


def yes_or_no(text: str) -> float:
    """1 where the first word of a text is "yes" and 0 where it is "no".

    Raises:
        VlmBadAnswer: it begins with another word, or says both.
    """
    words = _WORD.findall(text.lower())
    said = {"yes", "no"} & set(words)
    if len(said) != 1 or words[0] not in said:
        raise VlmBadAnswer('the answer is neither "yes" nor "no"', hint="Use a model that follows instructions.")
    return float(words[0] == "yes")
