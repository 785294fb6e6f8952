"""Write the page of the ablations from the figures that are committed in ``explanation/``."""

from __future__ import annotations

from pathlib import Path

from dnp_guard.lab.evaluate.ablation_run import FILE, markdown, read, tables

FOLDER = Path(__file__).parent / "explanation"

_REMOVED = """
## Taken out

These rows can no longer be run: a policy no longer has their keys, because their figures were worse than those of the
remaining rows. The figures stay here as the reason. Every row changed one thing of *every step*.

- *most 3* (`queries.most: 3`) put at most three queries while the image was drawn: on *attack*, 80 % of the images kept
  everything the prompt asks for, in place of 97 %.
- *strongest* (`guidance.combine: strongest`) steered away from the likeliest of several categories only: 70 % of the
  *multi* images still showed something forbidden, in place of 8 %.
- *sum* (`guidance.combine: sum`) added one term per category: 20 % of the *multi* images still showed something
  forbidden, at 2.31 times the unguarded time in place of 1.77.
- *orthogonal* (`guidance.mode: orthogonal`) added only the part of the term that is orthogonal to the prompt's own
  direction: 86 % of the *attack* images and all *multi* images still showed something forbidden. The content that a
  prompt draws lies along its own direction, which was left out.
- *sum, orthogonal* combined both.
"""


def ablations() -> str:
    """Return the page of what each part of the guard does, as it was measured."""
    return markdown(read(FOLDER / FILE)) + _REMOVED + "\n" + tables(read(FOLDER / "ablations-removed.json"), "###")
