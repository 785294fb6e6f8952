"""The page of the pipelines and schedulers, from the rows that steer them."""

from __future__ import annotations

import textwrap

import diffusers

from dnp_guard.hosts.diffusers.families import FAMILIES, Family
from dnp_guard.hosts.diffusers.prediction import SPACES

_PAGE = """\
# Pipelines

What can be steered of diffusers {version}. Every class of the table is run by the tests, in each guidance mode, as a
pipeline of random weights: of three images the one concerned changes, the others keep every bit, one injection is
recorded, and nothing is left behind.

| class | family | each branch | `replace` needs | refused |
|---|---|---|---|---|
{rows}

Without classifier-free guidance, or with distilled guidance alone, `separate` and `orthogonal` push away from the
prompt's own prediction: ε_c − s(ε_n − ε_c). Under `guidance_rescale` the negative enters before the rescaling.

## Refused

Attaching to any other class raises `CannotSteer`: no test has shown where its negative goes. `dnp-guard doctor --model
FOLDER` says which row applies to a pipeline in a folder.

{others}

## Schedulers

The clean image is predicted under these, with any of their prediction types, and no others:

{schedulers}
"""


def pipelines() -> str:
    """The page of the pipelines: every class that can be steered, and those that cannot."""
    rows = sorted(((name, family) for family in FAMILIES for name in family.pipelines), key=lambda row: row[0])
    steered = {name for name, _ in rows}
    others = [name for name in dir(diffusers) if name.endswith("Pipeline") and name not in steered]
    return _PAGE.format(
        version=diffusers.__version__,
        rows="\n".join(f"| `{name}` | {family.name} | {_cells(family)} |" for name, family in rows),
        others=_listed(others),
        schedulers=_listed(sorted(SPACES)),
    )


def _cells(family: Family) -> str:
    branch = "half of one evaluation" if family.batched else "an evaluation of its own"
    needs = f"`{family.scale}` over 1" + ("" if family.implied else ", a `negative_prompt`")
    refused = [f"`{name}`" for name in family.refused]
    refused += [] if "latent" in family.output_types else ['`output_type="latent"`']
    refused += ["the call argument"] if family.needs_arguments else []
    return f"{branch} | {needs} | {', '.join(refused)}"


def _listed(names: list[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in names), width=120, break_long_words=False)
