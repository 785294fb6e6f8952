"""The page of the pipelines and schedulers, from the rows that steer them."""

from __future__ import annotations

import textwrap

import diffusers

from dnp_guard.hosts.diffusers.families import FAMILIES, Family, classes
from dnp_guard.hosts.diffusers.families.refused import why_not
from dnp_guard.hosts.diffusers.prediction import SPACES

_PAGE = """\
# Pipelines

Every pipeline class of diffusers {version}: {steered} are steered, {refused} are refused. `make matrix` runs each that
is steered as a pipeline of random weights, and writes `matrix.json`: of three images the one concerned changes from the
next step on, the others keep every bit, one injection is recorded, nothing is left behind, and a guard that finds
nothing leaves every bit. A part of them runs in the tests, in each guidance mode.

| class | family | each branch | `replace` needs | refused |
|---|---|---|---|---|
{rows}

Without classifier-free guidance, or with distilled guidance alone, `separate` pushes away from the
prompt's own prediction: ε_c − s(ε_n − ε_c). Under `guidance_rescale` and under normalisation the negative enters before
it. Where branches are halves or thirds of one evaluation, the negative is added to each, so that the guided prediction
moves by it and no more, whatever the scales. With a ControlNet, `replace` puts the guard's words into the denoiser
alone; the ControlNet keeps the user's negative prompt.

Videos are looked at by their first, middle and last frame; the strictest of them counts.

## Refused

Attaching to any of these raises `CannotSteer` with the reason. `dnp-guard doctor --model FOLDER` says which row applies
to a pipeline in a folder. A plugin may add a row with the hook `dnp_guard_pipeline_family`.

{others}

## Schedulers

The clean image is predicted under these, with any of their prediction types, and no others:

{schedulers}
"""


def pipelines() -> str:
    """The page of the pipelines: every class that can be steered, and those that cannot."""
    rows = sorted(((name, family) for family in FAMILIES for name in family.pipelines), key=lambda row: row[0])
    steered = {name for name, _ in rows}
    reasons: dict[str, list[str]] = {}
    for name in classes():
        if name not in steered:
            reasons.setdefault(why_not(name)[0], []).append(name)
    return _PAGE.format(
        version=diffusers.__version__,
        steered=len(steered),
        refused=len(classes()) - len(steered),
        rows="\n".join(f"| `{name}` | {family.name} | {_cells(family)} |" for name, family in rows),
        others="\n\n".join(f"**Because {reason}:**\n{_listed(names)}" for reason, names in sorted(reasons.items())),
        schedulers=_listed(sorted(SPACES)),
    )


def _cells(family: Family) -> str:
    parts = {1: "the only one", 2: "half of one evaluation", 3: "a third of one evaluation"}
    branch = parts[len(family.order)] if family.batched or len(family.order) == 1 else "an evaluation of its own"
    needs = f"`{family.scale}` over {family.off:g}" + ("" if family.implied else ", a `negative_prompt`")
    refused = [f"`{name}`" for name in family.refused]
    refused += [] if "latent" in family.output_types else ['`output_type="latent"`']
    refused += ["the call argument"] if family.attached_only else []
    return f"{branch} | {needs if 'u' in family.order else 'refused'} | {', '.join(refused)}"


def _listed(names: list[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in names), width=120, break_long_words=False)
