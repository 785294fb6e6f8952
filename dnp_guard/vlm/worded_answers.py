"""Read an answer that a model gives in words, strictly."""

from __future__ import annotations

import re

from dnp_guard.errors import VlmBadAnswer


class Noise(VlmBadAnswer):
    """Most of the model's probability is on other words than the two answers."""


def noise(answers: str, mass: float) -> Noise:
    """Return the error for a model that puts most of the probability on other words.

    Args:
        answers: the two answers, in quotation marks.
        mass: the probability of the two together.
    """
    return Noise(
        f"{answers} have {mass:.2g} of the probability, and other words the rest",
        hint='The model thinks before it answers, or does not follow "Answer with yes or no.": serve it without '
        "thinking (enable_thinking: false in its chat template), or use an instruction-tuned one.",
    )


_WORD = re.compile(r"[^\W\d_]+")


def yes_or_no(text: str) -> float:
    """Read a text as 1 if its first word is "yes", and as 0 if it is "no".

    Raises:
        VlmBadAnswer: it begins with another word, or contains both.
    """
    words = _WORD.findall(text.lower())
    answers = {"yes", "no"} & set(words)
    if len(answers) != 1 or words[0] not in answers:
        raise VlmBadAnswer('the answer is neither "yes" nor "no"', hint="Use a model that follows instructions.")
    return float(words[0] == "yes")
