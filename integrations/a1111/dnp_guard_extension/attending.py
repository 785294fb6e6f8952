"""Steer inside the host's attention over the prompt, for one call of the denoiser at a time.

Forge and reForge have patches for the blocks of their UNet. AUTOMATIC1111 has none, so its layers ``attn2`` are hooked
for the call. Both are gone when the call is over.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import shared

from . import patched
from .layers import Layers, NotReached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from . import host
    from .messages import Negative

MEASURED = ".attention.json"
"""Beside a checkpoint, with this in the place of its ending: the measurement that steering there works for it."""


class Attending:
    """The guard's part in the attention of one sampling pass."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._steering: Any = None

    def begins(
        self, at: host.Call, prompts: int, active: Mapping[int, Negative], context: Callable[[str], torch.Tensor]
    ) -> None:
        """Steer a call of the denoiser, which the host is about to make.

        Args:
            at: the call.
            prompts: rows of the prompts; more than images where the host composes them.
            active: the negative of each image that is steered.
            context: the conditioning of words, [1, tokens, width].
        """
        acting = patched.parts(active, context)
        if not acting:
            return
        forge = getattr(getattr(at.denoiser.inner_model, "inner_model", None), "forge_objects", None)
        if forge is not None:
            self._steering = self._patched(forge.unet, acting)
        else:
            layers = Layers(_network(shared.sd_model))
            self._steering = self._stack.enter_context(layers.steered(acting, in_order(at.images, prompts)))

    def ends(self) -> Exception | None:
        """Leave the model as it was, and return why an image was not steered; None where all were."""
        self._stack.close()
        steering, self._steering = self._steering, None
        return steering.failure if steering is not None else None

    def _patched(self, unet: Any, acting: list[patched.Part]) -> patched.Patched:
        patches = patched.Patched(patched.blocks(unet.model.diffusion_model), acting, _attend)
        before = unet.model_options.get("transformer_options", {})
        unet.model_options["transformer_options"] = patches.options(before)
        self._stack.callback(unet.model_options.__setitem__, "transformer_options", before)
        return patches


def reached() -> bool | None:
    """Return whether steering there was shown to work for the checkpoint; None where it is not reached."""
    model = shared.sd_model
    network = _network(model)
    if not hasattr(network, "named_modules"):
        return None
    if not (patched.blocks(network) if hasattr(model, "forge_objects") else Layers(network)):
        return None
    file = getattr(getattr(model, "sd_checkpoint_info", None), "filename", None)
    return bool(file) and Path(str(file)).with_suffix(MEASURED).is_file()


def _network(model: Any) -> Any:
    forge = getattr(model, "forge_objects", None)
    return getattr(forge.unet.model if forge is not None else getattr(model, "model", None), "diffusion_model", None)


def in_order(images: int, prompts: int) -> Callable[[torch.Tensor], dict[int, int]]:
    """Find the rows of the prompts, which the host evaluates ahead of the unconditional, in one call or several."""
    done = 0

    def rows(context: torch.Tensor) -> dict[int, int]:
        nonlocal done
        if prompts != images:
            raise NotReached("the prompt is composed of several")
        start, done = done, done + len(context)
        return {image: image - start for image in range(start, min(done, images))}

    return rows


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """Attend as a block of the host's does where nothing replaces it."""
    made: torch.Tensor
    try:
        from backend.attention import attention_function  # noqa: PLC0415 (only Forge has it)
    except ImportError:
        from ldm_patched.ldm.modules.attention import optimized_attention  # noqa: PLC0415 (only reForge has it)

        named = {"attn_precision": options["attn_precision"]} if "attn_precision" in options else {}
        made = optimized_attention(q, k, v, options["n_heads"], **named)
    else:
        made = attention_function(q, k, v, options["n_heads"], None)
    return made
