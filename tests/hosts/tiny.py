"""Pipelines of random weights, a few thousand parameters each, and how each class is called for three images."""

from functools import cache

import diffusers
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from dnp_guard.glyphs.loading import load_pipeline

PICTURE = {"image": torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32).repeat(3, 1, 1, 1), "strength": 1.0}
MASKED = {**PICTURE, "mask_image": torch.ones(3, 1, 32, 32)}
TRUE_GUIDANCE = {"true_cfg_scale": 4.0, "negative_prompt": ["", "", ""], "max_sequence_length": 16}
CALLS = {
    "StableDiffusionPipeline": {},
    "StableDiffusionImg2ImgPipeline": PICTURE,
    "StableDiffusionInpaintPipeline": MASKED,
    "StableDiffusionControlNetPipeline": {"image": PICTURE["image"]},
    "StableDiffusionControlNetImg2ImgPipeline": {**PICTURE, "control_image": PICTURE["image"]},
    "StableDiffusionControlNetInpaintPipeline": {**MASKED, "control_image": PICTURE["image"]},
    "StableDiffusionXLControlNetPipeline": {"image": PICTURE["image"]},
    "StableDiffusionXLPipeline": {},
    "StableDiffusionXLImg2ImgPipeline": PICTURE,
    "StableDiffusionXLInpaintPipeline": MASKED,
    "StableDiffusion3Pipeline": {},
    "StableDiffusion3Img2ImgPipeline": PICTURE,
    "PixArtSigmaPipeline": {"use_resolution_binning": False, "clean_caption": False},
    "FluxPipeline": TRUE_GUIDANCE,
    "FluxImg2ImgPipeline": {**PICTURE, **TRUE_GUIDANCE},
    "SanaPipeline": {"use_resolution_binning": False, "clean_caption": False},
}


@cache
def tiny(name):
    """A pipeline of a class, with weights drawn from a fixed seed."""
    torch.manual_seed(0)
    kind = getattr(diffusers, name)
    pipe = kind(**_components(name))
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **arguments):
    """Three images from fixed seeds, as latents or float arrays."""
    wanted = {"num_inference_steps": 8, "guidance_scale": 5.0, "output_type": "np", "height": 32, "width": 32}
    wanted |= CALLS[type(pipe).__name__] | arguments
    if type(pipe).__name__ in {"StableDiffusionImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline"}:
        wanted = {key: value for key, value in wanted.items() if key not in {"height", "width"}}
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    return pipe(["a red circle", "a blue square", "a green cross"], generator=generators, **wanted)[0]


def footprint(pipe):
    """Everything a guard could leave on a pipeline and its parts."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks), sorted(part.__dict__)) for part in parts]
    return type(pipe), sorted(pipe.__dict__), hooks, sorted(set(pipe.scheduler.__dict__) & {"step"})


def _components(name):
    if name.startswith("StableDiffusion3"):
        return _sd3()
    if name.startswith("StableDiffusionXL"):
        return _sdxl(controlnet="ControlNet" in name)
    if name.startswith("StableDiffusion"):
        return _sd(controlnet="ControlNet" in name)
    if name.startswith("Flux"):
        return _flux()
    return _pixart() if name.startswith("PixArt") else _sana()


def _sd(*, controlnet):
    unet = _unet()
    more = {"controlnet": _controlnet(unet)} if controlnet else {}
    return {
        "vae": _vae(),
        "text_encoder": CLIPTextModel(_clip()),
        "tokenizer": _tokenizer(),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **more,
    }


def _sdxl(*, controlnet):
    projected = {"projection_class_embeddings_input_dim": 32 + 6 * 8, "addition_time_embed_dim": 8}
    unet = _unet(cross_attention_dim=64, addition_embed_type="text_time", **projected)
    return {
        "vae": _vae(),
        "text_encoder": CLIPTextModel(_clip()),
        "text_encoder_2": CLIPTextModelWithProjection(_clip()),
        "tokenizer": _tokenizer(),
        "tokenizer_2": _tokenizer(),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        **({"controlnet": _controlnet(unet)} if controlnet else {}),
    }


def _sd3():
    sizes = {"sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    return {
        "vae": _vae(shift_factor=0.1),
        "text_encoder": CLIPTextModelWithProjection(_clip()),
        "text_encoder_2": CLIPTextModelWithProjection(_clip()),
        "text_encoder_3": None,
        "tokenizer": _tokenizer(),
        "tokenizer_2": _tokenizer(),
        "tokenizer_3": None,
        "transformer": SD3Transformer2DModel(**sizes, **heads, joint_attention_dim=64, pooled_projection_dim=64),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _flux():
    sizes = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (4, 4, 8)}
    heads = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    return {
        "vae": _vae(shift_factor=0.1),
        "text_encoder": CLIPTextModel(_clip()),
        "tokenizer": _tokenizer(),
        "text_encoder_2": T5EncoderModel(_t5()),
        "tokenizer_2": _words(),
        "transformer": FluxTransformer2DModel(**sizes, **heads, guidance_embeds=True),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _pixart():
    sizes = {"sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": 1}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "cross_attention_dim": 16, "caption_channels": 32}
    return {
        "vae": _vae(),
        "text_encoder": T5EncoderModel(_t5()),
        "tokenizer": _words(),
        "transformer": PixArtTransformer2DModel(**sizes, **heads, use_additional_conditions=False),
        "scheduler": DPMSolverMultistepScheduler(),
    }


def _sana():
    sizes = {"sample_size": 16, "patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "num_cross_attention_heads": 2}
    return {
        "vae": AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "ResBlock"),
            decoder_block_types=("ResBlock", "ResBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        ),
        "text_encoder": Gemma2Model(
            Gemma2Config(
                vocab_size=64,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=16,
                pad_token_id=0,
            )
        ),
        "tokenizer": _words(),
        "transformer": SanaTransformer2DModel(
            **sizes, **heads, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=32
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _vae(**settings):
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **settings,
    )


def _unet(**settings):
    unet = UNet2DConditionModel(
        **{
            "sample_size": 16,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 32,
            **settings,
        }
    )
    for name, weights in unet.named_parameters():
        if "attn2" in name:  # random weights hardly listen to a prompt
            weights.data *= 4
    return unet


def _controlnet(unet):
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    torch.nn.init.normal_(made.controlnet_mid_block.weight)  # zero until trained
    return made


def _tokenizer():
    return load_pipeline().tokenizer


def _clip():
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 606, "eos_token_id": 607, "pad_token_id": 607}
    return CLIPTextConfig(vocab_size=608, max_position_embeddings=24, projection_dim=32, **sizes, **ends)


def _t5():
    return T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)


def _words():
    words = ["<pad>", "<unk>", "</s>", "a", "red", "blue", "green", "circle", "square", "cross", "star"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=16
    )
