"""Draw the embedded prompt sets."""

from __future__ import annotations

import zlib
from itertools import count
from typing import TYPE_CHECKING, get_args

from dnp_guard.evaluate.prompt_sets.entries import Entry
from dnp_guard.glyphs.captions import PromptSet, prompts

if TYPE_CHECKING:
    from dnp_guard.glyphs.captions import Prompt

HELD_OUT = ("attack", "explicit", "benign", "near-benign", "multi", "late")
"""Sets to report on: no caption of theirs was trained on."""
TRAINING = ("attack-train", "benign-train")
"""Sets to tune by: captions that may have been trained on, so that nothing is tuned on what is reported."""
SETS = HELD_OUT + TRAINING
SIZE = 240
"""Prompts of a set, each of them once."""
_SEED = 510
_NOISE = 1_000_000
_ENOUGH = 40
"""How many times as many prompts are drawn as are kept; most are drawn more than once."""


def make(name: str) -> list[Entry]:
    """Draw a set: the first :data:`SIZE` different prompts of its seed, each with noise of its own.

    Args:
        name: one of :data:`SETS`.
    """
    base = name.removesuffix("-train")
    assert base in get_args(PromptSet)  # noqa: S101 (the sets are listed above)
    drawn = prompts(base, _ENOUGH * SIZE, _SEED, training=base != name)  # type: ignore[arg-type]
    different: dict[str, Prompt] = {}
    for prompt in drawn:
        different.setdefault(prompt.text, prompt)
    # Sets share no noise: each has a range of seeds, told by its name.
    first = _NOISE + zlib.crc32(name.encode()) % 1000 * 1000
    return [Entry(prompt, seed) for prompt, seed in zip(list(different.values())[:SIZE], count(first))]
