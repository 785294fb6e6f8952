"""Run the stages of one of SGLang-Diffusion's own pipelines on copies of a request.

The pipeline itself does the work, so the guard need not know how. The stages before the denoising encode a negative as
they encode a prompt. The denoising stage predicts the noise once more with the negative in place of the prompt. The
stages after the denoising decode a prediction as they decode the finished image.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


class Stages:
    """The stages of one pipeline, with its methods as they were before it was guarded.

    Args:
        pipeline: pipeline of the engine.
        place: index of the denoising stage, or of the router that passes ordinary requests to it.
        denoising: the standard denoising stage.

    Attributes:
        run: runs a request through the pipeline.
        predict: predicts the noise of one guidance branch.
    """

    def __init__(self, pipeline: Any, place: int, denoising: Any) -> None:
        self.pipeline, self.denoising = pipeline, denoising
        self.run = pipeline.forward
        self.predict = denoising._predict_noise  # noqa: SLF001 (the engine has no public name for it)
        self._before, self._after = pipeline.stages[:place], pipeline.stages[place + 1 :]
        self._predict_with_cfg = denoising._predict_noise_with_cfg  # noqa: SLF001 (as above)

    def drawn(self, request: Any, server_args: Any) -> Any:
        """Draw a request again: run a copy of it, as it arrived, through the engine's own pipeline."""
        return self.run(fresh(request), server_args)

    def guided(self, arguments: dict[str, Any]) -> Any:
        """Predict the guided noise of a step as the engine does, without the guard's steering."""
        return self._predict_with_cfg(**arguments)

    def encoded(self, request: Any, prompt: str, running: Any, server_args: Any) -> dict[str, Any]:
        """Encode a prompt with the stages before the denoising, on a copy of the request.

        Args:
            request: the request as it arrived.
            prompt: the prompt in place of the request's own.
            running: the request during denoising; its scheduler and timesteps stay as they are.
            server_args: the engine's arguments.

        Returns:
            The denoiser's arguments for the prompt.
        """
        copied = fresh(request)
        copied.prompt = prompt
        copied.scheduler, copied.timesteps = copy.copy(running.scheduler), running.timesteps
        with _unmanaged([*self._before, self.denoising]):
            for stage in self._before:
                copied = stage(copied, server_args)
            context = self.denoising._prepare_denoising_loop(copied, server_args)  # noqa: SLF001 (as above)
        return context.cfg_policy.branches[0].kwargs

    def shown(self, running: Any, latents: Tensor, server_args: Any) -> Any:
        """Decode latents with the stages after the denoising, on a copy of the request."""
        copied = fresh(running)
        with _unmanaged([self.denoising, *self._after]), torch.autocast(latents.device.type, enabled=False):
            finish = self.denoising._post_denoising_loop  # noqa: SLF001 (as above)
            finish(copied, latents.to(running.latents.dtype), [], [], server_args, is_warmup=True)
            for stage in self._after:
                copied = stage(copied, server_args)
        return copied.output


def fresh(request: Any) -> Any:
    """Copy a request, so that stages can write into the copy and leave the original unchanged."""
    copied = copy.copy(request)
    for name, value in vars(request).items():
        if isinstance(value, list | dict):
            object.__setattr__(copied, name, copy.copy(value))
    object.__setattr__(copied, "sampling_params", copy.copy(request.sampling_params))
    object.__setattr__(copied, "metrics", None)  # otherwise the guard's work would be measured as the request's
    return copied


@contextmanager
def _unmanaged(stages: Sequence[Any]) -> Iterator[None]:
    """Let stages run in a ``with`` block without moving their models between devices."""
    managers = [stage._component_residency_manager for stage in stages]  # noqa: SLF001 (as above)
    for stage in stages:
        stage.set_component_residency_manager(None)
    try:
        yield
    finally:
        for stage, manager in zip(stages, managers, strict=True):
            stage.set_component_residency_manager(manager)
