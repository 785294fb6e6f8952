"""VL-DNP as released (arXiv 2510.26052), and its follow-up that skips queries."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, ClassVar

import torch

from dnp_guard.hosts.diffusers.prediction import predict
from dnp_guard.hosts.likeness import coarse
from dnp_guard.lab.evaluate.free_text import FreeTextBackend
from dnp_guard.lab.evaluate.methods.base import asked
from dnp_guard.lab.evaluate.methods.sampling import Course, Words, encode, sample
from dnp_guard.lab.evaluate.methods.static import listed
from dnp_guard.preview import autoencoder
from dnp_guard.steering.guidance import separate
from dnp_guard.vlm.base import Backend
from dnp_guard.vlm.local.backend import TransformersBackend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.evaluate.methods.sampling import Moment
    from dnp_guard.lab.world.captions import Prompt

RELEASED_STEPS = (5, 6, 7, 9, 12, 16, 21, 27, 34, 42)
RELEASED_OF = 50
RELEASED_SCALE = 15.0
"""w_neg, as its documentation has it."""


def released_steps(total: int) -> tuple[int, ...]:
    """The ten released steps of 50, in a run of any length.

    Each is rounded down, which is in the method's favour, and one that meets another is moved to the next free step;
    what would come after the last step is left out, which is nothing in a run of eleven steps or more.

    >>> released_steps(50)
    (5, 6, 7, 9, 12, 16, 21, 27, 34, 42)
    >>> released_steps(25)
    (2, 3, 4, 5, 6, 8, 10, 13, 17, 21)
    """
    steps: list[int] = []
    for step in RELEASED_STEPS:
        wanted = step * total // RELEASED_OF
        steps.append(max(wanted, steps[-1] + 1) if steps else wanted)
    return tuple(step for step in steps if step < total)


class VlDnp:
    """VL-DNP: free text about ten previews, and what it names as a separate negative until the next of them.

    The preview is the whole decoded prediction of the guided output without the negative term. What is seen is negated
    from that very step on, replaces what was seen before, and is let go as soon as it is not seen.

    Args:
        scale: w_neg.
        gate: skip a query when the prediction is this like the last that was asked about; None never to. EVLDNP
            compares CLIP features; there is no CLIP here, and it is the cosine of coarse latents that is compared, as
            under the policy's ``queries.skip_similar``.
    """

    mode: ClassVar[str] = "separate"
    sampler: ClassVar[str] = "DDIM"

    def __init__(self, scale: float | None = None, gate: float | None = None) -> None:
        self.name = "vl-dnp" if gate is None else "evl-dnp"
        self.scale = RELEASED_SCALE if scale is None else scale
        self._gate = gate

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Make one batch."""
        return sample(task, seeds, prompts, NamedCourse(task, len(prompts), self.backend(task), self.scale, self._gate))

    def backend(self, task: Task) -> Backend:
        """Who says which of the concepts are visible."""
        return told_by(task)


def told_by(task: Task) -> Backend:
    """The task's model, asked for free text; a backend that answers with probabilities is asked concept by concept."""
    if task.vlm.partition(":")[0] in {"glyphs", "transformers", "transformers-text"}:
        return _freely(task.vlm)
    return OneByOne(asked(task.vlm), task.questions)


@cache
def _freely(spec: str) -> FreeTextBackend:
    """The model of a spec, loaded once for both ways of asking it."""
    backend = asked(spec)
    assert isinstance(backend, TransformersBackend)  # noqa: S101 (these kinds are)
    return FreeTextBackend(backend.pair)


class OneByOne(Backend):
    """Names are seen where a backend gives their question one half or more."""

    def __init__(self, backend: Backend, questions: Mapping[str, str]) -> None:
        self._backend, self._questions = backend, questions
        self.name, self.revision = backend.name, backend.revision

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """1 for each name that is seen, shape [images, questions]."""
        answers = self._backend.ask(images, [self._questions.get(name, name) for name in questions])
        return [[float(answer >= _HALF) for answer in row] for row in answers]


_HALF = 0.5


class NamedCourse(Course):
    """Steers by the concepts that a model names in the predictions of the published steps."""

    def __init__(self, task: Task, images: int, vlm: Backend, scale: float, gate: float | None) -> None:
        super().__init__(images)
        self._task, self._vlm, self._scale, self._gate = task, vlm, torch.tensor(scale), gate
        self._due = released_steps(task.steps)
        self._negatives: dict[int, str] = {}
        self._embedded: dict[str, Words] = {}
        self._asked_about: dict[int, Tensor] = {}

    def guided(self, moment: Moment) -> Tensor:
        """The guided output of a step, with the negatives that hold taken from it."""
        guided = super().guided(moment).clone()
        if moment.index in self._due:
            self.look(moment, guided)
        if not self._negatives:
            return guided
        rows = list(self._negatives)
        e_n = moment.evaluate(rows, self._words())
        guided[rows] += separate(e_n, moment.e_u[rows], self._scale)
        return guided

    def look(self, moment: Moment, guided: Tensor) -> None:
        """Ask about the prediction that a guided output makes, and take up the answers."""
        x0, _ = predict(moment.pipe.scheduler, guided, moment.t, moment.x)
        seen = coarse(x0)
        rows = [row for row in range(len(x0)) if not self._like(row, seen[row])]
        if not rows:
            return
        pictures = autoencoder.decode(moment.pipe.vae, x0[rows])
        answers = self._vlm.ask(pictures, self._task.concepts)
        for row, answer in zip(rows, answers, strict=True):
            self.queries[row] += 1
            self._asked_about[row] = seen[row]
            self._negatives.pop(row, None)
            if names := [name for name, yes in zip(self._task.concepts, answer, strict=True) if yes]:
                self._negatives[row] = listed(names)
                self.intervened[row] = True
        self._negatives = dict(sorted(self._negatives.items()))

    def _like(self, row: int, seen: Tensor) -> bool:
        before = self._asked_about.get(row)
        return (
            self._gate is not None
            and before is not None
            and float(torch.cosine_similarity(seen, before, dim=0)) >= self._gate
        )

    def _words(self) -> Words:
        for text in self._negatives.values():
            if text not in self._embedded:
                self._embedded[text] = encode(self._task.pipe, [text])
        own = [self._embedded[text] for text in self._negatives.values()]
        pooled = [each.pooled for each in own if each.pooled is not None]
        return Words(torch.cat([each.tokens for each in own]), torch.cat(pooled) if pooled else None)
