"""Let the pipeline's own code unpack and decode a prediction.

The call is run once more on a copy of the pipeline, whose scheduler returns the prediction at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import BaseOutput

from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.recording import Reached
from dnp_guard.hosts.diffusers.asking.standin import CALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.recording import Recording
    from dnp_guard.hosts.diffusers.asking.standin import Answer

_MANY = 1 << 16
_LATENTS = 4
"""Least number of dimensions of latents."""


@dataclass
class _Stepped(BaseOutput):
    """Result of a scheduler's step, under every name that a pipeline reads."""

    prev_sample: Any
    pred_original_sample: Any
    denoised: Any


@dataclass(frozen=True, slots=True)
class End:
    """The end of a replayed call: the latents to decode, or the result if no autoencoder decodes them.

    Attributes:
        autoencoder: name of the part that would decode the latents; empty if there is none.
        latents: unscaled latents to decode; None if there is no such part.
        result: result of the call if there is no such part.
    """

    autoencoder: str = ""
    latents: Tensor | None = None
    result: Any = None


def replay(
    recording: Recording, evaluations: Mapping[str, Sequence[Evaluation]], scheduler: str, x0: Tensor, images: int
) -> End:
    """Run the call on a copy as if a prediction were its denoised latents; the denoiser is not evaluated.

    Args:
        recording: recording of the call.
        evaluations: evaluations of each denoiser in the first step, whose outputs are returned again.
        scheduler: name of the scheduler that steps.
        x0: the prediction, as the sampler holds it.
        images: number of images in the batch; an autoencoder that is called for one image at a time really decodes it.
    """
    reached: list[End] = []

    def stepped(step: Any, *args: Any, **kwargs: Any) -> Any:
        sample = args[2] if len(args) > 2 else kwargs["sample"]  # noqa: PLR2004 (its third argument)
        value = (x0 if sample.shape == x0.shape else sample).to(sample, copy=True)
        holder: Any = getattr(step, "__self__", None)
        if getattr(holder, "step_index", None) is not None:
            holder._step_index += 1  # noqa: SLF001 (some pipelines read it)
        return (value, value) if kwargs.get("return_dict") is False else _Stepped(value, value, value)

    def decodes(name: str) -> Any:
        def answer(decode: Any, latents: Any, *args: Any, **kwargs: Any) -> Any:
            whole = isinstance(latents, torch.Tensor) and latents.shape[0] % images == 0
            if not (whole and latents.ndim >= _LATENTS and callable(getattr(recording.parts[name], "encode", None))):
                return decode(latents, *args, **kwargs)
            reached.append(End(name, latents))
            raise Reached

        return answer

    answers: dict[str, dict[str, Any]] = {
        name: {"decode": decodes(name)} | {of: recording.known(name, of) for of in (CALL, "encode")}
        for name, part in recording.parts.items()
        if hasattr(part, "decode")
    }
    for name, known in evaluations.items():
        answers[name] = {CALL: _as_before([evaluation for evaluation in known if evaluation.name == name] or known)}
    change = {"output_type": "pil", "return_dict": True, "decode_chunk_size": _MANY}
    change = {name: value for name, value in change.items() if recording.accepts(name)}
    result = recording.run(change, {**answers, scheduler: {"step": stepped}})
    return reached[0] if reached else End(result=result)


def _as_before(known: Sequence[Evaluation]) -> Answer:
    """Return a function that repeats a denoiser's earlier outputs, for as many rows as it is called with."""

    def answer(_part: Any, *args: Any, **kwargs: Any) -> Any:
        rows = len(args[0] if args else next(iter(kwargs.values())))
        output = next(
            (evaluation for evaluation in known if len(next(iter(evaluation.given.values()))) == rows), known[0]
        ).output
        first = arguments.first_of(output)
        if len(first) == rows:
            return output
        return arguments.with_first(output, first[[row % len(first) for row in range(rows)]])

    return answer
