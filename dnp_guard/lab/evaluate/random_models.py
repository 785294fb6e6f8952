"""Build Stable Diffusion 1.5, SDXL, FLUX.1 and a LLaVA of 2.5 B parameters with random weights, to time them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs import PIPELINE
from dnp_guard.lab.world.models import vlm_processor

if TYPE_CHECKING:
    from collections.abc import Mapping

MODELS = ("sd15", "sdxl", "flux", "tiny-sd15", "tiny-sdxl", "tiny-flux")
"""Names of the models; a ``tiny`` model has the same parts in a size that runs anywhere."""

_POSITIONS, _WORDS = 77, 49408
_SD15 = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "sample_size": 64}
_TINY_SD15 = {
    "block_out_channels": (32, 64),
    "cross_attention_dim": 32,
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
_XL_BLOCKS: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time",
    "use_linear_projection": True,
}
_SDXL = {
    **_XL_BLOCKS,
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
_TINY_SDXL = {
    **_XL_BLOCKS,
    "block_out_channels": (32, 32, 64),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
    "sample_size": 8,
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
_CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_CLIP_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_T5_WORDS, _T5_TOKENS = 32128, 512
_FLUX: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
}
_TINY_FLUX: dict[str, Any] = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}
_T5: dict[str, Any] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_TINY_T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
_CLIP_TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
}


def pipeline(name: str) -> Any:
    """Build a text-to-image pipeline with the architecture and size of a published model, and random weights.

    Args:
        name: one of :data:`MODELS`.

    Raises:
        DnpGuardError: if there is no such model.
    """
    if name not in MODELS:
        raise DnpGuardError(f"there is no model {name!r}", hint=f"Use {', '.join(MODELS)}.")
    tiny = name.startswith("tiny")
    torch.manual_seed(0)
    if name.endswith("flux"):
        return _flux(tiny=tiny)
    if name.endswith("sd15"):
        return StableDiffusionPipeline(
            unet=UNet2DConditionModel(**(_TINY_SD15 if tiny else _SD15)),
            text_encoder=CLIPTextModel(_text(_CLIP_TINY if tiny else _CLIP_L)),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **_shared(tiny=tiny, scaling=0.18215),
        )
    return StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(**(_TINY_SDXL if tiny else _SDXL)),
        text_encoder=CLIPTextModel(_text(_CLIP_TINY if tiny else _CLIP_L)),
        text_encoder_2=CLIPTextModelWithProjection(_text(_CLIP_TINY if tiny else _CLIP_G)),
        tokenizer_2=_tokenizer(),
        add_watermarker=False,
        **_shared(tiny=tiny, scaling=0.13025),
    )


def _flux(*, tiny: bool) -> Any:
    """Build FLUX.1 dev, with a denoiser of 12 B parameters and a T5 of 4.7 B, or a tiny version of it."""
    words = _words()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(guidance_embeds=True, **(_TINY_FLUX if tiny else _FLUX)),
        text_encoder=CLIPTextModel(_text(_CLIP_TINY if tiny else _CLIP_L)),
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=_T5_WORDS, **(_TINY_T5 if tiny else _T5))),
        tokenizer_2=words,
        **{
            **_shared(tiny=tiny, scaling=0.3611, channels=4 if tiny else 16, shift_factor=0.1159),
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=not tiny),
        },
    )


def _words() -> PreTrainedTokenizerFast:
    """Build T5's tokenizer with special tokens only, since the time that T5 takes does not depend on the tokens."""
    backend = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=_T5_TOKENS
    )


def llava(*, tiny: bool = False) -> tuple[Any, Any]:
    """Build a LLaVA of 2.5 B parameters with the vision tower of LLaVA 1.5, and its processor.

    Args:
        tiny: whether to build one of a few thousand parameters instead.

    Returns:
        The model and its processor.
    """
    torch.manual_seed(0)
    side, patch = (28, 14) if tiny else (336, 14)
    processor = vlm_processor()
    processor.patch_size = patch
    processor.image_processor.size = processor.image_processor.crop_size = {"height": side, "width": side}
    processor.tokenizer.model_max_length = 4096
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if not tiny:
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        text = {"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 28, "num_attention_heads": 20}
    network = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=side, patch_size=patch, **vision),
            text_config=LlamaConfig(
                vocab_size=len(processor.tokenizer),
                max_position_embeddings=4096,
                pad_token_id=processor.tokenizer.pad_token_id,
                bos_token_id=processor.tokenizer.bos_token_id,
                eos_token_id=processor.tokenizer.eos_token_id,
                **text,
            ),
            image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            image_seq_length=(side // patch) ** 2,
        )
    )
    return network.eval(), processor


def _shared(*, tiny: bool, scaling: float, channels: int = 4, **more: Any) -> dict[str, Any]:
    """Return autoencoder, tokenizer and scheduler, as keyword arguments of a pipeline."""
    blocks = (16, 16) if tiny else (128, 256, 512, 512)
    return {
        "vae": AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=("DownEncoderBlock2D",) * len(blocks),
            up_block_types=("UpDecoderBlock2D",) * len(blocks),
            layers_per_block=1 if tiny else 2,
            latent_channels=channels,
            norm_num_groups=8 if tiny else 32,
            scaling_factor=scaling,
            **more,
        ),
        "tokenizer": _tokenizer(),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    }


def _tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(PIPELINE / "tokenizer", model_max_length=_POSITIONS)


def _text(sizes: Mapping[str, Any]) -> CLIPTextConfig:
    tokenizer = _tokenizer()
    return CLIPTextConfig(
        vocab_size=_WORDS,
        max_position_embeddings=_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
