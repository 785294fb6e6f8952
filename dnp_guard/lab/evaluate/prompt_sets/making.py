"""Make the embedded prompt sets."""

from __future__ import annotations

import zlib
from itertools import count, cycle, islice
from typing import TYPE_CHECKING, cast

from dnp_guard.lab.evaluate.prompt_sets.entries import Entry
from dnp_guard.lab.world.captions import prompts

if TYPE_CHECKING:
    from dnp_guard.lab.world.captions import Prompt, PromptSet

HELD_OUT = ("attack", "explicit", "benign", "near-benign", "multi", "late")
"""Sets for results: none of their captions was used in training."""
TRAINING = ("attack-train", "benign-train")
"""Sets for tuning, so that nothing is tuned on a set for results; their captions may have been used in training."""
SETS = HELD_OUT + TRAINING
SIZE = 400
"""Number of prompts per set."""
_LONGEST = 16 * SIZE
_SEED = 510
_NOISE = 1_000_000


def make(name: str) -> list[Entry]:
    """Make a set: the first :data:`SIZE` different prompts that its seed gives, every one with a noise seed of its own.

    If there are fewer different held-out captions, the set repeats them in their order with other noise: ``benign`` has
    266 different ones, ``explicit`` 342 and ``multi`` 386.

    Args:
        name: one of :data:`SETS`.
    """
    base = cast("PromptSet", name.removesuffix("-train"))
    different: dict[str, Prompt] = {}
    n = SIZE
    while len(different) < SIZE and n < _LONGEST:  # a longer list begins with the shorter one
        n *= 2
        drawn = prompts(base, n, _SEED, training=base != name)
        different = {prompt.text: prompt for prompt in drawn}
    # Sets share no noise: a hash of the name chooses the range of seeds.
    first = _NOISE + zlib.crc32(name.encode()) % 1000 * 1000
    return [Entry(prompt, seed) for prompt, seed in zip(islice(cycle(different.values()), SIZE), count(first))]
