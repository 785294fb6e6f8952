"""Build tiny pipelines of Stable Diffusion 1, 2, XL and 3, with ControlNet, adapters and perturbed attention."""

from functools import partial

import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    T2IAdapter,
)

from tests.hosts.tiny import parts
from tests.hosts.tiny.calls import CONTROL, FROM_PICTURE, INPAINTING, MASKS, PICTURES


def sd(*, controlnet=False, adapter=False, **more):
    unet = parts.unet(**more.pop("unet", {}))
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
        **({"adapter": _adapter()} if adapter else {}),
        **more,
    }


def sdxl(*, controlnet=None, adapter=False, **more):
    projected = {"projection_class_embeddings_input_dim": 32 + 6 * 8, "addition_time_embed_dim": 8}
    unet = parts.unet(
        **{"cross_attention_dim": 64, "addition_embed_type": "text_time", **projected, **more.pop("unet", {})}
    )
    return {
        "vae": parts.vae(),
        "text_encoder": parts.clip(),
        "text_encoder_2": parts.projecting_clip(),
        "tokenizer": parts.clip_tokenizer(),
        "tokenizer_2": parts.clip_tokenizer(),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        **({"controlnet": controlnet(unet)} if controlnet else {}),
        **({"adapter": _adapter()} if adapter else {}),
        **more,
    }


def sd3(*, layers=1, channels=4, **more):
    sizes = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": layers,
    }
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    sizes |= {"joint_attention_dim": 64, "pooled_projection_dim": 64}
    controlnet = more.pop("controlnet", None)
    return {
        "vae": parts.vae(shift_factor=0.1, latent_channels=channels),
        "text_encoder": parts.projecting_clip(),
        "text_encoder_2": parts.projecting_clip(),
        "text_encoder_3": None,
        "tokenizer": parts.clip_tokenizer(),
        "tokenizer_2": parts.clip_tokenizer(),
        "tokenizer_3": None,
        "transformer": SD3Transformer2DModel(**sizes, **heads),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **(
            {"controlnet": parts.without_zeros(SD3ControlNetModel(**sizes, **heads, **controlnet))}
            if controlnet is not None
            else {}
        ),
        **more,
    }


def _adapter():
    return T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=2)


def _controlnet(unet):
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    torch.nn.init.normal_(made.controlnet_mid_block.weight)  # zero until trained
    return made


def _union(unet):
    known = {name: unet.config[name] for name in ("block_out_channels", "layers_per_block", "norm_num_groups")}
    known |= {name: unet.config[name] for name in ("down_block_types", "cross_attention_dim", "attention_head_dim")}
    known |= {name: unet.config[name] for name in ("addition_embed_type", "addition_time_embed_dim")}
    made = ControlNetUnionModel(
        **known,
        projection_class_embeddings_input_dim=unet.config["projection_class_embeddings_input_dim"],
        conditioning_embedding_out_channels=(8, 8),
        num_trans_channel=8,
        num_proj_channel=8,
        num_trans_head=2,
    )
    torch.nn.init.normal_(made.controlnet_mid_block.weight)  # zero until trained
    return made


DISTILLED = partial(sd, unet={"time_cond_proj_dim": 8}, scheduler=LCMScheduler())
ADAPTED = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
EDITING = {"unet": {"in_channels": 8}}
CONTROLLED = partial(sd, controlnet=True)
CONTROLLED_XL = partial(sdxl, controlnet=_controlnet)
UNITED = partial(sdxl, controlnet=_union)
PERTURBED = {"pag_applied_layers": ["mid"]}
PERTURBED_3 = {"pag_applied_layers": ["blocks.0"]}
MODE = {"control_mode": [0]}
PIPELINES = {
    "StableDiffusionPipeline": (sd, {}),
    "StableDiffusionImg2ImgPipeline": (sd, FROM_PICTURE),
    "StableDiffusionInpaintPipeline": (sd, INPAINTING),
    "StableDiffusionControlNetPipeline": (CONTROLLED, {"image": PICTURES}),
    "StableDiffusionControlNetImg2ImgPipeline": (CONTROLLED, {**FROM_PICTURE, **CONTROL}),
    "StableDiffusionControlNetInpaintPipeline": (CONTROLLED, {**INPAINTING, **CONTROL}),
    "StableDiffusionAdapterPipeline": (partial(sd, adapter=True, unet=ADAPTED), {"image": PICTURES}),
    "StableDiffusionInstructPix2PixPipeline": (partial(sd, **EDITING), {"image": PICTURES}),
    "LatentConsistencyModelPipeline": (DISTILLED, {}),
    "LatentConsistencyModelImg2ImgPipeline": (DISTILLED, FROM_PICTURE),
    "StableDiffusionPAGPipeline": (partial(sd, **PERTURBED), {}),
    "StableDiffusionPAGImg2ImgPipeline": (partial(sd, **PERTURBED), FROM_PICTURE),
    "StableDiffusionPAGInpaintPipeline": (partial(sd, **PERTURBED), INPAINTING),
    "StableDiffusionControlNetPAGPipeline": (partial(CONTROLLED, **PERTURBED), {"image": PICTURES}),
    "StableDiffusionControlNetPAGInpaintPipeline": (partial(CONTROLLED, **PERTURBED), {**INPAINTING, **CONTROL}),
    "StableDiffusionXLPipeline": (sdxl, {}),
    "StableDiffusionXLImg2ImgPipeline": (sdxl, FROM_PICTURE),
    "StableDiffusionXLInpaintPipeline": (sdxl, INPAINTING),
    "StableDiffusionXLControlNetPipeline": (CONTROLLED_XL, {"image": PICTURES}),
    "StableDiffusionXLControlNetImg2ImgPipeline": (CONTROLLED_XL, {**FROM_PICTURE, **CONTROL}),
    "StableDiffusionXLControlNetInpaintPipeline": (CONTROLLED_XL, {**INPAINTING, **CONTROL}),
    "StableDiffusionXLControlNetUnionPipeline": (UNITED, {"control_image": [PICTURES], **MODE}),
    "StableDiffusionXLControlNetUnionImg2ImgPipeline": (UNITED, {**FROM_PICTURE, "control_image": [PICTURES], **MODE}),
    "StableDiffusionXLControlNetUnionInpaintPipeline": (UNITED, {**INPAINTING, "control_image": [PICTURES], **MODE}),
    "StableDiffusionXLAdapterPipeline": (partial(sdxl, adapter=True, unet=ADAPTED), {"image": PICTURES}),
    "StableDiffusionXLInstructPix2PixPipeline": (partial(sdxl, **EDITING), {"image": PICTURES}),
    "StableDiffusionXLPAGPipeline": (partial(sdxl, **PERTURBED), {}),
    "StableDiffusionXLPAGImg2ImgPipeline": (partial(sdxl, **PERTURBED), FROM_PICTURE),
    "StableDiffusionXLPAGInpaintPipeline": (partial(sdxl, **PERTURBED), INPAINTING),
    "StableDiffusionXLControlNetPAGPipeline": (partial(CONTROLLED_XL, **PERTURBED), {"image": PICTURES}),
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": (
        partial(CONTROLLED_XL, **PERTURBED),
        {**FROM_PICTURE, **CONTROL},
    ),
    "StableDiffusion3Pipeline": (sd3, {}),
    "StableDiffusion3Img2ImgPipeline": (sd3, FROM_PICTURE),
    "StableDiffusion3InpaintPipeline": (partial(sd3, channels=16), INPAINTING),
    "StableDiffusion3ControlNetPipeline": (partial(sd3, controlnet={}), CONTROL),
    "StableDiffusion3ControlNetInpaintingPipeline": (
        partial(sd3, controlnet={"extra_conditioning_channels": 1}),
        {"control_image": PICTURES, "control_mask": MASKS},
    ),
    "StableDiffusion3PAGPipeline": (partial(sd3, layers=2, **PERTURBED_3), {}),
    "StableDiffusion3PAGImg2ImgPipeline": (partial(sd3, layers=2, **PERTURBED_3), FROM_PICTURE),
}
