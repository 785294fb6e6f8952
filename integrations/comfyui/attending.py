"""Steer a run's images inside the cross-attention of its model, through ComfyUI's own patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import patched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from .messages import Negative

MEASURED = ".attention.json"
"""Suffix of the file beside a checkpoint that holds the measurement of steering in attention space."""


class Attending:
    """Access to the cross-attention of the model that one run samples with.

    Args:
        patcher: ComfyUI's ``ModelPatcher`` of the model.

    Attributes:
        shown: whether a file says that steering the attention works for the checkpoint; None if it cannot be tried.
    """

    def __init__(self, patcher: Any) -> None:
        self._layers = patched.blocks(getattr(patcher.model, "diffusion_model", None))
        self.shown = _measured(patcher) if self._layers and wraps_conditions() else None

    def evaluated(
        self,
        evaluate: Callable[[dict[str, Any]], Any],
        options: dict[str, Any],
        active: Mapping[int, Negative],
        context: Callable[[str], Tensor],
        prompt: int,
    ) -> tuple[Any, Exception | None]:
        """Evaluate the model, and steer the images that have a negative.

        Args:
            evaluate: evaluates the model with changed ``model_options``.
            options: the host's ``model_options``.
            active: maps the index of a steered image to its negative.
            context: encodes words to their conditioning, [1, tokens, width].
            prompt: index of the user's prompt among the evaluated conditionings.

        Returns:
            The model's output, and the error that kept an image from being steered, or None.
        """
        acting = patched.parts(active, context)
        if not acting:
            return evaluate(options), None
        patches = patched.Patched(self._layers, acting, _attend, prompt)
        transformer = patches.options(options.get("transformer_options", {}))
        return evaluate({**options, "transformer_options": transformer}), patches.failure


def wraps_conditions() -> bool:
    """Return whether this ComfyUI lets extensions wrap the evaluation of conditionings."""
    from comfy.patcher_extension import WrappersMP  # noqa: PLC0415 (ComfyUI's own)

    return hasattr(WrappersMP, "CALC_COND_BATCH")


def _attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
    """Compute the attention with ComfyUI's own function, as its blocks do without a patch."""
    from comfy.ldm.modules.attention import optimized_attention  # noqa: PLC0415 (ComfyUI's own)

    # A newer ComfyUI may name another attention function in the options; an older one does not know the argument.
    extra = {"transformer_options": options} if "optimized_attention_override" in options else {}
    precision = options.get("attn_precision")
    made: Tensor = optimized_attention(q, k, v, options["n_heads"], attn_precision=precision, **extra)
    return made


def _measured(patcher: Any) -> bool:
    """Return whether the file of the measurement lies beside the checkpoint, whose path only newer ComfyUI keeps."""
    try:
        _, given, *_ = patcher.cached_patcher_init
        files = [Path(value) for value in given if isinstance(value, str)]
        return any(file.is_file() and file.with_suffix(MEASURED).is_file() for file in files)
    except (AttributeError, OSError, TypeError, ValueError):  # an older ComfyUI, or a loader of another form
        return False
