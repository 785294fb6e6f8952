"""SAFREE on a pipeline with one CLIP text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from dnp_guard.lab.evaluate.baselines.safree import kept, last_step, projected, projector
from dnp_guard.lab.evaluate.methods.sampling import Course, embed, sample
from dnp_guard.lab.evaluate.methods.static import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.world.captions import Prompt

_RELEASED_STEPS = 50


@dataclass(frozen=True, slots=True)
class Safree:
    """The prompt's tokens near the concepts are projected away from them, and the list is an ordinary negative too.

    The last step that the filter allows is the same share of the run as of the 50 steps it was published for.
    """

    name: ClassVar[str] = "safree"
    mode: ClassVar[str] = "replace"
    scale: ClassVar[None] = None
    sampler: ClassVar[str] = "DDIM"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Make one batch."""
        return sample(task, seeds, prompts, _Projected(task, [prompt.text for prompt in prompts]))


class _Projected(Course):
    def __init__(self, task: Task, texts: Sequence[str]) -> None:
        super().__init__(len(texts))
        self.intervened = [True] * len(texts)
        self._negative = embed(task.pipe, [listed(task.concepts)])
        p_c = projector(pooled(task.pipe, *tokens(task.pipe, task.concepts)))
        found = [filtered(task.pipe, p_c, text) for text in texts]
        self._embeddings = torch.stack([embeddings for embeddings, _ in found])
        self._until = torch.tensor([last * task.steps / _RELEASED_STEPS for _, last in found])

    def prompts(self, index: int, e_u: Tensor, e_c: Tensor) -> tuple[Tensor, Tensor]:
        early = (index <= self._until).to(e_c.device).view(-1, 1, 1)
        return self._negative.expand_as(e_u), torch.where(early, self._embeddings, e_c)


def filtered(pipe: Any, p_c: Tensor, text: str) -> tuple[Tensor, int]:
    """A prompt's embeddings [L, D] with its dangerous tokens projected, and the last step of 50 to use them at."""
    ids, mask = tokens(pipe, [text])
    own = range(1, int(mask.sum()) - 1)  # between the marks of beginning and end
    without = mask.repeat(len(own), 1)
    for row, position in enumerate(own):
        without[row, position] = 0
    masked = pooled(pipe, ids.repeat(len(own), 1), without)
    given = embed(pipe, [text])[0]
    before = given.float()
    after = before.clone()
    away = projected(p_c, projector(masked), before)
    for position, stays in zip(own, kept(p_c, masked).tolist(), strict=True):
        if not stays:
            after[position] = away[position]
    cosine = torch.cosine_similarity(before[own.start : own.stop], after[own.start : own.stop], dim=1)
    return after.to(given.dtype), last_step(float(cosine.mean()))


def tokens(pipe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The token ids of some texts and the mask of those that are words, [n, L] each."""
    encoded = pipe.tokenizer(
        list(texts),
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids.to(pipe.device), encoded.attention_mask.to(pipe.device)


@torch.no_grad()
def pooled(pipe: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The text encoder's pooled output, [n, D], in single precision: half has no pseudoinverse."""
    return pipe.text_encoder(ids, attention_mask=mask).pooler_output.float()
