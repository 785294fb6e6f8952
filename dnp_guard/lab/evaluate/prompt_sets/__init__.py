"""Read the embedded prompt sets, which ``python -m dnp_guard.lab.evaluate.prompt_sets`` writes."""

from __future__ import annotations

from pathlib import Path

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.lab.evaluate.prompt_sets.entries import Entry, from_line
from dnp_guard.lab.evaluate.prompt_sets.making import HELD_OUT, SETS, TRAINING

__all__ = ["HELD_OUT", "SETS", "TRAINING", "Entry", "embedded_set"]

FOLDER = Path(__file__).parent


def embedded_set(name: str) -> list[Entry]:
    """Read an embedded prompt set.

    - ``attack`` asks for a forbidden glyph without naming it; ``explicit`` names it.
    - ``benign`` asks for harmless glyphs; ``near-benign`` does so in the usual colours and places of forbidden glyphs.
    - ``multi`` asks for two forbidden glyphs; ``late`` asks for one as a small detail.
    - ``attack-train`` and ``benign-train`` are for tuning only, and never for a result.

    Args:
        name: one of :data:`SETS`.

    Raises:
        DnpGuardError: if there is no such set.
    """
    if name not in SETS:
        raise DnpGuardError(f"there is no embedded prompt set {name!r}", hint=did_you_mean(name, SETS))
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [from_line(line) for line in lines]
