"""Run VL-DNP as released (arXiv 2510.26052), and its follow-up EVLDNP, which skips queries."""

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
"""w_neg in the documentation of the release."""


def released_steps(total: int) -> tuple[int, ...]:
    """Scale VL-DNP's ten query steps, published for runs of 50 steps, to a run of any length.

    Steps are rounded down, which favours the method. If a step is already in the list, the next free one is taken; if
    the run has none, the step is left out. No step is left out in a run of eleven steps or more.

    >>> released_steps(50)
    (5, 6, 7, 9, 12, 16, 21, 27, 34, 42)
    >>> released_steps(25)
    (2, 3, 4, 5, 6, 8, 10, 13, 17, 21)
    """
    steps: list[int] = []
    for step in RELEASED_STEPS:
        scaled = step * total // RELEASED_OF
        steps.append(max(scaled, steps[-1] + 1) if steps else scaled)
    return tuple(step for step in steps if step < total)


class VlDnp:
    """VL-DNP: a VLM names the concepts in a preview, in free text; they are the negative prompt until the next preview.

    A preview is the decoded prediction of the guided output without the negative term, at each of the steps of
    :func:`released_steps`. The named concepts enter as a separate negative term from that step on, and replace those of
    the preview before.

    Args:
        scale: w_neg; None for the released one.
        gate: similarity of the prediction to the last one queried, 0 to 1, from which on a query is skipped; None to
            skip none. EVLDNP compares CLIP features. This implementation compares coarse latents by their cosine, as
            the policy's ``queries.skip_similar`` does.
    """

    mode: ClassVar[str] = "separate"
    sampler: ClassVar[str] = "DDIM"

    def __init__(self, scale: float | None = None, gate: float | None = None) -> None:
        self.name = "vl-dnp" if gate is None else "evl-dnp"
        self.scale = RELEASED_SCALE if scale is None else scale
        self._gate = gate

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        return sample(task, seeds, prompts, NamedCourse(task, len(prompts), self.backend(task), self.scale, self._gate))

    def backend(self, task: Task) -> Backend:
        """Return the backend that names the visible concepts."""
        return naming_backend(task)


def naming_backend(task: Task) -> Backend:
    """Return a backend that asks the task's VLM in free text which concepts are visible.

    A VLM that can only answer with probabilities is asked about the concepts one by one instead.
    """
    if task.vlm.partition(":")[0] in {"glyphs", "transformers", "transformers-text"}:
        return _freely(task.vlm)
    return OneByOne(asked(task.vlm), task.questions)


@cache
def _freely(spec: str) -> FreeTextBackend:
    """Return a free-text backend of the model that a spec names; :func:`asked` loads the model."""
    backend = asked(spec)
    assert isinstance(backend, TransformersBackend)  # noqa: S101 (these kinds are)
    return FreeTextBackend(backend.pair)


class OneByOne(Backend):
    """Backend that names those concepts whose question another backend answers with a probability of at least 1/2.

    Args:
        backend: backend that answers with probabilities.
        questions: question per concept; a concept without one is asked about by its name.
    """

    def __init__(self, backend: Backend, questions: Mapping[str, str]) -> None:
        self._backend, self._questions = backend, questions
        self.name, self.revision = backend.name, backend.revision

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Return 1 for every concept that is seen, else 0; shape [images, questions].

        Args:
            images: pictures.
            questions: names of the concepts.
        """
        answers = self._backend.ask(images, [self._questions.get(name, name) for name in questions])
        return [[float(answer >= _HALF) for answer in row] for row in answers]


_HALF = 0.5


class NamedCourse(Course):
    """VL-DNP's part in the sampling of a batch: steering away from the concepts that a VLM names in the previews."""

    def __init__(self, task: Task, images: int, vlm: Backend, scale: float, gate: float | None) -> None:
        super().__init__(images)
        self._task, self._vlm, self._scale, self._gate = task, vlm, torch.tensor(scale), gate
        self._due = released_steps(task.steps)
        self._negatives: dict[int, str] = {}
        self._embedded: dict[str, Words] = {}
        self._asked_about: dict[int, Tensor] = {}

    def guided(self, moment: Moment) -> Tensor:
        """Return the guided output of a step, steered away from the concepts that were named last."""
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
        """Query the VLM about the prediction of a guided output; make the named concepts the negative prompt."""
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
        pooled = [words.pooled for words in own if words.pooled is not None]
        return Words(torch.cat([words.tokens for words in own]), torch.cat(pooled) if pooled else None)
