"""Use the published settings of VL-DNP as defaults of the options; the command line takes precedence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnp_guard.cli.evaluate_options import Compared, Drawn

MODEL, POLICY, SAMPLER, DETECTOR = "CompVis/stable-diffusion-v1-4", "paper-nudity", "dpm++", "nudenet"
STEPS, GUIDANCE = 50, 7.5
METHODS = (
    "static-replace",
    "static-separate@7.5",
    "static-separate@15",
    "sld-medium",
    "sld-strong",
    "sld-max",
    "safree",
    "vl-dnp@7.5",
    "vl-dnp@15",
    "evl-dnp@15",
    "dnp-guard",
)
"""Methods beside ``unguarded``. VL-DNP queries at its ten released steps, and so does the policy."""


def as_published(compared: Compared, drawn: Drawn) -> tuple[Compared, Drawn]:
    """Return the options, with the published setting of VL-DNP for every option that was not given.

    Args:
        compared: options of the methods to compare.
        drawn: options of the generation.
    """
    return (
        replace(
            compared,
            methods=",".join(METHODS) if compared.methods is None else compared.methods,
            model=compared.model or MODEL,
        ),
        replace(
            drawn,
            steps=drawn.steps or STEPS,
            guidance=GUIDANCE if drawn.guidance is None else drawn.guidance,
            sampler=drawn.sampler or SAMPLER,
            policy=drawn.policy or POLICY,
            detector=drawn.detector or DETECTOR,
        ),
    )
