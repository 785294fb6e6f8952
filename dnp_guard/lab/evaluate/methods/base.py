"""What a method of the comparison is, and what it makes."""

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
    """One image by one method.

    Attributes:
        image: as it was steered, the final action off.
        delivered: what would be delivered; the same image where a method takes no action.
        outcome: what the guard made of it; None for a baseline.
        queries: how often a vision-language model was asked about it, the final look included.
        evaluations: of the denoiser, counted: two a step unguarded.
        intervened: whether anything was changed: a negative at any step, or a final action.
        degraded: reasons for which the guard could not do its job, in the batch it was made in.
        attempts: how often it was made.
        withheld: whether it is not delivered.
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
    """What all methods of a comparison share.

    Attributes:
        pipe: the pipeline.
        steps: of the sampler.
        guidance_scale: of classifier-free guidance.
        concepts: names of what must not be drawn, for the static lists.
        detector: the evaluation detector, for the oracle only.
        vlm: spec of the backend that is asked.
        questions: by concept, what a backend of probabilities is asked; the concept's name for any other.
        pictures: one per prompt, for a model that edits.
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
    """The backend of a spec, which all methods of a process share."""
    return build(spec)


class Method(Protocol):
    """A way of making images of prompts that may draw what is forbidden."""

    @property
    def name(self) -> str:
        """As the table of results has it."""
        ...

    @property
    def mode(self) -> str | None:
        """How its negative enters the guidance; None where it has no such thing."""
        ...

    @property
    def scale(self) -> float | None:
        """The scale of its negative; None where it has none."""
        ...

    @property
    def sampler(self) -> str:
        """``DDIM``, or ``DDPM`` where the method needs stochastic sampling and so changes every image."""
        ...

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Make one batch.

        Args:
            task: what all methods share.
            seeds: image i is made from ``torch.Generator().manual_seed(seeds[i])``, so that a method that changes
                nothing gives the very image of ``task.pipe(...)``.
            prompts: as many.
        """
        ...
