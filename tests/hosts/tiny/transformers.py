"""Build tiny text-to-image pipelines whose denoiser is a transformer."""

from functools import partial

from diffusers import (
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    CogView3PlusTransformer2DModel,
    CogView4Transformer2DModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DControlNetModel,
    HunyuanDiT2DModel,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    PixArtTransformer2DModel,
    SanaControlNetModel,
    SanaTransformer2DModel,
    SCMScheduler,
    ZImageTransformer2DModel,
)
from transformers import BertConfig, BertModel

from tests.hosts.tiny import parts
from tests.hosts.tiny.calls import FROM_PICTURE, INPAINTING, PICTURES

PLAIN = {"use_resolution_binning": False, "clean_caption": False}
SIZES = {"sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1}
HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}


def pixart(**more):
    return {
        "vae": parts.vae(),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(),
        "transformer": PixArtTransformer2DModel(
            **{**SIZES, "out_channels": 8},
            **HEADS,
            cross_attention_dim=16,
            caption_channels=32,
            use_additional_conditions=False,
        ),
        "scheduler": DPMSolverMultistepScheduler(),
        **more,
    }


def sana(*, controlnet=False, **more):
    sizes = {
        **SIZES,
        **HEADS,
        "patch_size": 1,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 32,
    }
    if controlnet:
        more["controlnet"] = parts.without_zeros(SanaControlNetModel(**sizes))
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
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(),
        "transformer": SanaTransformer2DModel(**sizes),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **more,
    }


def auraflow():
    return {
        "vae": parts.vae(),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(256),
        "transformer": parts.listening(
            AuraFlowTransformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_mmdit_layers=1,
                num_single_dit_layers=1,
                **HEADS,
                caption_projection_dim=16,
                joint_attention_dim=32,
                pos_embed_max_size=64,
            )
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.73),
    }


def hunyuan_dit(*, controlnet=False, **more):
    sizes = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        **HEADS,
        "hidden_size": 16,
        "cross_attention_dim": 32,
        "cross_attention_dim_t5": 32,
        "pooled_projection_dim": 16,
        "activation_fn": "gelu-approximate",
    }
    if controlnet:
        made = HunyuanDiT2DControlNetModel(**sizes, transformer_num_layers=4)
        more["controlnet"] = parts.without_zeros(made)
    bert = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return {
        "vae": parts.vae(4),
        "text_encoder": BertModel(bert),
        "tokenizer": parts.words(77),
        "text_encoder_2": parts.t5(),
        "tokenizer_2": parts.words(256),
        "transformer": HunyuanDiT2DModel(**sizes, num_layers=4 if controlnet else 2),
        "scheduler": DDPMScheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **more,
    }


def cogview4(channels=4, **more):
    return {
        "vae": parts.vae(),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(1024),
        "transformer": CogView4Transformer2DModel(
            patch_size=2,
            in_channels=channels,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=32,
            time_embed_dim=8,
            condition_dim=4,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
        ),
        **more,
    }


def lumina2():
    return {
        "vae": parts.vae(4, shift_factor=0.1),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(256),
        "transformer": parts.without_zeros(
            Lumina2Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=4,
                hidden_size=16,
                num_layers=1,
                num_refiner_layers=1,
                num_attention_heads=2,
                num_kv_heads=2,
                multiple_of=16,
                axes_dim_rope=(4, 2, 2),
                axes_lens=(300, 32, 32),
                cap_feat_dim=32,
            )
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def z_image(**more):
    return {
        "vae": parts.vae(shift_factor=0.1),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(512),
        "transformer": parts.without_zeros(
            ZImageTransformer2DModel(
                all_patch_size=(2,),
                all_f_patch_size=(1,),
                in_channels=4,
                dim=32,
                n_layers=1,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=32,
                axes_dims=[8, 4, 4],
                axes_lens=[256, 32, 32],
            )
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **more,
    }


def cogview3():
    return {
        "vae": parts.vae(),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(224),
        "transformer": CogView3PlusTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=32,
            time_embed_dim=8,
            condition_dim=4,
            pos_embed_max_size=32,
        ),
        "scheduler": DDIMScheduler(clip_sample=False),
    }


def lumina():
    return {
        "vae": parts.vae(4),
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(256),
        "transformer": parts.without_zeros(
            LuminaNextDiT2DModel(
                sample_size=4,
                patch_size=2,
                in_channels=4,
                hidden_size=16,
                num_layers=1,
                num_attention_heads=2,
                num_kv_heads=2,
                multiple_of=16,
                cross_attention_dim=32,
            )
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def sprint():
    transformer = SanaTransformer2DModel(
        **{**SIZES, "patch_size": 1},
        **HEADS,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
        qk_norm="rms_norm_across_heads",
        guidance_embeds=True,
    )
    return sana(transformer=transformer, scheduler=SCMScheduler())


SHORT = {"max_sequence_length": 16}
PIPELINES = {
    "PixArtSigmaPipeline": (pixart, PLAIN),
    "SanaPipeline": (sana, PLAIN),
    "AuraFlowPipeline": (auraflow, SHORT),
    "HunyuanDiTPipeline": (hunyuan_dit, {"use_resolution_binning": False}),
    "CogView4Pipeline": (cogview4, SHORT),
    "Lumina2Pipeline": (lumina2, SHORT),
    "ZImagePipeline": (z_image, SHORT),
    "ZImageImg2ImgPipeline": (z_image, {**FROM_PICTURE, **SHORT}),
    "ZImageInpaintPipeline": (z_image, {**INPAINTING, **SHORT}),
    "PixArtAlphaPipeline": (pixart, PLAIN),
    "PixArtSigmaPAGPipeline": (partial(pixart, pag_applied_layers=["blocks.0"]), PLAIN),
    "SanaPAGPipeline": (partial(sana, pag_applied_layers=["transformer_blocks.0"]), PLAIN),
    "HunyuanDiTPAGPipeline": (partial(hunyuan_dit, pag_applied_layers=["blocks.1"]), {"use_resolution_binning": False}),
    "CogView4ControlPipeline": (partial(cogview4, channels=8), {**SHORT, "control_image": PICTURES}),
    "CogView3PlusPipeline": (cogview3, {"max_sequence_length": 224}),
    "LuminaPipeline": (lumina, {"clean_caption": False}),
    "SanaSprintPipeline": (sprint, {**PLAIN, "num_inference_steps": 8, "intermediate_timesteps": None}),
    "SanaSprintImg2ImgPipeline": (sprint, {**PLAIN, **FROM_PICTURE, "intermediate_timesteps": None}),
    "SanaControlNetPipeline": (partial(sana, controlnet=True), {**PLAIN, "control_image": PICTURES}),
    "HunyuanDiTControlNetPipeline": (
        partial(hunyuan_dit, controlnet=True),
        {"use_resolution_binning": False, "control_image": PICTURES},
    ),
}
