"""Build tiny text-to-video pipelines."""

from functools import partial

from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    LatteTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    MotionAdapter,
    SanaVideoTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)

from tests.hosts.tiny import parts
from tests.hosts.tiny.calls import CLIP, PICTURES
from tests.hosts.tiny.stable_diffusion import sd, sdxl

SHORT = {"max_sequence_length": 16}
FRAMES = {"num_frames": 9}


def wan(transformer=WanTransformer3DModel, **more):
    return {
        "vae": AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1] * 4,
            latents_std=[1.5] * 4,
        ),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(512),
        "transformer": transformer(
            **{
                "num_attention_heads": 2,
                "attention_head_dim": 12,
                "in_channels": 4,
                "out_channels": 4,
                "text_dim": 32,
                "freq_dim": 32,
                "ffn_dim": 32,
                "num_layers": 1,
                "rope_max_seq_len": 32,
                **more.pop("sizes", {}),
            }
        ),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        **more,
    }


def ltx():
    return {
        "vae": AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False, False, False, False, False),
            upsample_residual=(False, False, False, False),
            upsample_factor=(1, 1, 1, 1),
            patch_size=1,
            patch_size_t=1,
        ),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(512),
        "transformer": LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=1,
            caption_channels=32,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def cogvideox(channels=4):
    blocks = 4
    return {
        "vae": AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * blocks,
            up_block_types=("CogVideoXUpBlock3D",) * blocks,
            block_out_channels=(8,) * blocks,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(256),
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=channels,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            max_text_seq_length=16,
        ),
        "scheduler": CogVideoXDDIMScheduler(),
    }


def animatediff(made=sd, **more):
    parts_of = made(**more)
    for name in ("safety_checker", "requires_safety_checker"):
        parts_of.pop(name, None)
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        use_motion_mid_block=True,
    )
    return {**parts_of, "motion_adapter": parts.without_zeros(adapter)}


def mochi():
    return {
        "vae": AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            latents_mean=[0.1] * 12,
            latents_std=[1.5] * 12,
        ),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(256),
        "transformer": MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=32,
            time_embed_dim=4,
            max_sequence_length=16,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def latte():
    return {
        "vae": parts.vae(),
        "text_encoder": parts.t5(),
        "tokenizer": parts.words(120),
        "transformer": LatteTransformer3DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=32,
            norm_type="ada_norm_single",
            num_embeds_ada_norm=1000,
            norm_elementwise_affine=False,
            video_length=4,
        ),
        "scheduler": DDIMScheduler(clip_sample=False),
    }


def sana_video():
    parts_of = wan()
    transformer = SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=32,
        sample_size=4,
        patch_size=(1, 2, 2),
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    return {
        **parts_of,
        "text_encoder": parts.gemma(),
        "tokenizer": parts.words(512),
        "transformer": transformer,
        "scheduler": DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


PIPELINES = {
    "SanaVideoPipeline": (
        sana_video,
        {
            "frames": 9,
            "use_resolution_binning": False,
            "clean_caption": False,
            "complex_human_instruction": [],
            **SHORT,
        },
    ),
    "SkyReelsV2Pipeline": (partial(wan, SkyReelsV2Transformer3DModel), {**FRAMES, **SHORT}),
    "CogVideoXFunControlPipeline": (partial(cogvideox, 8), {"control_video": CLIP, **SHORT}),
    "WanPipeline": (wan, {**FRAMES, **SHORT}),
    "WanVideoToVideoPipeline": (wan, {"video": CLIP, "strength": 1.0, **SHORT}),
    "WanImageToVideoPipeline": (
        partial(wan, sizes={"in_channels": 12, "image_dim": None}),
        {"image": CLIP[0][0], **FRAMES, **SHORT},
    ),
    "LTXPipeline": (ltx, {**FRAMES, **SHORT}),
    "LTXImageToVideoPipeline": (ltx, {"image": PICTURES, **FRAMES, **SHORT}),
    "CogVideoXPipeline": (cogvideox, {**FRAMES, **SHORT}),
    "CogVideoXImageToVideoPipeline": (partial(cogvideox, 8), {"image": PICTURES, **FRAMES, **SHORT}),
    "CogVideoXVideoToVideoPipeline": (cogvideox, {"video": CLIP, "strength": 1.0, **SHORT}),
    "AnimateDiffPipeline": (animatediff, {"num_frames": 3}),
    "AnimateDiffSDXLPipeline": (partial(animatediff, sdxl), {"num_frames": 3}),
    "AnimateDiffPAGPipeline": (partial(animatediff, pag_applied_layers=["mid"]), {"num_frames": 3}),
    "AnimateDiffVideoToVideoPipeline": (animatediff, {"video": [frames[:4] for frames in CLIP], "strength": 1.0}),
    "MochiPipeline": (mochi, {"num_frames": 7, **SHORT}),
    "LattePipeline": (latte, {"video_length": 4, "clean_caption": False}),
}
