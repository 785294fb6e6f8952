"""Stable Diffusion 1, 2, XL and 3, and what is made of the same parts."""

from __future__ import annotations

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.guidance import rescaled
from dnp_guard.hosts.diffusers.families.row import Family

TWO_ENCODERS = ("vae", "text_encoder", "text_encoder_2", "scheduler")

ROWS = (
    Family(
        name="Stable Diffusion 1 and 2",
        pipelines=frozenset(
            {
                "StableDiffusionAdapterPipeline",
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
        name="Stable Diffusion with perturbed attention",
        pipelines=frozenset(
            {
                "StableDiffusionControlNetPAGInpaintPipeline",
                "StableDiffusionControlNetPAGPipeline",
                "StableDiffusionPAGImg2ImgPipeline",
                "StableDiffusionPAGInpaintPipeline",
                "StableDiffusionPAGPipeline",
            }
        ),
        denoisers=("unet",),
        encode=by("encoder_hidden_states"),
        order="ucp",
        weight=rescaled,
    ),
    Family(
        name="InstructPix2Pix",
        pipelines=frozenset({"StableDiffusionInstructPix2PixPipeline"}),
        denoisers=("unet",),
        encode=by("encoder_hidden_states", method="_encode_prompt"),
        order="cuu",
    ),
    Family(
        name="Latent consistency",
        pipelines=frozenset({"LatentConsistencyModelImg2ImgPipeline", "LatentConsistencyModelPipeline"}),
        denoisers=("unet",),
        encode=by("encoder_hidden_states"),
        order="c",
    ),
    Family(
        name="Stable Diffusion XL",
        pipelines=frozenset(
            {
                "StableDiffusionXLAdapterPipeline",
                "StableDiffusionXLControlNetImg2ImgPipeline",
                "StableDiffusionXLControlNetInpaintPipeline",
                "StableDiffusionXLControlNetPipeline",
                "StableDiffusionXLControlNetUnionImg2ImgPipeline",
                "StableDiffusionXLControlNetUnionInpaintPipeline",
                "StableDiffusionXLControlNetUnionPipeline",
                "StableDiffusionXLImg2ImgPipeline",
                "StableDiffusionXLInpaintPipeline",
                "StableDiffusionXLPipeline",
            }
        ),
        denoisers=("unet",),
        encode=by("encoder_hidden_states", None, "added_cond_kwargs.text_embeds"),
        components=TWO_ENCODERS,
        weight=rescaled,
    ),
    Family(
        name="Stable Diffusion XL with perturbed attention",
        pipelines=frozenset(
            {
                "StableDiffusionXLControlNetPAGImg2ImgPipeline",
                "StableDiffusionXLControlNetPAGPipeline",
                "StableDiffusionXLPAGImg2ImgPipeline",
                "StableDiffusionXLPAGInpaintPipeline",
                "StableDiffusionXLPAGPipeline",
            }
        ),
        denoisers=("unet",),
        encode=by("encoder_hidden_states", None, "added_cond_kwargs.text_embeds"),
        components=TWO_ENCODERS,
        order="ucp",
        weight=rescaled,
    ),
    Family(
        name="InstructPix2Pix XL",
        pipelines=frozenset({"StableDiffusionXLInstructPix2PixPipeline"}),
        denoisers=("unet",),
        encode=by("encoder_hidden_states", None, "added_cond_kwargs.text_embeds"),
        components=TWO_ENCODERS,
        order="cuu",
    ),
    Family(
        name="Stable Diffusion 3",
        pipelines=frozenset(
            {
                "StableDiffusion3ControlNetInpaintingPipeline",
                "StableDiffusion3ControlNetPipeline",
                "StableDiffusion3Img2ImgPipeline",
                "StableDiffusion3InpaintPipeline",
                "StableDiffusion3Pipeline",
            }
        ),
        encode=by("encoder_hidden_states", None, "pooled_projections"),
        components=TWO_ENCODERS,
        refused=("skip_guidance_layers",),
    ),
    Family(
        name="Stable Diffusion 3 with perturbed attention",
        pipelines=frozenset({"StableDiffusion3PAGImg2ImgPipeline", "StableDiffusion3PAGPipeline"}),
        encode=by("encoder_hidden_states", None, "pooled_projections"),
        components=TWO_ENCODERS,
        order="ucp",
    ),
)
