"""Value Sign Flip (arXiv 2508.10931): attend to prompt and negative together, with the negative's values negated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 3.5
"""Scale with which its authors run few-step models."""


def vsf(q: Tensor, k: Tensor, v: Tensor, k_n: Tensor, v_n: Tensor, words: Tensor, scale: float) -> Tensor:
    """Attend to both prompts in one pass: softmax(q [k; k_n]) [v; -scale v_n] (sec. 3).

    Args:
        q: queries of the image, [B, heads, positions, d].
        k: keys of the prompt, [B, heads, tokens, d].
        v: values of the prompt, [B, heads, tokens, d].
        k_n: keys of the negative, [B, heads, tokens, d].
        v_n: values of the negative, [B, heads, tokens, d].
        words: mask of the negative's tokens to attend to, bool [B, tokens]. It leaves out the tokens for beginning, end
            and padding, which attract most of the attention.
        scale: factor of the negated values.

    Returns:
        The output of the attention, [B, heads, positions, d].
    """
    attended = torch.cat([torch.ones_like(words[:, :1]).expand(-1, k.shape[2]), words], 1)[:, None, None]
    return F.scaled_dot_product_attention(q, torch.cat([k, k_n], 2), torch.cat([v, -scale * v_n], 2), attended)
