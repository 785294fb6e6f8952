"""Text to image by a diffusion transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.guidance import rescaled
from dnp_guard.hosts.diffusers.families.row import Family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def _bert_and_t5(pipe: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Tensor | None]:
    bert = by("encoder_hidden_states", None, "text_embedding_mask", max_sequence_length=77, text_encoder_index=0)
    t5 = by("encoder_hidden_states_t5", None, "text_embedding_mask_t5", max_sequence_length=256, text_encoder_index=1)
    return {**bert(pipe, texts, wanted), **t5(pipe, texts, wanted)}


ROWS = (
    Family(
        name="PixArt and Sana",
        pipelines=frozenset({"PixArtSigmaPipeline", "SanaPipeline"}),
        encode=by("encoder_hidden_states", "encoder_attention_mask"),
    ),
    Family(
        name="AuraFlow",
        pipelines=frozenset({"AuraFlowPipeline"}),
        encode=by("encoder_hidden_states"),
    ),
    Family(
        name="HunyuanDiT",
        pipelines=frozenset({"HunyuanDiTPipeline"}),
        encode=_bert_and_t5,
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        weight=rescaled,
    ),
    Family(
        name="CogView4",
        pipelines=frozenset({"CogView4Pipeline"}),
        encode=by("encoder_hidden_states"),
        batched=False,
        order="cu",
        fixed=False,
    ),
)
