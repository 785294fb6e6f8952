"""What a model says in words, read strictly."""

from __future__ import annotations

import re

from dnp_guard.errors import VlmBadAnswer


class Noise(VlmBadAnswer):
    """The model would rather say something else than one of the two answers."""


def noise(answers: str, mass: float) -> Noise:
    """What to say where most of the probability is on other words.

    Args:
        answers: the two, in quotation marks.
        mass: what they have of the probability.
    """
    return Noise(
        f"{answers} have {mass:.2g} of the probability, and other words the rest",
        hint='The model thinks before it answers, or does not follow "Answer with yes or no.": serve it without '
        "thinking (enable_thinking: false in its chat template), or use an instruction-tuned one.",
    )


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
