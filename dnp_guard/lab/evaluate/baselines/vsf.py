"""Value Sign Flip (arXiv 2508.10931): the negative's tokens are attended beside the prompt's, their values negated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 3.5
"""What its authors run few-step models with."""


def vsf(q: Tensor, k: Tensor, v: Tensor, k_n: Tensor, v_n: Tensor, words: Tensor, scale: float) -> Tensor:
    """softmax(q [k; k_n]) [v; -scale v_n]: one pass over both prompts (sec. 3).

    Args:
        q: queries of the image, [B, heads, positions, d].
        k: keys of the prompt, [B, heads, tokens, d].
        v: its values, [B, heads, tokens, d].
        k_n: keys of the negative, [B, heads, tokens, d].
        v_n: its values, [B, heads, tokens, d].
        words: which of its tokens are attended, [B, tokens]: the marks of beginning, end and padding are not, as they
            draw most of the attention.
        scale: of the negated values.
    """
    attended = torch.cat([torch.ones_like(words[:, :1]).expand(-1, k.shape[2]), words], 1)[:, None, None]
    return F.scaled_dot_product_attention(q, torch.cat([k, k_n], 2), torch.cat([v, -scale * v_n], 2), attended)
