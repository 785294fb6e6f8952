"""Stable Diffusion 1, XL and 3."""

from functools import partial

import torch
from diffusers import ControlNetModel, DDIMScheduler, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from tests.hosts.tiny import parts
from tests.hosts.tiny.calls import FROM_PICTURE, INPAINTING, PICTURES


def sd(*, controlnet=False, **more):
    unet = parts.unet()
    return {
        "vae": parts.vae(),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **({"controlnet": _controlnet(unet)} if controlnet else {}),
        **more,
    }


def sdxl(*, controlnet=False, **more):
    projected = {"projection_class_embeddings_input_dim": 32 + 6 * 8, "addition_time_embed_dim": 8}
    unet = parts.unet(cross_attention_dim=64, addition_embed_type="text_time", **projected)
    return {
        "vae": parts.vae(),
        "text_encoder": parts.clip(),
        "text_encoder_2": parts.projecting_clip(),
        "tokenizer": parts.clip_tokenizer(),
        "tokenizer_2": parts.clip_tokenizer(),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        **({"controlnet": _controlnet(unet)} if controlnet else {}),
        **more,
    }


def sd3(**more):
    sizes = {"sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    return {
        "vae": parts.vae(shift_factor=0.1),
        "text_encoder": parts.projecting_clip(),
        "text_encoder_2": parts.projecting_clip(),
        "text_encoder_3": None,
        "tokenizer": parts.clip_tokenizer(),
        "tokenizer_2": parts.clip_tokenizer(),
        "tokenizer_3": None,
        "transformer": SD3Transformer2DModel(**sizes, **heads, joint_attention_dim=64, pooled_projection_dim=64),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **more,
    }


def _controlnet(unet):
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    torch.nn.init.normal_(made.controlnet_mid_block.weight)  # zero until trained
    return made


CONTROLLED = partial(sd, controlnet=True)
CONTROLLED_XL = partial(sdxl, controlnet=True)
PIPELINES = {
    "StableDiffusionPipeline": (sd, {}),
    "StableDiffusionImg2ImgPipeline": (sd, FROM_PICTURE),
    "StableDiffusionInpaintPipeline": (sd, INPAINTING),
    "StableDiffusionControlNetPipeline": (CONTROLLED, {"image": PICTURES}),
    "StableDiffusionControlNetImg2ImgPipeline": (CONTROLLED, {**FROM_PICTURE, "control_image": PICTURES}),
    "StableDiffusionControlNetInpaintPipeline": (CONTROLLED, {**INPAINTING, "control_image": PICTURES}),
    "StableDiffusionXLPipeline": (sdxl, {}),
    "StableDiffusionXLImg2ImgPipeline": (sdxl, FROM_PICTURE),
    "StableDiffusionXLInpaintPipeline": (sdxl, INPAINTING),
    "StableDiffusionXLControlNetPipeline": (CONTROLLED_XL, {"image": PICTURES}),
    "StableDiffusion3Pipeline": (sd3, {}),
    "StableDiffusion3Img2ImgPipeline": (sd3, FROM_PICTURE),
}
