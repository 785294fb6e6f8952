"""Build tiny pipelines of Flux and of models with packed latents like Flux's."""

from functools import partial

from diffusers import (
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxTransformer2DModel,
    OvisImageTransformer2DModel,
    QwenImageControlNetModel,
    QwenImageTransformer2DModel,
)

from tests.hosts.tiny import parts
from tests.hosts.tiny.calls import CONTROL, FROM_PICTURE, INPAINTING, MASKS, PICTURES

SHORT = {"max_sequence_length": 16}
TRUE_GUIDANCE = {"true_cfg_scale": 4.0, "negative_prompt": ["", "", ""], **SHORT}
SIZES = {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32}
BOTH = {**SIZES, "num_single_layers": 1, "axes_dims_rope": (4, 4, 8)}


def flux(*, channels=16, controlnet=False, **more):
    sizes = {**BOTH, "pooled_projection_dim": 32, "guidance_embeds": True}
    control = parts.without_zeros(FluxControlNetModel(**sizes, in_channels=16)) if controlnet else None
    return {
        "vae": parts.vae(shift_factor=0.1),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "text_encoder_2": parts.t5(),
        "tokenizer_2": parts.words(),
        "transformer": FluxTransformer2DModel(**sizes, in_channels=channels, out_channels=16),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **({"controlnet": control} if controlnet else {}),
        **more,
    }


def chroma():
    return {
        "vae": parts.vae(shift_factor=0.1),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(),
        "transformer": ChromaTransformer2DModel(
            **BOTH, in_channels=16, approximator_hidden_dim=32, approximator_layers=1, approximator_num_channels=16
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def ovis():
    return {
        "vae": parts.vae(shift_factor=0.1),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(512),
        "transformer": OvisImageTransformer2DModel(**BOTH, in_channels=16, out_channels=16),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def qwen(*, controlnet=False, more_channels=0, **more):
    sizes = {**SIZES, "in_channels": 16, "out_channels": 4, "axes_dims_rope": (4, 4, 8)}
    control = (
        parts.without_zeros(QwenImageControlNetModel(**sizes, extra_condition_channels=more_channels))
        if controlnet
        else None
    )
    return {
        "vae": AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1] * 4,
            latents_std=[1.5] * 4,
        ),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(1024),
        "transformer": QwenImageTransformer2DModel(**sizes),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **({"controlnet": control} if controlnet else {}),
        **more,
    }


CONTROLLED = partial(flux, controlnet=True)
EDITED = {"image": PICTURES, "max_area": 32 * 32, "_auto_resize": False, **TRUE_GUIDANCE}
PIPELINES = {
    "QwenImageControlNetInpaintPipeline": (
        partial(qwen, controlnet=True, more_channels=4),
        {**CONTROL, "control_mask": MASKS, **TRUE_GUIDANCE},
    ),
    "FluxPipeline": (flux, TRUE_GUIDANCE),
    "FluxImg2ImgPipeline": (flux, {**FROM_PICTURE, **TRUE_GUIDANCE}),
    "FluxInpaintPipeline": (flux, {**INPAINTING, **TRUE_GUIDANCE}),
    "FluxControlNetPipeline": (CONTROLLED, {**CONTROL, **TRUE_GUIDANCE}),
    "FluxControlNetImg2ImgPipeline": (CONTROLLED, {**FROM_PICTURE, **CONTROL, **SHORT}),
    "FluxControlNetInpaintPipeline": (CONTROLLED, {**INPAINTING, **CONTROL, **SHORT}),
    "FluxKontextPipeline": (flux, EDITED),
    "FluxKontextInpaintPipeline": (flux, {**EDITED, **INPAINTING}),
    "FluxControlPipeline": (partial(flux, channels=32), {**CONTROL, **SHORT}),
    "FluxControlImg2ImgPipeline": (partial(flux, channels=32), {**FROM_PICTURE, **CONTROL, **SHORT}),
    "FluxControlInpaintPipeline": (partial(flux, channels=32), {**INPAINTING, **CONTROL, **SHORT}),
    "FluxFillPipeline": (partial(flux, channels=48), {**INPAINTING, **SHORT}),
    "ChromaPipeline": (chroma, SHORT),
    "ChromaImg2ImgPipeline": (chroma, {**FROM_PICTURE, **SHORT}),
    "OvisImagePipeline": (ovis, SHORT),
    "QwenImagePipeline": (qwen, TRUE_GUIDANCE),
    "QwenImageImg2ImgPipeline": (qwen, {**FROM_PICTURE, **TRUE_GUIDANCE}),
    "QwenImageInpaintPipeline": (qwen, {**INPAINTING, **TRUE_GUIDANCE}),
    "QwenImageControlNetPipeline": (partial(qwen, controlnet=True), {**CONTROL, **TRUE_GUIDANCE}),
}
