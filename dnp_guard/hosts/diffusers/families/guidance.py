"""Which branch is which in a call, and what the unconditional one counts where a host normalises what it guided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def branches(pipe: Any, order: str) -> str:
    """The order of the branches of a call, those that it is without left out."""
    if "p" in order and not pipe.do_perturbed_attention_guidance:
        order = order.replace("p", "")
    return order


def rescaled(pipe: Any, _wanted: Mapping[str, Any]) -> float | None:
    """Under ``guidance_rescale``, u + g (c - u) is scaled to the spread of c (Lin et al., arXiv 2305.08891)."""
    return 1 - pipe.guidance_scale if getattr(pipe, "guidance_rescale", 0.0) > 0 else None


def normalised(_pipe: Any, wanted: Mapping[str, Any]) -> float | None:
    """Under ``cfg_normalization``, u + g (c - u) is scaled to the length of c."""
    return 1 - wanted["guidance_scale"] if wanted.get("cfg_normalization") else None


def always_normalised(_pipe: Any, wanted: Mapping[str, Any]) -> float | None:
    """As ``normalised``, where the host always does it."""
    return 1 - wanted["true_cfg_scale"]


def beyond(pipe: Any, _wanted: Mapping[str, Any]) -> float | None:
    """Under ``cfg_normalization``, c + g (c - u) is shortened to a multiple of the length of c."""
    return -pipe.guidance_scale if getattr(pipe, "_cfg_normalization", False) else None
