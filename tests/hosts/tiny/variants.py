"""Describe tiny pipelines that differ in a part or an argument from those of classes with similar names (their kin)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.hosts.tiny import of_diffusers, own_parts, parts
from tests.hosts.tiny.calls import CLIP, PICTURE, PICTURES


@dataclass(frozen=True)
class Variant:
    """The differences between the tiny pipeline of a class and those of its kin.

    Attributes:
        like: name of the class whose parts are preferred; empty for the nearest kin.
        resized: maps names of parts to the settings in which they differ from the kin's.
        made: takes the parts of the kin, and returns parts that replace them or are added.
        given: arguments of the pipeline's call; None leaves an argument out.
        several: further arguments of a call for several images.
        listens: factor by which the denoiser's weights are multiplied, so that it reacts to prompts.
        without: names of blocks to leave out of a modular pipeline.
    """

    like: str = ""
    resized: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
    given: Mapping[str, Any] = field(default_factory=dict)
    several: Mapping[str, Any] = field(default_factory=dict)
    listens: float = 1
    without: tuple[str, ...] = ()


def parts_of(name, kin):
    """Return the parts of a class's pipeline, made from the parts of its kin and the class's variant."""
    variant = VARIANTS.get(name)
    if variant is None:
        return kin
    resized = {part_name: with_settings(kin[part_name], **more) for part_name, more in variant.resized.items()}
    made = {**kin, **resized}
    made |= variant.made(made)
    for part_name in ("transformer", "transformer_2", "unet"):
        if variant.listens != 1 and made.get(part_name) is not None:
            parts.listening(made[part_name], variant.listens)
    return made


def with_settings(part, **settings):
    """Build a part of the same class as another part, with some settings changed."""
    torch.manual_seed(0)
    config = {key: value for key, value in part.config.items() if not key.startswith("_")}
    made = type(part).from_config({**config, **settings})
    return parts.without_zeros(made.eval()) if isinstance(made, torch.nn.Module) else made


def given_to(name, given, images):
    """Return the arguments for a class's call: those of its kin's call, changed by the class's variant."""
    variant = VARIANTS.get(name, Variant())
    changed = {**given, **variant.given, **(variant.several if images > 1 else {})}
    return {key: value for key, value in changed.items() if value is not None}


BOXES = {"gligen_phrases": ["a star"], "gligen_boxes": [[0.1, 0.1, 0.6, 0.6]], "gligen_scheduled_sampling_beta": 1.0}
JSON = [json.dumps({"text": prompt, "edit_instruction": prompt}) for prompt in of_diffusers.PROMPTS]
STAGED = Variant(
    made=lambda kin: {"scheduler": type(kin["scheduler"])(stages=3, stage_range=[0, 1 / 3, 2 / 3, 1])},
    given={"height": 64, "width": 64},
)


PADDED = Variant(made=own_parts.padded_left)
SMALL = {"max_sequence_length": 64}
UPSAMPLED = ("prompt_upsampler",)
TAPPED = {"text_encoder_out_layers": (1, 2), "image": None, "max_sequence_length": 160}
VARIANTS = {
    "BriaFiboEditPipeline": Variant(
        given={"prompt": JSON[1], "height": 32, "width": 32, "image": PICTURE}, several={"prompt": JSON}
    ),
    "ChromaInpaintPipeline": Variant(
        like="ChromaImg2ImgPipeline",
        made=lambda kin: kin["transformer"].register_to_config(guidance_embeds=False) or {},
        given={"image": PICTURES[:1], "mask_image": torch.ones(1, 1, 32, 32), "strength": 1.0},
        several={"image": PICTURES, "mask_image": torch.ones(3, 1, 32, 32)},
    ),
    "ChronoEditPipeline": Variant(listens=2),
    "AnimaModularPipeline": Variant(made=own_parts.anima, given={"image": None, "image_latents": None}),
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
    "Flux3ModularPipeline": Variant(made=own_parts.flux3(), given=TAPPED, without=UPSAMPLED),
    "Flux3DistilledModularPipeline": Variant(made=own_parts.flux3(flow_map=True), given=TAPPED, without=UPSAMPLED),
    "HunyuanImagePipeline": Variant(made=own_parts.read_small),
    "JoyImageEditPipeline": Variant(resized={"transformer": {"text_dim": 32}}, given={"max_sequence_length": 256}),
    "JoyImageEditPlusPipeline": Variant(resized={"transformer": {"text_dim": 32}}, given={"max_sequence_length": 256}),
    "Krea2ModularPipeline": Variant(made=own_parts.krea2, given=SMALL),
    "Krea2TurboModularPipeline": Variant(made=own_parts.krea2, given=SMALL),
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
        like="StableDiffusionPipeline",
        made=own_parts.controlnet_xs,
        given={"image": PICTURES[:1]},
        several={"image": PICTURES},
    ),
    "StableDiffusionXLControlNetXSPipeline": Variant(
        like="StableDiffusionXLPipeline",
        made=own_parts.controlnet_xs,
        given={"image": PICTURES[:1]},
        several={"image": PICTURES},
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
        made=lambda kin: {"low_res_scheduler": kin["scheduler"]},
        given={"image": PICTURES[:1, :, ::2, ::2], "noise_level": 20},
        several={"image": PICTURES[..., ::2, ::2]},
        listens=2,
    ),
    "TextToVideoSDPipeline": Variant(like="StableDiffusionPipeline", made=own_parts.unet_3d, given={"num_frames": 3}),
    "VideoToVideoSDPipeline": Variant(
        like="StableDiffusionPipeline", made=own_parts.unet_3d, given={"video": CLIP[0][:3], "strength": 1.0}
    ),
    "Wan22Image2VideoModularPipeline": Variant(
        resized={"transformer": {"in_channels": 12}, "transformer_2": {"in_channels": 12}},
        given={"image": PICTURE, "num_frames": 9},
    ),
    "WanImage2VideoModularPipeline": Variant(
        resized={"transformer": {"in_channels": 12, "image_dim": 32, "added_kv_proj_dim": 24}},
        made=lambda _: own_parts.seeing(),
        given={"image": PICTURE, "num_frames": 9, "last_image": None},
    ),
    "ZImageControlNetPipeline": Variant(
        like="ZImagePipeline",
        made=own_parts.z_image_control,
        given={"control_image": PICTURES[:1]},
        several={"control_image": PICTURES},
    ),
    "ZImageControlNetInpaintPipeline": Variant(
        like="ZImagePipeline",
        made=lambda kin: own_parts.z_image_control({**kin, "mask": True}),
        given={"control_image": PICTURES[:1], "image": PICTURES[:1], "mask_image": torch.ones(1, 1, 32, 32)},
        several={"control_image": PICTURES, "image": PICTURES, "mask_image": torch.ones(3, 1, 32, 32)},
    ),
}
