"""The page of the ablations, from what was measured and committed in ``explanation/``."""

from __future__ import annotations

from pathlib import Path

from dnp_guard.lab.evaluate.ablation_run import FILE, markdown, read, tables

FOLDER = Path(__file__).parent / "explanation"

_REMOVED = """
## Taken out

These rows can no longer be run: what they measured was worse than what is left, and a policy cannot say it any more.
Their figures stay as the reason. Each changed one thing of *every step*.

- *most 3* (`queries.most: 3`) made no more than three looks while the image is made: of *attack*, 80 % was kept in
  place of 97 %.
- *strongest* (`guidance.combine: strongest`) steered away from the likeliest of several categories alone: 70 % of
  *multi* still showed something forbidden in place of 8 %.
- *sum* (`guidance.combine: sum`) added a term for each of several categories: 20 % of *multi* did, at 2.31 times the
  time in place of 1.77.
- *orthogonal* (`guidance.mode: orthogonal`) added only what is orthogonal to the prompt's own direction: 86 % of
  *attack* and all of *multi* did. The things that a prompt draws lie along its own direction, and that was taken
  out.
- *sum, orthogonal* was both.
"""


def ablations() -> str:
    """Return the page of what each part of the guard does, as it was measured."""
    return markdown(read(FOLDER / FILE)) + _REMOVED + "\n" + tables(read(FOLDER / "ablations-removed.json"), "###")
