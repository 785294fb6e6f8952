"""Evaluate a UNet with steering in its cross-attention, by the code for diffusers: the reference for other hosts."""

import torch

from dnp_guard.hosts.diffusers.attending.reading import Reach
from dnp_guard.hosts.diffusers.attending.stages import Crossing, Steered
from dnp_guard.hosts.diffusers.attending.watched import WatchedDenoiser
from dnp_guard.types import InAttention

HOW = InAttention(8.0, 3.0, 0.6)
KEYS = {"phi": HOW.phi, "tau": HOW.tau, "alpha": HOW.alpha}
ATTENTION = {"mode": "attention", "scale": None, "strength": "constant", "hold": 9, "attention": KEYS}
"""The ``guidance`` of a policy that steers in the cross-attention."""


@torch.no_grad()
def attended(unet, x, timestep, context, negatives):
    """Return the output of a UNet that is steered in its cross-attention.

    Args:
        unet: a UNet of diffusers.
        x: its input, [B, C, H, W].
        timestep: its timestep.
        context: the encoded prompts, [B, tokens, width].
        negatives: triples of a row of the batch, the encoded negative [1, tokens, width] and an ``InAttention`` with
            the parameters, in the order in which they steer.
    """
    watched = WatchedDenoiser(unet)
    layers = frozenset(name for name, _ in unet.named_modules() if name.endswith("attn2"))
    steered = [Steered([row], [how], {"encoder_hidden_states": words}) for row, words, how in negatives]
    watched.stage = Crossing(Reach(layers, {}), steered, len(x), None)
    return watched.module(x, timestep, context).sample
