"""Build tiny text-to-image pipelines of late 2026, whose text encoder is a vision-language model."""

from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage21,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Transformer2DModel,
    LongCatImageTransformer2DModel,
    QwenImage21Transformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLModel
from transformers import Qwen3VLForConditionalGeneration as Qwen3VL

from tests.hosts.tiny import parts

SHORT = {"max_sequence_length": 64}
_TAPPED = 36
"""Number of layers of a text encoder from whose deeper layers a pipeline reads hidden states."""
_NUMBERS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SIGHT = {
    "hidden_size": 16,
    "depth": 1,
    "num_heads": 2,
    "intermediate_size": 16,
    "out_hidden_size": 32,
    "patch_size": 14,
}


def qwen3_vl(**sizes):
    """Return the configuration of a tiny Qwen3-VL; ``sizes`` replace entries of its text model."""
    sections = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    text = {**_TEXT, "rope_parameters": sections, **sizes}
    return Qwen3VLConfig(text_config=text, vision_config={**_SIGHT, "deepstack_visual_indexes": [0]}, **_NUMBERS)


def qwen2_vl():
    """Return the configuration of a tiny Qwen2.5-VL."""
    sections = {"rope_type": "default", "type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    text = {**_TEXT, "rope_parameters": sections}
    return Qwen2_5_VLConfig(text_config=text, vision_config={**_SIGHT, "fullatt_block_indexes": [0]}, **_NUMBERS)


def flux2_vae(**sizes):
    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **sizes,
    )


def ideogram():
    config = qwen3_vl(num_hidden_layers=_TAPPED)
    sizes = {
        "in_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "adaln_dim": 16,
        "llm_features_dim": 13 * 32,
        "mrope_section": (2, 1, 1),
    }
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": flux2_vae(),
        "text_encoder": Qwen3VLModel(config).eval(),
        "tokenizer": parts.seeing_words(config).tokenizer,
        "transformer": parts.without_zeros(Ideogram4Transformer2DModel(**sizes)),
        "unconditional_transformer": parts.without_zeros(Ideogram4Transformer2DModel(**sizes)),
    }


def ernie():
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": flux2_vae(),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(256),
        "transformer": parts.without_zeros(
            ErnieImageTransformer2DModel(
                hidden_size=32,
                num_attention_heads=2,
                num_layers=1,
                ffn_hidden_size=32,
                in_channels=16,
                out_channels=16,
                patch_size=1,
                text_in_dim=32,
                rope_axes_dim=(8, 4, 4),
            )
        ),
    }


def longcat():
    config = qwen2_vl()
    processor = parts.seeing_words(config)
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": parts.vae(latent_channels=16, shift_factor=0.1),
        "text_encoder": parts.listening(Qwen2_5_VLForConditionalGeneration(config).eval(), 4),
        "tokenizer": processor.tokenizer,
        "text_processor": processor,
        "transformer": parts.without_zeros(
            LongCatImageTransformer2DModel(
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=[4, 4, 8],
            )
        ),
    }


def qwen21():
    config = qwen3_vl()
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": AutoencoderKLQwenImage21(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1] * 4,
            latents_std=[1.5] * 4,
        ),
        "text_encoder": parts.listening(Qwen3VL(config).eval(), 4),
        "processor": parts.seeing_words(config),
        "transformer": parts.without_zeros(
            QwenImage21Transformer2DModel(
                in_channels=4,
                out_channels=4,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                context_in_dim=32,
                axes_dims_rope=(4, 4, 8),
            )
        ),
    }


SCHEDULE = {"guidance_schedule": [7.0] * 4}
PIPELINES = {
    "Ideogram4Pipeline": (ideogram, {**SHORT, **SCHEDULE, "guidance_scale": None, "num_inference_steps": 4}),
    "ErnieImagePipeline": (ernie, {"use_pe": False}),
    "LongCatImagePipeline": (longcat, {"enable_prompt_rewrite": False, "negative_prompt": ["", "", ""]}),
    "QwenImage21Pipeline": (
        qwen21,
        {"true_cfg_scale": 4.0, "negative_prompt": ["", "", ""], "use_kv_cache": False},
    ),
}
