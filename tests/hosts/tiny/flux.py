"""Flux, and what is built like it."""

from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from tests.hosts.tiny import parts
from tests.hosts.tiny.calls import FROM_PICTURE

TRUE_GUIDANCE = {"true_cfg_scale": 4.0, "negative_prompt": ["", "", ""], "max_sequence_length": 16}


def flux(*, channels=16, **more):
    sizes = {"in_channels": channels, "out_channels": 16, "num_layers": 1, "num_single_layers": 1}
    heads = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    return {
        "vae": parts.vae(shift_factor=0.1),
        "text_encoder": parts.clip(),
        "tokenizer": parts.clip_tokenizer(),
        "text_encoder_2": parts.t5(),
        "tokenizer_2": parts.words(),
        "transformer": FluxTransformer2DModel(**sizes, **heads, axes_dims_rope=(4, 4, 8), guidance_embeds=True),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **more,
    }


PIPELINES = {
    "FluxPipeline": (flux, TRUE_GUIDANCE),
    "FluxImg2ImgPipeline": (flux, {**FROM_PICTURE, **TRUE_GUIDANCE}),
}
