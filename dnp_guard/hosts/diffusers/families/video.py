"""Text to video. Latents are [B, C, F, H, W]; a look shows some frames."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.guidance import rescaled
from dnp_guard.hosts.diffusers.families.row import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_PACKED = 3
"""Dimensions of latents that are packed into tokens, [B, F H W, C]."""

ONE_EACH: Final = frozenset(
    {
        "AnimateDiffPAGPipeline",
        "AnimateDiffPipeline",
        "AnimateDiffSDXLPipeline",
        "AnimateDiffVideoToVideoPipeline",
        "CogVideoXFunControlPipeline",
        "CogVideoXImageToVideoPipeline",
        "CogVideoXPipeline",
        "CogVideoXVideoToVideoPipeline",
        "WanVideoToVideoPipeline",
    }
)
"""Classes that make one video of each prompt, whatever ``num_videos_per_prompt`` says."""

_video = partial(Family, video=True, output_types=("pil", "np", "pt"))
_masked = by("encoder_hidden_states", "encoder_attention_mask")


def _tokens(pipe: Any, latents: Tensor, wanted: Mapping[str, Any]) -> Tensor:
    if latents.ndim != _PACKED:  # where the first frame is given, the others are unpacked for the scheduler
        return latents
    frames = (wanted["num_frames"] - 1) // pipe.vae_temporal_compression_ratio + 1
    height, width = (wanted[name] // pipe.vae_spatial_compression_ratio for name in ("height", "width"))
    patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
    unpacked: Tensor = pipe._unpack_latents(latents, frames, height, width, *patches)  # noqa: SLF001 (as it does)
    return unpacked


ROWS = (
    _video(
        name="Wan",
        pipelines=frozenset(
            {
                "SkyReelsV2Pipeline",
                "WanImageToVideoPipeline",
                "WanPipeline",
                "WanVideoToVideoPipeline",
            }
        ),
        denoisers=("transformer", "transformer_2?"),
        encode=by("encoder_hidden_states"),
        batched=False,
        order="cu",
    ),
    _video(
        name="LTX",
        pipelines=frozenset({"LTXImageToVideoPipeline", "LTXPipeline"}),
        encode=_masked,
        weight=rescaled,
        unpack=_tokens,
        needs_arguments=True,
    ),
    _video(
        name="CogVideoX",
        pipelines=frozenset(
            {
                "CogVideoXFunControlPipeline",
                "CogVideoXImageToVideoPipeline",
                "CogVideoXPipeline",
                "CogVideoXVideoToVideoPipeline",
            }
        ),
        encode=by("encoder_hidden_states"),
        channels=2,
        unpack=lambda _pipe, latents, _wanted: latents.transpose(1, 2),
    ),
    _video(
        name="AnimateDiff",
        pipelines=frozenset({"AnimateDiffPipeline", "AnimateDiffVideoToVideoPipeline"}),
        denoisers=("unet",),
        encode=by("encoder_hidden_states"),
        repeated=("encoder_hidden_states",),
    ),
    _video(
        name="AnimateDiff with perturbed attention",
        pipelines=frozenset({"AnimateDiffPAGPipeline"}),
        denoisers=("unet",),
        encode=by("encoder_hidden_states"),
        order="ucp",
        repeated=("encoder_hidden_states",),
    ),
    _video(
        name="AnimateDiff XL",
        pipelines=frozenset({"AnimateDiffSDXLPipeline"}),
        denoisers=("unet",),
        encode=by("encoder_hidden_states", None, "added_cond_kwargs.text_embeds"),
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        weight=rescaled,
        repeated=("encoder_hidden_states",),
    ),
    _video(
        name="Sana",
        pipelines=frozenset({"SanaVideoPipeline"}),
        encode=_masked,
    ),
    _video(
        name="Mochi",
        pipelines=frozenset({"MochiPipeline"}),
        encode=_masked,
    ),
    _video(
        name="Latte",
        pipelines=frozenset({"LattePipeline"}),
        encode=by("encoder_hidden_states"),
        fixed=False,
    ),
)
