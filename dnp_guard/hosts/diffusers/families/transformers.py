"""Text to image by a diffusion transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.guidance import beyond, normalised, rescaled
from dnp_guard.hosts.diffusers.families.row import Family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def _bert_and_t5(pipe: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Tensor | None]:
    bert = by("encoder_hidden_states", None, "text_embedding_mask", max_sequence_length=77, text_encoder_index=0)
    t5 = by("encoder_hidden_states_t5", None, "text_embedding_mask_t5", max_sequence_length=256, text_encoder_index=1)
    return {**bert(pipe, texts, wanted), **t5(pipe, texts, wanted)}


_MASKED = by("encoder_hidden_states", "encoder_attention_mask")
_TWO_ENCODERS = ("vae", "text_encoder", "text_encoder_2", "scheduler")

ROWS = (
    Family(
        name="PixArt and Sana",
        pipelines=frozenset({"PixArtAlphaPipeline", "PixArtSigmaPipeline", "SanaControlNetPipeline", "SanaPipeline"}),
        encode=_MASKED,
    ),
    Family(
        name="PixArt and Sana with perturbed attention",
        pipelines=frozenset({"PixArtSigmaPAGPipeline", "SanaPAGPipeline"}),
        encode=_MASKED,
        order="ucp",
    ),
    Family(
        name="Sana Sprint",
        pipelines=frozenset({"SanaSprintImg2ImgPipeline", "SanaSprintPipeline"}),
        encode=_MASKED,
        order="c",
    ),
    Family(
        name="AuraFlow",
        pipelines=frozenset({"AuraFlowPipeline"}),
        encode=by("encoder_hidden_states"),
    ),
    Family(
        name="HunyuanDiT",
        pipelines=frozenset({"HunyuanDiTControlNetPipeline", "HunyuanDiTPipeline"}),
        encode=_bert_and_t5,
        components=_TWO_ENCODERS,
        weight=rescaled,
    ),
    Family(
        name="HunyuanDiT with perturbed attention",
        pipelines=frozenset({"HunyuanDiTPAGPipeline"}),
        encode=_bert_and_t5,
        components=_TWO_ENCODERS,
        order="ucp",
        weight=rescaled,
    ),
    Family(
        name="CogView3",
        pipelines=frozenset({"CogView3PlusPipeline"}),
        encode=by("encoder_hidden_states"),
    ),
    Family(
        name="CogView4",
        pipelines=frozenset({"CogView4ControlPipeline", "CogView4Pipeline"}),
        encode=by("encoder_hidden_states"),
        batched=False,
        order="cu",
        fixed=False,
    ),
    Family(
        name="Lumina",
        pipelines=frozenset({"LuminaPipeline"}),
        encode=by("encoder_hidden_states", "encoder_mask"),
        order="cu",
        fixed=False,
    ),
    Family(
        name="Lumina 2",
        pipelines=frozenset({"Lumina2Pipeline"}),
        encode=by("encoder_hidden_states", "encoder_attention_mask", method="_get_gemma_prompt_embeds"),
        batched=False,
        order="cu",
        weight=normalised,
        sign=-1,
    ),
    Family(
        name="Z-Image",
        pipelines=frozenset({"ZImageImg2ImgPipeline", "ZImageInpaintPipeline", "ZImagePipeline"}),
        encode=by("cap_feats"),
        order="cu",
        weight=beyond,
        listed=("x", "cap_feats"),
        fixed=False,
    ),
)
