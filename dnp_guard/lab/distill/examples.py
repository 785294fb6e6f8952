"""Collect looks, the training examples of a latent probe, while a guard runs.

A look is an answered query about one image at one step: the latents, and the categories that the model found.
"""

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
    """One look: the latents of an image at one step, and the model's answer about them.

    Attributes:
        latents: x̂0, float16 [C, h, w].
        progress: share of the steps that are done, 0…1.
        found: ids of the categories that the model found, also of those that an allowed case excused.
        image: name of the image; all looks at one image belong to the same part of the data, such as the training part.
    """

    latents: Tensor
    progress: float
    found: frozenset[str]
    image: str


class Watcher:
    """Plugin that collects the looks of a guard in memory, in the order of its decisions."""

    def __init__(self) -> None:
        self.looks: list[Example] = []
        self._latents: Tensor | None = None
        self._requests: dict[str, int] = {}

    @hookimpl
    def dnp_guard_before_query(self, request: str, step: Step | None, images: Sequence[Image]) -> None:
        """Keep the latents of the images that the guard is about to query."""
        self._latents = None if step is None else spatial(step.prediction)

    @hookimpl
    def dnp_guard_after_decision(self, request: str, image: int, step: Step | None, decision: Decision) -> None:
        """Add a look: the latents of one image, and the categories that were found in it."""
        if step is not None and step.total and self._latents is not None:
            found = frozenset(finding.category for finding in (*decision.findings, *decision.waived))
            # Ids differ from run to run; this number does not.
            number = self._requests.setdefault(request, len(self._requests))
            self.looks.append(Example(self._latents[image], step.index / step.total, found, f"{number} {image}"))


def spatial(prediction: Tensor) -> Tensor:
    """Convert latents [B, C, h, w] to the form in which they are stored: float16, on the CPU.

    Raises:
        DnpGuardError: if the latents do not have four dimensions, such as packed latents or those of a video.
    """
    if prediction.ndim != _SPATIAL:
        raise DnpGuardError(
            f"a probe reads latents [B, C, h, w], and the latents of this model have {prediction.ndim} dimensions",
            hint="Leave queries.skip_probe out of the policy for this model.",
        )
    return prediction.detach().to("cpu", torch.float16)


def refuse_sensitive(policy: Policy) -> None:
    """Refuse a policy with a sensitive category, because no probe may learn to recognise one.

    Raises:
        DnpGuardError: if the policy has a sensitive category.
    """
    for category in policy.categories:
        if category.sensitive:
            raise DnpGuardError(
                f"nothing of the sensitive category {category.id!r} may be distilled",
                hint="Train with a policy without this category. Queries about a sensitive category are never skipped.",
            )
