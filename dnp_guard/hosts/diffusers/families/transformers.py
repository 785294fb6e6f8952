"""Text to image by a diffusion transformer."""

from __future__ import annotations

from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.row import Family

ROWS = (
    Family(
        name="PixArt and Sana",
        pipelines=frozenset({"PixArtSigmaPipeline", "SanaPipeline"}),
        encode=by("encoder_hidden_states", "encoder_attention_mask"),
    ),
)
