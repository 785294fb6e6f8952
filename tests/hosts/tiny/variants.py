"""Tiny pipelines that differ from their kin by a part or an argument: what is put in the place of what is known."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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

from tests.hosts.tiny import PIPELINES, newest, of_diffusers, parts
from tests.hosts.tiny.calls import CLIP, PICTURE, PICTURES


@dataclass(frozen=True)
class Variant:
    """How the tiny one of a class is made.

    Attributes:
        like: the class that its parts are first looked for in; its nearest kin by default.
        resized: for parts of its kin, the settings that are others.
        made: parts of its own, from those of its kin.
        given: arguments that it is called with; those that are None are left out.
        several: the same where it is called for several images.
        listens: how much larger the weights of its denoiser are.
        without: blocks of a modular pipeline that are left out.
    """

    like: str = ""
    resized: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
    given: Mapping[str, Any] = field(default_factory=dict)
    several: Mapping[str, Any] = field(default_factory=dict)
    listens: float = 1
    without: tuple[str, ...] = ()


def parts_of(name, found):
    """The parts of a class, made of those that its kin has."""
    variant = VARIANTS.get(name)
    if variant is None:
        return found
    resized = {each: with_settings(found[each], **more) for each, more in variant.resized.items()}
    made = {**found, **resized}
    made |= variant.made(made)
    for each in ("transformer", "transformer_2", "unet"):
        if variant.listens != 1 and made.get(each) is not None:
            parts.listening(made[each], variant.listens)
    return made


def with_settings(part, **settings):
    """A model of the same class with some other settings."""
    torch.manual_seed(0)
    config = {key: value for key, value in part.config.items() if not key.startswith("_")}
    made = type(part).from_config({**config, **settings})
    return parts.without_zeros(made.eval()) if isinstance(made, torch.nn.Module) else made


def given_to(name, given, images):
    """The arguments of a call of a class, from those of its kin."""
    variant = VARIANTS.get(name, Variant())
    changed = {**given, **variant.given, **(variant.several if images > 1 else {})}
    return {key: value for key, value in changed.items() if value is not None}


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


def controlnet_xs(found):
    torch.manual_seed(0)
    if found.get("text_encoder_2") is None:
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
        size_ratio=0.5 if found.get("text_encoder_2") is not None else 1.0,
        learn_time_embedding=True,
        conditioning_embedding_out_channels=(2, 2),
        num_attention_heads=2 if found.get("text_encoder_2") is not None else None,
    )
    return {"unet": parts.listening(unet.eval(), 2), "controlnet": parts.without_zeros(controlnet.eval())}


def z_image_control(found):
    torch.manual_seed(0)
    control = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=9 if found.get("mask") else 4,
        add_control_noise_refiner="control_layers",
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    control = parts.without_zeros(control.eval())
    return {"controlnet": ZImageControlNetModel.from_transformer(control, found["transformer"])}


BOXES = {"gligen_phrases": ["a star"], "gligen_boxes": [[0.1, 0.1, 0.6, 0.6]], "gligen_scheduled_sampling_beta": 1.0}
JSON = [json.dumps({"text": each, "edit_instruction": each}) for each in of_diffusers.PROMPTS]
STAGED = Variant(
    made=lambda found: {"scheduler": type(found["scheduler"])(stages=3, stage_range=[0, 1 / 3, 2 / 3, 1])},
    given={"height": 64, "width": 64},
)


def padded_left(found):
    """A tokenizer that pads as Gemma's does, on the left."""
    found["tokenizer"].padding_side = "left"
    return {}


def read_small(_):
    """A text encoder of a few words, in place of one of a whole vocabulary."""
    config = newest.qwen2_vl()
    torch.manual_seed(0)
    encoder = parts.listening(Qwen2_5_VLForConditionalGeneration(config).eval(), 4)
    return {"text_encoder": encoder, "tokenizer": parts.seeing_words(config).tokenizer}


def deep_qwen3(layers, **more):
    """A text encoder of so many layers, whose further ones are asked for what they hold."""
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


PADDED = Variant(made=padded_left)
SMALL = {"max_sequence_length": 64}
UPSAMPLED = ("prompt_upsampler",)
TAPPED = {"text_encoder_out_layers": (1, 2), "image": None, "max_sequence_length": 160}
VARIANTS = {
    "BriaFiboEditPipeline": Variant(
        given={"prompt": JSON[1], "height": 32, "width": 32, "image": PICTURE}, several={"prompt": JSON}
    ),
    "ChromaInpaintPipeline": Variant(
        like="ChromaImg2ImgPipeline",
        made=lambda found: found["transformer"].register_to_config(guidance_embeds=False) or {},
        given={"image": PICTURES[:1], "mask_image": torch.ones(1, 1, 32, 32), "strength": 1.0},
        several={"image": PICTURES, "mask_image": torch.ones(3, 1, 32, 32)},
    ),
    "ChronoEditPipeline": Variant(listens=2),
    "AnimaModularPipeline": Variant(made=anima, given={"image": None, "image_latents": None}),
    "CycleDiffusionPipeline": Variant(
        like="StableDiffusionImg2ImgPipeline",
        given={"image": PICTURES[:1], "strength": 1.0, "source_prompt": "a star", "source_guidance_scale": 1.0},
        several={"image": PICTURES, "source_prompt": ["a star"] * 3},
    ),
    "EasyAnimateInpaintPipeline": Variant(
        given={
            "video": torch.stack([PICTURES[0]] * 5, 1)[None],
            "mask_video": torch.full((1, 1, 5, 32, 32), 255.0),
            "num_frames": 5,
            "strength": 1.0,
        },
    ),
    "HeliosPyramidModularPipeline": STAGED,
    "HeliosPyramidDistilledModularPipeline": STAGED,
    "HeliosPyramidPipeline": STAGED,
    "HunyuanImageRefinerPipeline": Variant(given={"image": PICTURE}, several={"image": PICTURES}),
    "HunyuanVideo15ImageToVideoPipeline": Variant(
        resized={"transformer": {"image_embed_dim": 32, "task_type": "i2v"}}, given={"image": PICTURE}
    ),
    "Flux3ModularPipeline": Variant(made=flux3(), given=TAPPED, without=UPSAMPLED),
    "Flux3DistilledModularPipeline": Variant(made=flux3(flow_map=True), given=TAPPED, without=UPSAMPLED),
    "HunyuanImagePipeline": Variant(made=read_small),
    "JoyImageEditPipeline": Variant(resized={"transformer": {"text_dim": 32}}, given={"max_sequence_length": 256}),
    "JoyImageEditPlusPipeline": Variant(resized={"transformer": {"text_dim": 32}}, given={"max_sequence_length": 256}),
    "Krea2ModularPipeline": Variant(made=krea2, given=SMALL),
    "Krea2TurboModularPipeline": Variant(made=krea2, given=SMALL),
    "SanaImageToVideoPipeline": Variant(
        resized={"transformer": {"caption_channels": 32}},
        made=lambda _: {"text_encoder": parts.listening(parts.gemma(), 2), "tokenizer": parts.words(512)},
    ),
    "KandinskyV22Img2ImgPipeline": Variant(given={"strength": 1.0}),
    "LTX2ConditionPipeline": PADDED,
    "LTX2InContextPipeline": PADDED,
    "LucyEditPipeline": Variant(
        like="WanVideoToVideoPipeline", resized={"transformer": {"in_channels": 8}}, given={"num_frames": 9}
    ),
    "NucleusMoEImagePipeline": Variant(given={"guidance_scale": 4.0, "max_sequence_length": 256}),
    "PIAPipeline": Variant(
        like="AnimateDiffPipeline",
        resized={"unet": {"in_channels": 9}},
        given={"image": PICTURE, "strength": 1.0, "num_frames": 3},
    ),
    "QwenImageEditModularPipeline": Variant(given={"mask_image": None}),
    "SkyReelsV2ImageToVideoPipeline": Variant(listens=2),
    "StableDiffusionAttendAndExcitePipeline": Variant(
        like="StableDiffusionPipeline",
        given={"token_indices": [2], "max_iter_to_alter": 1, "thresholds": {0: 0.0}},
        several={"token_indices": [[2]] * 3},
    ),
    "StableDiffusionControlNetXSPipeline": Variant(
        like="StableDiffusionPipeline", made=controlnet_xs, given={"image": PICTURES[:1]}, several={"image": PICTURES}
    ),
    "StableDiffusionXLControlNetXSPipeline": Variant(
        like="StableDiffusionXLPipeline", made=controlnet_xs, given={"image": PICTURES[:1]}, several={"image": PICTURES}
    ),
    "StableDiffusionDiffEditPipeline": Variant(
        like="StableDiffusionPipeline",
        given={
            "mask_image": torch.ones(1, 32, 32),
            "image_latents": torch.ones(1, 1, 4, 32, 32),
            "inpaint_strength": 1.0,
        },
    ),
    "StableDiffusionGLIGENPipeline": Variant(
        like="StableDiffusionPipeline",
        resized={"unet": {"attention_type": "gated"}},
        given=BOXES,
        listens=2,
    ),
    "StableDiffusionLDM3DPipeline": Variant(
        like="StableDiffusionPipeline", resized={"vae": {"in_channels": 6, "out_channels": 6}}
    ),
    "StableDiffusionUpscalePipeline": Variant(
        like="StableDiffusionPipeline",
        resized={"unet": {"in_channels": 7, "num_class_embeds": 1000}},
        made=lambda found: {"low_res_scheduler": found["scheduler"]},
        given={"image": PICTURES[:1, :, ::2, ::2], "noise_level": 20},
        several={"image": PICTURES[..., ::2, ::2]},
        listens=2,
    ),
    "TextToVideoSDPipeline": Variant(like="StableDiffusionPipeline", made=unet_3d, given={"num_frames": 3}),
    "VideoToVideoSDPipeline": Variant(
        like="StableDiffusionPipeline", made=unet_3d, given={"video": CLIP[0][:3], "strength": 1.0}
    ),
    "Wan22Image2VideoModularPipeline": Variant(
        resized={"transformer": {"in_channels": 12}, "transformer_2": {"in_channels": 12}},
        given={"image": PICTURE, "num_frames": 9},
    ),
    "WanImage2VideoModularPipeline": Variant(
        resized={"transformer": {"in_channels": 12, "image_dim": 32, "added_kv_proj_dim": 24}},
        made=lambda _: seeing(),
        given={"image": PICTURE, "num_frames": 9, "last_image": None},
    ),
    "ZImageControlNetPipeline": Variant(
        like="ZImagePipeline",
        made=z_image_control,
        given={"control_image": PICTURES[:1]},
        several={"control_image": PICTURES},
    ),
    "ZImageControlNetInpaintPipeline": Variant(
        like="ZImagePipeline",
        made=lambda found: z_image_control({**found, "mask": True}),
        given={"control_image": PICTURES[:1], "image": PICTURES[:1], "mask_image": torch.ones(1, 1, 32, 32)},
        several={"control_image": PICTURES, "image": PICTURES, "mask_image": torch.ones(3, 1, 32, 32)},
    ),
}
