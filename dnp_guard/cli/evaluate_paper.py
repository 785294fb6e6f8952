"""The setting that VL-DNP was published with, as options: what is given on the command line goes before it."""

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
"""Beside ``unguarded``. VL-DNP looks at its ten released steps, and so does the policy."""


def as_published(compared: Compared, drawn: Drawn) -> tuple[Compared, Drawn]:
    """Fill in what was not given.

    Args:
        compared: what is measured.
        drawn: how images are drawn and judged.
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
