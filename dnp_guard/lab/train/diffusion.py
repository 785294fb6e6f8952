"""Stage 2: train text encoder and denoiser together on latents (v-prediction, Salimans and Ho 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dnp_guard.lab.train.loop import Draw, TrainingPlan
from dnp_guard.lab.world import models

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import CLIPTokenizer

PLAN = TrainingPlan("text to image", samples=640_000, batch=32, learning_rate=1.2e-3, seed=12, hold=0.35, ema=0.9985)
_UNCONDITIONAL = 0.12
"""Share of the samples whose caption is replaced by the empty one."""
_GLYPH_ROWS = slice(2, 6)
"""Latent rows that hold the glyphs. The other rows hold sky and ground, and weigh less in the loss."""


class Denoise:
    """Training task: predict v from noised latents and a caption, which is sometimes dropped."""

    def __init__(self, data: Path, tokenizer: CLIPTokenizer, device: torch.device) -> None:
        saved = torch.load(data, weights_only=True)
        self.latents: Tensor = saved["latents"]
        self.captions: Tensor = saved["captions"]
        self.empty: Tensor = saved["empty"].to(device)
        self.unet = models.unet().to(device)
        self.text = models.text_encoder(tokenizer).to(device)
        self.modules: list[nn.Module] = [self.text, self.unet]
        self.alphas: Tensor = models.scheduler().alphas_cumprod.to(device)
        weight = torch.full((models.LATENT_SIZE,), 0.4)
        weight[_GLYPH_ROWS] = 1.0
        self.weight = (weight / weight.mean()).view(1, 1, -1, 1).to(device)

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the row-weighted squared error of v = sqrt(a) noise - sqrt(1-a) z0."""

        def integers(low: int, high: int) -> Tensor:
            return torch.randint(low, high, (batch,), generator=draw.torch, device=draw.device)

        def chance(p: float) -> Tensor:
            return torch.rand(batch, generator=draw.torch, device=draw.device) < p

        picked = integers(0, len(self.latents)).cpu()
        wording = integers(0, self.captions.shape[1]).cpu()
        z0 = self.latents[picked].to(draw.device)
        tokens = self.captions[picked, wording].long().to(draw.device)
        tokens = torch.where(chance(_UNCONDITIONAL)[:, None], self.empty, tokens)
        t = torch.where(chance(0.35), integers(250, 850), integers(0, 1000))
        noise = torch.randn(z0.shape, generator=draw.torch, device=draw.device)
        alpha = self.alphas[t].sqrt()[:, None, None, None]
        sigma = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        hidden = self.text(tokens).last_hidden_state
        v = self.unet(alpha * z0 + sigma * noise, t, hidden, return_dict=False)[0]
        return (self.weight * (v - (alpha * noise - sigma * z0)).square()).mean()
