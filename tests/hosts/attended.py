"""Evaluate a UNet once, steered in its cross-attention as in a diffusers pipeline: the reference for other hosts."""

import torch

from dnp_guard.hosts.diffusers.attending.reading import Reach
from dnp_guard.hosts.diffusers.attending.stages import Crossing, Steered
from dnp_guard.hosts.diffusers.attending.watched import WatchedDenoiser
from dnp_guard.types import InAttention

HOW = InAttention(8.0, 3.0, 0.6)
KEYS = {"phi": HOW.phi, "tau": HOW.tau, "alpha": HOW.alpha}
ATTENTION = {"mode": "attention", "scale": None, "strength": "constant", "hold": 9, "attention": KEYS}
"""The guidance of a policy that steers there."""


@torch.no_grad()
def attended(unet, x, timestep, context, negatives):
    """Return the UNet's output, steered in attention.

    Args:
        unet: of diffusers.
        x: its input, [B, C, H, W].
        timestep: its timestep.
        context: the tokens of the prompts, [B, tokens, width].
        negatives: (row, tokens of the negative [1, tokens, width], InAttention), in the order in which they steer.
    """
    watched = WatchedDenoiser(unet)
    layers = frozenset(name for name, _ in unet.named_modules() if name.endswith("attn2"))
    steered = [Steered([row], [how], {"encoder_hidden_states": words}) for row, words, how in negatives]
    watched.stage = Crossing(Reach(layers, {}), steered, len(x), None)
    return watched.module(x, timestep, context).sample
