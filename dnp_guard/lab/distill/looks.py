"""Looks to learn from: what was looked at, as latents, and what was found in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dnp_guard.errors import DnpGuardError
from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.policy import Policy
    from dnp_guard.types import Decision, Step

_SPATIAL = 4


@dataclass(frozen=True, eq=False, slots=True)
class Example:
    """One look at one image.

    Attributes:
        latents: x̂0, float16 [C, h, w].
        progress: the part of the run that is done.
        found: ids of the categories that were found, excused ones included.
        image: which image of all; looks at one image are kept together when some are held out.
    """

    latents: Tensor
    progress: float
    found: frozenset[str]
    image: str


class Watcher:
    """A plugin that keeps every look of a guard, in memory."""

    def __init__(self) -> None:
        self.looks: list[Example] = []
        self._latents: Tensor | None = None
        self._requests: dict[str, int] = {}

    @hookimpl
    def dnp_guard_before_query(self, request: str, step: Step | None, images: Sequence[Image]) -> None:
        """Keep the latents of what is about to be asked about."""
        self._latents = None if step is None else spatial(step.prediction)

    @hookimpl
    def dnp_guard_after_decision(self, request: str, image: int, step: Step | None, decision: Decision) -> None:
        """Keep what was found in them."""
        if step is not None and step.total and self._latents is not None:
            found = frozenset(finding.category for finding in (*decision.findings, *decision.waived))
            number = self._requests.setdefault(request, len(self._requests))  # the same in every run, as no id is
            self.looks.append(Example(self._latents[image], step.index / step.total, found, f"{number} {image}"))


def spatial(prediction: Tensor) -> Tensor:
    """Latents as they are kept, float16 on the CPU.

    Raises:
        DnpGuardError: they are packed into a sequence, or those of a video.
    """
    if prediction.ndim != _SPATIAL:
        raise DnpGuardError(
            f"a probe reads latents [B, C, h, w], and this model's have {prediction.ndim} dimensions",
            hint="Leave queries.skip_probe out with this model.",
        )
    return prediction.detach().to("cpu", torch.float16)


def refuse_sensitive(policy: Policy) -> None:
    """See that nothing sensitive is learned.

    Raises:
        DnpGuardError: the policy has a sensitive category.
    """
    for category in policy.categories:
        if category.sensitive:
            raise DnpGuardError(
                f"nothing of the sensitive category {category.id!r} may be distilled",
                hint="Train with a policy that leaves it out; where it is asked about, no look is skipped.",
            )
