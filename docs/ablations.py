"""The page of the ablations, from the committed ``explanation/ablations.json``."""

from __future__ import annotations

from pathlib import Path

from dnp_guard.lab.evaluate.ablation_run import FILE, markdown, read


def ablations() -> str:
    """What each part of the guard does, as it was measured."""
    return markdown(read(Path(__file__).parent / "explanation" / FILE))
