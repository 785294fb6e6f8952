"""Flux and what is built like it: packed latents, each branch an evaluation of its own."""

from __future__ import annotations

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.latents import from_patches
from dnp_guard.hosts.diffusers.families.row import Family

ROWS = (
    Family(
        name="Flux",
        pipelines=frozenset({"FluxImg2ImgPipeline", "FluxPipeline"}),
        encode=by("encoder_hidden_states", "pooled_projections"),
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        batched=False,
        order="cu",
        scale="true_cfg_scale",
        implied=False,
        unpack=from_patches,
        needs_arguments=True,
        output_types=("pil", "np", "pt"),
    ),
)
