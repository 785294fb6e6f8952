"""Build parts that some tiny pipelines cannot take from pipelines of classes with similar names (their kin).

Most functions take the parts of the kin, and return new parts by name.
"""

import torch
from diffusers import (
    AnimaTextConditioner,
    ControlNetXSAdapter,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux3Transformer2DModel,
    Krea2Transformer2DModel,
    UNet2DConditionModel,
    UNet3DConditionModel,
    ZImageControlNetModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLForConditionalGeneration,
)

from tests.hosts.tiny import PIPELINES, newest, parts


def clip_vision(side=32, size=32, kind=CLIPVisionModel, patch=8):
    sizes = {"hidden_size": size, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return kind(CLIPVisionConfig(image_size=side, patch_size=patch, projection_dim=size, **sizes)).eval()


def seeing(side=32, **settings):
    return {
        "image_encoder": clip_vision(side, **settings),
        "image_processor": CLIPImageProcessor(crop_size=side, size=side),
    }


SIZES_3D = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "cross_attention_dim": 32,
}


def unet_3d(_):
    torch.manual_seed(0)
    return {"unet": parts.listening(parts.without_zeros(UNet3DConditionModel(**SIZES_3D)).eval(), 2)}


def controlnet_xs(kin):
    torch.manual_seed(0)
    if kin.get("text_encoder_2") is None:
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(4, 8),
            layers_per_block=2,
            norm_num_groups=4,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            use_linear_projection=True,
        )
    else:
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(4, 8),
            layers_per_block=2,
            norm_num_groups=4,
            attention_head_dim=(2, 4),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=64,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 1),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=80,
        )
    controlnet = ControlNetXSAdapter.from_unet(
        unet=unet,
        size_ratio=0.5 if kin.get("text_encoder_2") is not None else 1.0,
        learn_time_embedding=True,
        conditioning_embedding_out_channels=(2, 2),
        num_attention_heads=2 if kin.get("text_encoder_2") is not None else None,
    )
    return {"unet": parts.listening(unet.eval(), 2), "controlnet": parts.without_zeros(controlnet.eval())}


def z_image_control(kin):
    torch.manual_seed(0)
    control = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=9 if kin.get("mask") else 4,
        add_control_noise_refiner="control_layers",
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    control = parts.without_zeros(control.eval())
    return {"controlnet": ZImageControlNetModel.from_transformer(control, kin["transformer"])}


def padded_left(kin):
    """Set the tokenizer to pad on the left, like Gemma's; return no new parts."""
    kin["tokenizer"].padding_side = "left"
    return {}


def read_small(_):
    """Make a text encoder and a tokenizer with a vocabulary of a few words."""
    config = newest.qwen2_vl()
    torch.manual_seed(0)
    encoder = parts.listening(Qwen2_5_VLForConditionalGeneration(config).eval(), 4)
    return {"text_encoder": encoder, "tokenizer": parts.seeing_words(config).tokenizer}


def deep_qwen3(layers, **more):
    """Make a text encoder with a number of layers, from whose hidden states pipelines read, and its processor."""
    torch.manual_seed(0)
    config = newest.qwen3_vl(num_hidden_layers=layers, **more)
    return parts.listening(Qwen3VLForConditionalGeneration(config).eval(), 2), parts.seeing_words(config)


def krea2(_):
    encoder, processor = deep_qwen3(36)
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=32,
        num_text_layers=12,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
    )
    made = parts.without_zeros(transformer.eval())
    return {"text_encoder": encoder.model, "tokenizer": processor.tokenizer, "transformer": made}


def flux3(flow_map=False):
    def made(_):
        encoder, processor = deep_qwen3(2)
        transformer = Flux3Transformer2DModel(
            in_channels=16,
            cond_in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=64,
            axes_dims_rope=(4, 4, 4, 4),
            timestep_channels=16,
            flow_map=flow_map,
        )
        vae = newest.flux2_vae()
        made = parts.listening(parts.without_zeros(transformer.eval()))
        return {"text_encoder": encoder, "tokenizer": processor, "transformer": made, "vae": vae.eval()}

    return made


def anima(_):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = Qwen3Model(Qwen3Config(vocab_size=64, num_key_value_heads=2, head_dim=16, **sizes)).eval()
    conditioner = AnimaTextConditioner(
        source_dim=32,
        target_dim=32,
        model_dim=32,
        num_layers=1,
        num_attention_heads=2,
        target_vocab_size=64,
        min_sequence_length=16,
    )
    transformer = CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        adaln_lora_dim=4,
        attention_head_dim=16,
        max_size=[4, 32, 32],
        mlp_ratio=2,
        num_attention_heads=2,
        num_layers=1,
        text_embed_dim=32,
        extra_pos_embed_type=None,
    )
    return {
        "text_encoder": parts.listening(encoder, 4),
        "tokenizer": parts.words(),
        "t5_tokenizer": parts.words(),
        "text_conditioner": parts.listening(conditioner.eval(), 2),
        "transformer": parts.listening(parts.without_zeros(transformer.eval()), 2),
        "vae": PIPELINES["QwenImagePipeline"][0]()["vae"].eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
