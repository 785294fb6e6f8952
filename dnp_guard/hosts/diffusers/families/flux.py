"""Flux and what is built like it: packed latents, each branch an evaluation of its own."""

from __future__ import annotations

from functools import partial

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.guidance import always_normalised
from dnp_guard.hosts.diffusers.families.latents import from_patches, to_patches
from dnp_guard.hosts.diffusers.families.row import Family

_packed = partial(
    Family,
    batched=False,
    order="cu",
    unpack=from_patches,
    pack=to_patches,
    needs_arguments=True,
)
_flux = partial(
    _packed,
    encode=by("encoder_hidden_states", "pooled_projections"),
    components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
)

ROWS = (
    _flux(
        name="Flux",
        pipelines=frozenset(
            {
                "FluxControlNetPipeline",
                "FluxImg2ImgPipeline",
                "FluxInpaintPipeline",
                "FluxKontextInpaintPipeline",
                "FluxKontextPipeline",
                "FluxPipeline",
            }
        ),
        scale="true_cfg_scale",
        implied=False,
    ),
    _flux(
        name="Flux of distilled guidance",
        pipelines=frozenset(
            {
                "FluxControlImg2ImgPipeline",
                "FluxControlInpaintPipeline",
                "FluxControlNetImg2ImgPipeline",
                "FluxControlNetInpaintPipeline",
                "FluxControlPipeline",
                "FluxFillPipeline",
            }
        ),
        order="c",
    ),
    _packed(
        name="Chroma",
        pipelines=frozenset({"ChromaImg2ImgPipeline", "ChromaPipeline"}),
        encode=by("encoder_hidden_states", None, "attention_mask"),
        leading=("attention_mask",),
    ),
    _packed(
        name="Ovis",
        pipelines=frozenset({"OvisImagePipeline"}),
        encode=by("encoder_hidden_states"),
    ),
    _packed(
        name="Qwen",
        pipelines=frozenset(
            {
                "QwenImageControlNetInpaintPipeline",
                "QwenImageControlNetPipeline",
                "QwenImageImg2ImgPipeline",
                "QwenImageInpaintPipeline",
                "QwenImagePipeline",
            }
        ),
        encode=by("encoder_hidden_states", "encoder_hidden_states_mask"),
        scale="true_cfg_scale",
        implied=False,
        weight=always_normalised,
        fixed=False,
    ),
)
