"""Encode a negative as a pipeline encodes a prompt."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.families.row import Encode

_OF_THE_CALL = (
    "clean_caption",
    "complex_human_instruction",
    "max_sequence_length",
    "prompt_template",
    "system_prompt",
    "text_encoder_out_layers",
    "tokenizer_max_length",
)
"""Arguments of a call by which it encodes its prompts: a negative is encoded alike, and has to be as long."""


def by(*names: str | None, method: str = "encode_prompt", **more: Any) -> Encode:
    """A row's ``encode``, where the pipeline's own method answers the denoiser's arguments.

    Args:
        names: the denoiser's arguments in the order of the method's answers; None for an answer to leave out.
        method: of the pipeline.
        more: further arguments of the method.
    """

    def encode(pipe: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Tensor | None]:
        function = getattr(pipe, method)
        answers = function(**{**_arguments(pipe, function, texts, wanted), **more})
        if not isinstance(answers, tuple):
            answers = (answers,)
        return {name: answer for name, answer in zip(names, answers, strict=False) if name is not None}

    return encode


def _arguments(pipe: Any, function: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "prompt":
            given[name] = list(texts)
        elif name == "device":
            given[name] = device(pipe)
        elif name in {"num_images_per_prompt", "num_videos_per_prompt"}:
            given[name] = 1
        elif name == "do_classifier_free_guidance":
            given[name] = False
        elif name == "clip_skip":
            given[name] = getattr(pipe, "clip_skip", None)
        elif name == "batch_size":
            given[name] = len(texts)
        elif name in _OF_THE_CALL and name in wanted:
            given[name] = wanted[name]
        elif parameter.default is inspect.Parameter.empty:
            given[name] = None
    return given


def device(pipe: Any) -> Any:
    """Where a pipeline runs, which is what it passes to its own ``encode_prompt``."""
    return pipe._execution_device  # noqa: SLF001 (it has no other name)
