"""Put static negative prompts into the denoiser's cross-attention, which needs no further call of the denoiser."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from dnp_guard.lab.evaluate.baselines.vsf import vsf
from dnp_guard.lab.evaluate.methods.sampling import Course, embed, sample
from dnp_guard.lab.evaluate.methods.static import listed
from dnp_guard.steering.attention import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.world.captions import Prompt

SCALE, TAU, ALPHA = 8.0, 3.0, 0.6
"""phi, tau and alpha of NAG, chosen on training prompts: the authors' values 3, 2.5 and 0.25 suppress little here."""

Formula = Literal["nag", "vsf"]


@dataclass(frozen=True, slots=True)
class Attended:
    """Method with a negative prompt in the cross-attention, from the first step to the last.

    Attributes:
        name: name in the table.
        scale: phi of NAG, or VSF's factor of the negated values.
        formula: ``nag`` or ``vsf``.
        right_name: whether the negative names only the forbidden content that the user's prompt asks for, and is absent
            if there is none; else it names all concepts.
    """

    name: str
    scale: float
    formula: Formula = "nag"
    right_name: bool = False
    mode: ClassVar[str] = "attention"
    sampler: ClassVar[str] = "DDIM"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        lists = [prompt.forbidden if self.right_name else task.concepts for prompt in prompts]
        negatives = {row: listed(names) for row, names in enumerate(lists) if names}
        course = _Attending(task.pipe, len(prompts), negatives, self) if negatives else Course(len(prompts))
        return sample(task, seeds, prompts, course)


class _Attending(Course):
    """Part in the sampling of a batch that puts negative prompts into the cross-attention of some images."""

    def __init__(self, pipe: Any, images: int, negatives: dict[int, str], how: Attended) -> None:
        super().__init__(images)
        self.intervened = [row in negatives for row in range(images)]
        self._processor = _Processor(pipe, images, negatives, how)

    @contextmanager
    def attending(self, denoiser: Any) -> Iterator[None]:
        """Put the negative prompts into the cross-attention inside a ``with`` block."""
        before = denoiser.attn_processors
        in_cross_attention = {name: self._processor for name in before if name.endswith("attn2.processor")}
        denoiser.set_attn_processor({**before, **in_cross_attention})
        try:
            yield
        finally:
            denoiser.set_attn_processor(before)


class _Processor:
    """Processor of the cross-attention, with negative prompts for some images.

    Args:
        pipe: a Stable Diffusion pipeline.
        images: B, the size of the batch; the last B rows are the conditional ones.
        negatives: negative prompt per image index; the attention of other images does not change.
        how: method with the formula and the scale.
    """

    def __init__(self, pipe: Any, images: int, negatives: Mapping[int, str], how: Attended) -> None:
        self._images, self._how = images, how
        self._rows = torch.tensor(list(negatives))
        texts = list(negatives.values())
        self._embeddings = embed(pipe, texts)
        own = torch.tensor([len(pipe.tokenizer(text).input_ids) - 1 for text in texts])[:, None]
        position = torch.arange(self._embeddings.shape[1])
        self._words = ((position > 0) & (position < own)).to(self._embeddings.device)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        q, k, v = _heads(attn, hidden_states, encoder_hidden_states)
        z = F.scaled_dot_product_attention(q, k, v)
        at = self._rows.to(z.device) + len(z) - self._images
        _, k_n, v_n = _heads(attn, hidden_states[at], self._embeddings)
        if self._how.formula == "vsf":
            z[at] = vsf(q[at], k[at], v[at], k_n, v_n, self._words, self._how.scale)
        else:
            z_n = F.scaled_dot_product_attention(q[at], k_n, v_n)
            steered = normalised(_joined(z[at]), _joined(z_n), self._how.scale, TAU, ALPHA)
            z[at] = steered.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        out: Tensor = attn.to_out[1](attn.to_out[0](_joined(z)))
        return out


def _heads(attn: Any, image: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = attn.to_q(image), attn.to_k(prompt), attn.to_v(prompt)
    q, k, v = (projection.unflatten(2, (attn.heads, -1)).transpose(1, 2) for projection in (q, k, v))
    return q, k, v


def _joined(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(2)
