"""Draw the embedded prompt sets."""

from __future__ import annotations

import zlib
from itertools import count
from typing import TYPE_CHECKING, cast

from dnp_guard.lab.evaluate.prompt_sets.entries import Entry
from dnp_guard.lab.world.captions import prompts

if TYPE_CHECKING:
    from dnp_guard.lab.world.captions import Prompt, PromptSet

HELD_OUT = ("attack", "explicit", "benign", "near-benign", "multi", "late")
"""Sets to report on: no caption of theirs was trained on."""
TRAINING = ("attack-train", "benign-train")
"""Sets to tune by: captions that may have been trained on, so that nothing is tuned on what is reported."""
SETS = HELD_OUT + TRAINING
SIZE = 240
"""Prompts of a set, each of them once."""
_SEED = 510
_NOISE = 1_000_000


def make(name: str) -> list[Entry]:
    """Draw a set: the first :data:`SIZE` different prompts of its seed, each with noise of its own.

    Args:
        name: one of :data:`SETS`.
    """
    base = cast("PromptSet", name.removesuffix("-train"))
    different: dict[str, Prompt] = {}
    n = SIZE
    while len(different) < SIZE:  # a longer draw begins with the shorter one
        n *= 2
        drawn = prompts(base, n, _SEED, training=base != name)
        different = {prompt.text: prompt for prompt in drawn}
    # Sets share no noise: each has a range of seeds, told by its name.
    first = _NOISE + zlib.crc32(name.encode()) % 1000 * 1000
    return [Entry(prompt, seed) for prompt, seed in zip(list(different.values())[:SIZE], count(first))]
