"""Define the interface of a method of the comparison, its task and its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from dnp_guard.vlm.plugin import build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.lab.evaluate.detector import Detector
    from dnp_guard.lab.world.captions import Prompt
    from dnp_guard.vlm.base import Backend


@dataclass(frozen=True, slots=True)
class Made:
    """One image that a method generated.

    Attributes:
        image: the steered image, before any final action.
        delivered: the image that would be delivered; the same object if the method took no action.
        outcome: outcome that the guard reports, such as ``steered``; None for a baseline.
        queries: number of queries about the image, that of the finished image included.
        evaluations: number of evaluations of the denoiser; without a guard, two per step with classifier-free guidance.
        intervened: whether the method changed anything: a negative at any step, or a final action.
        degraded: reasons why the guard could not do its job for this batch.
        attempts: number of times that the image was generated.
        withheld: whether the image is not delivered.
    """

    image: Image
    delivered: Image
    outcome: str | None
    queries: int
    evaluations: float
    intervened: bool
    degraded: tuple[str, ...] = ()
    attempts: int = 1
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """Inputs that all methods of a comparison share.

    Attributes:
        pipe: the pipeline.
        steps: number of steps of the sampler.
        guidance_scale: scale of classifier-free guidance.
        concepts: names of forbidden content, for static negative prompts.
        detector: the evaluation detector, for the oracle only.
        vlm: spec of the backend that answers queries.
        questions: question per concept, for a backend that answers with probabilities; a concept without one is asked
            about by its name.
        pictures: one picture per prompt, for a model that edits; else empty.
    """

    pipe: Any
    steps: int
    guidance_scale: float
    concepts: tuple[str, ...]
    detector: Detector | None = None
    vlm: str = "glyphs"
    questions: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[Image, ...] = ()


@cache
def asked(spec: str) -> Backend:
    """Return the VLM backend that a spec names, built once per process and shared by all methods."""
    return build(spec)


class Method(Protocol):
    """A way to generate images of prompts that may lead to forbidden content."""

    @property
    def name(self) -> str:
        """Name in the table of results."""
        ...

    @property
    def mode(self) -> str | None:
        """How the negative prompt enters the guidance; None if there is none."""
        ...

    @property
    def scale(self) -> float | None:
        """Scale of the negative prompt; None if there is none."""
        ...

    @property
    def sampler(self) -> str:
        """Sampler: ``DDIM``, or ``DDPM`` if the method needs stochastic sampling, which changes every image."""
        ...

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch.

        Args:
            task: inputs that all methods share.
            seeds: one seed per image. Image i starts from ``torch.Generator().manual_seed(seeds[i])``, so a method that
                changes nothing returns the same image as ``task.pipe(...)``, bit for bit.
            prompts: one prompt per image.

        Returns:
            One result per prompt, in their order.
        """
        ...
