"""Run SAFREE on a pipeline with one CLIP text encoder, or with SDXL's two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from dnp_guard.lab.evaluate.baselines.safree import cosine, kept, last_step, projected, projector
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
    """SAFREE: project the tokens of a prompt that are near the concepts away from them, and add a negative prompt.

    The negative prompt names the concepts. A filter chooses the last step at which the projected embeddings are used;
    it is published for 50 steps, and scaled to the length of the run. With two text encoders there is no filter: the
    projected embeddings are used at every step, as in the released code for SDXL.
    """

    name: ClassVar[str] = "safree"
    mode: ClassVar[str] = "replace"
    scale: ClassVar[None] = None
    sampler: ClassVar[str] = "DDIM"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        return sample(task, seeds, prompts, _Projected(task, [prompt.text for prompt in prompts]))


class _Projected(Course):
    """SAFREE's part in the sampling of a batch, with the projected embeddings of every prompt."""

    def __init__(self, task: Task, texts: Sequence[str]) -> None:
        super().__init__(len(texts))
        self.intervened = [True] * len(texts)
        self.negatives = [listed(task.concepts)] * len(texts)
        p_c = projector(pooled(task.pipe, *tokens(task.pipe, task.concepts)))
        projections = [filtered(task.pipe, p_c, text) for text in texts]
        self._embeddings = torch.stack([embeddings for embeddings, _ in projections])
        self._until = torch.tensor([last * task.steps / _RELEASED_STEPS for _, last in projections])

    def prompts(self, index: int, e_u: Tensor, e_c: Tensor) -> tuple[Tensor, Tensor]:
        early = (index <= self._until).to(e_c.device).view(-1, 1, 1)
        return e_u, torch.where(early, self._embeddings, e_c)


def filtered(pipe: Any, p_c: Tensor, text: str) -> tuple[Tensor, float]:
    """Project those tokens of a prompt that are near the concepts away from them.

    The embeddings of two text encoders lie side by side; only the D features of the last encoder are projected. The
    pooled embedding, which the denoiser also gets, does not change.

    Args:
        pipe: the pipeline.
        p_c: projector onto the concepts, [D, D].
        text: the prompt.

    Returns:
        The embeddings, [L, D] or [L, D_1 + D], and the last of 50 steps at which they are used.
    """
    ids, mask = tokens(pipe, [text])
    words = int(mask.sum())
    own = range(1, words - 1)  # between the marks of beginning and end
    given = embed(pipe, [text])[0]
    if not own:
        return given, 0
    without = mask.repeat(len(own), 1)
    for row, position in enumerate(own):
        without[row, position] = 0
    masked = pooled(pipe, ids.repeat(len(own), 1), without)
    other, before = given[:, : -len(p_c)], given[:, -len(p_c) :].float()
    after = before.clone()
    away = projected(p_c, projector(masked), before)
    for position, stays in zip(own, kept(p_c, masked).tolist(), strict=True):
        if not stays:
            after[position] = away[position]
    last = math.inf if other.shape[1] else last_step(cosine(before[:words], away[:words]))
    return torch.cat([other, after.to(given.dtype)], dim=1), last


def tokens(pipe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokenize texts for the last text encoder; return the token ids and the attention mask, both [n, L]."""
    tokenizer = getattr(pipe, "tokenizer_2", None) or pipe.tokenizer
    encoded = tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids.to(pipe.device), encoded.attention_mask.to(pipe.device)


@torch.no_grad()
def pooled(pipe: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the last text encoder's pooled output, [n, D], in float32, because float16 has no pseudoinverse.

    SDXL's second encoder projects its pooled output; as in the released code, the projection is returned.
    """
    second = getattr(pipe, "text_encoder_2", None)
    if second is not None:
        return second(ids, attention_mask=mask).text_embeds.float()
    return pipe.text_encoder(ids, attention_mask=mask).pooler_output.float()
