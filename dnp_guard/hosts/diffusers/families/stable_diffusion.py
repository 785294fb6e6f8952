"""Stable Diffusion 1, 2, XL and 3."""

from __future__ import annotations

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.guidance import rescaled
from dnp_guard.hosts.diffusers.families.row import Family

ROWS = (
    Family(
        name="Stable Diffusion 1 and 2",
        pipelines=frozenset(
            {
                "StableDiffusionControlNetImg2ImgPipeline",
                "StableDiffusionControlNetInpaintPipeline",
                "StableDiffusionControlNetPipeline",
                "StableDiffusionImg2ImgPipeline",
                "StableDiffusionInpaintPipeline",
                "StableDiffusionPipeline",
            }
        ),
        denoisers=("unet",),
        encode=by("encoder_hidden_states"),
        weight=rescaled,
    ),
    Family(
        name="Stable Diffusion XL",
        pipelines=frozenset(
            {
                "StableDiffusionXLControlNetPipeline",
                "StableDiffusionXLImg2ImgPipeline",
                "StableDiffusionXLInpaintPipeline",
                "StableDiffusionXLPipeline",
            }
        ),
        denoisers=("unet",),
        encode=by("encoder_hidden_states", None, "added_cond_kwargs.text_embeds"),
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        weight=rescaled,
        refused=("denoising_end",),
    ),
    Family(
        name="Stable Diffusion 3",
        pipelines=frozenset({"StableDiffusion3Img2ImgPipeline", "StableDiffusion3Pipeline"}),
        encode=by("encoder_hidden_states", None, "pooled_projections"),
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        refused=("skip_guidance_layers",),
    ),
)
