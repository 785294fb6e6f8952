"""Steer inside the cross-attention of the host's UNet, where it reads the prompt, during single calls of the denoiser.

Forge and reForge offer patches for the blocks of their UNet. AUTOMATIC1111 offers none, so PyTorch hooks on its
cross-attention layers (``attn2``) take their place. Patches and hooks are removed after every call.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import shared

from . import host, patched
from .attention import NotReached, Part
from .layers import Layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from .messages import Negative

MEASURED = ".attention.json"
"""Suffix of the file beside a checkpoint that holds the measurement of steering in attention space."""


class Attending:
    """A controller of the steering in the attention, for the denoiser calls of one sampling pass.

    Args:
        shown: whether steering in the attention was shown to work for the checkpoint that the batch began with.
    """

    def __init__(self, *, shown: bool | None = None) -> None:
        self._stack = ExitStack()
        self._steering: Any = None
        self._failure: Exception | None = None
        self._shown = shown
        self._checkpoint: Any = None
        self._reached: bool | None = None

    def begins(
        self, at: host.Call, prompts: int, active: Mapping[int, Negative], context: Callable[[str], torch.Tensor]
    ) -> None:
        """Install patches or hooks for the next call of the denoiser; :meth:`ends` reports a failure.

        Args:
            at: the call.
            prompts: number of rows of prompts; larger than the number of images if prompts are composed with ``AND``.
            active: maps the index of a steered image to its negative.
            context: encodes words to their conditioning, [1, tokens, width].
        """
        try:
            self._check_the_checkpoint()
            self._steer(at, prompts, patched.parts(active, context))
        except Exception as error:  # noqa: BLE001 (the image is steered by its outputs instead)
            self._failure = error

    def _check_the_checkpoint(self) -> None:
        """Check that the loaded checkpoint can be steered: a refiner or a hires pass may have loaded another one.

        Raises:
            NotReached: it has no known attention layers, or steering was shown to work for the first checkpoint only.
        """
        checkpoint = host.checkpoint()
        if checkpoint != self._checkpoint:
            self._checkpoint, self._reached = checkpoint, reached()
        if self._reached is None or (self._shown and not self._reached):
            raise NotReached("the host has loaded a checkpoint for which steering in attention was not shown to work")

    def _steer(self, at: host.Call, prompts: int, acting: list[Part]) -> None:
        if not acting:
            return
        forge = getattr(getattr(at.denoiser.inner_model, "inner_model", None), "forge_objects", None)
        if forge is not None:
            self._steering = self._patched(forge.unet, acting)
        else:
            layers = Layers(_network(shared.sd_model))
            self._steering = self._stack.enter_context(layers.steered(acting, in_order(at.images, prompts)))

    def ends(self) -> Exception | None:
        """Remove patches and hooks; return the error that kept an image from being steered, or None."""
        self._stack.close()
        steering, self._steering = self._steering, None
        failure, self._failure = self._failure, None
        return failure or (steering.failure if steering is not None else None)

    def _patched(self, unet: Any, acting: list[Part]) -> patched.Patched:
        patches = patched.Patched(patched.blocks(unet.model.diffusion_model), acting, _attend)
        before = unet.model_options.get("transformer_options", {})
        unet.model_options["transformer_options"] = patches.options(before)
        self._stack.callback(unet.model_options.__setitem__, "transformer_options", before)
        return patches


def reached() -> bool | None:
    """Return whether a file says that steering the attention works for the checkpoint; None if it cannot be tried."""
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
    """Return a function that finds the prompts' rows in the context of one evaluation of the UNet.

    The host evaluates the rows of all prompts before the unconditional ones, in one or more evaluations. The function
    counts the rows over these evaluations, and maps the index of an image to its row in the current one.
    """
    done = 0

    def rows(context: torch.Tensor) -> dict[int, int]:
        nonlocal done
        if prompts != images:
            raise NotReached("the prompt is composed of several prompts")
        start, done = done, done + len(context)
        return {image: image - start for image in range(start, min(done, images))}

    return rows


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """Compute the attention with the host's own function, as its blocks do without a patch."""
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
