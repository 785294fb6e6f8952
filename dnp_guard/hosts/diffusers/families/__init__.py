"""How a kind of pipeline is steered: data, one row a family. A row names only classes that the tests have run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import diffusers

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import prediction
from dnp_guard.hosts.diffusers.families import flux, refused, stable_diffusion, transformers, video
from dnp_guard.hosts.diffusers.families.row import Family

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

__all__ = ["FAMILIES", "Family", "classes", "complete", "family_of", "row_of"]

FAMILIES: tuple[Family, ...] = (
    *stable_diffusion.ROWS,
    *transformers.ROWS,
    *flux.ROWS,
    *video.ROWS,
)


def classes() -> list[str]:
    """Names of every pipeline class of the installed diffusers, steered or not."""
    named = {name for name in dir(diffusers) if name.endswith("Pipeline") and name != "DiffusionPipeline"}
    return sorted(named | {name for family in FAMILIES for name in family.pipelines})


def family_of(pipe: Any, more: Sequence[Family] = ()) -> Family:
    """The family of a pipeline.

    Args:
        pipe: the pipeline.
        more: rows beside the built-in ones, which go first.

    Raises:
        CannotSteer: no row covers its class, a component is missing, or its scheduler's prediction is not known.
    """
    name = type(pipe).__name__
    parts = {part for part in row_of(name, more).parts() if getattr(pipe, part, None) is not None}
    return complete(name, parts, getattr(pipe, "scheduler", None), more)


def row_of(name: str, more: Sequence[Family] = ()) -> Family:
    """The row that covers a class.

    Raises:
        CannotSteer: none does.
    """
    family = next((each for each in (*FAMILIES, *more) if name in each.pipelines), None)
    if family is None:
        reason, hint = refused.why_not(name)
        known = (
            f"`dnp-guard doctor` lists the {sum(len(row.pipelines) for row in FAMILIES)} classes that can be steered."
        )
        raise CannotSteer(f"{name} is not a pipeline this version can steer: {reason}", hint=hint or known)
    return family


def complete(name: str, parts: Container[str], scheduler: Any, more: Sequence[Family] = ()) -> Family:
    """The row that covers a class which has these parts and this scheduler.

    Raises:
        CannotSteer: no row covers the class, a part is missing, or its scheduler's prediction is not known.
    """
    family = row_of(name, more)
    for part in family.parts():
        if part not in parts:
            raise CannotSteer(f"{name} has no {part}", hint=f"Load the pipeline with its {part}.")
    prediction.check(scheduler)
    return family
