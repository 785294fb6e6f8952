"""The stages of SGLang-Diffusion's own pipelines: look at each step, steer, and look at the finished image.

The pipeline is asked, as everywhere: its own stages encode a negative as they encode the prompt, and its own stages
after the denoising show a prediction. The stage predicts the noise once more under the negative, through its own
method, so that whatever a model needs for it is there.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.engines.running import Running, check, check_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from dnp_guard.guard import Guard

_DENOISING = "DenoisingStage"
_ROUTER = "ProgressiveDenoisingStageRouter"


def attach(pipeline: Any, guard: Guard) -> None:
    """Guard one of the engine's own pipelines; the pipeline is changed, not its classes.

    Args:
        pipeline: with ``stages``, as the engine loaded it.
        guard: the guard.

    Raises:
        CannotSteer: its stages are not the standard ones, it does not draw images, or the policy cannot steer it.
    """
    check_policy(guard.policy)
    arguments = pipeline.server_args
    if not arguments.pipeline_config.task_type.is_image_gen():
        raise CannotSteer("videos of the engine's own pipelines are not guarded", hint="Use --backend diffusers.")
    if arguments.comfyui_mode or arguments.disagg_role.name != "MONOLITHIC":
        raise CannotSteer("only a part of the pipeline is in this worker", hint="Serve the whole pipeline in one.")
    places = [place for place, stage in enumerate(pipeline.stages) if stage.role_affinity.name == "DENOISER"]
    standard = [_standard(pipeline.stages[place]) for place in places]
    if len(standard) != 1 or standard[0] is None:
        names = ", ".join(type(stage).__name__ for stage in pipeline.stages)
        raise CannotSteer(
            f"the stages of {type(pipeline).__name__} are not the standard ones: {names}",
            hint="Serve the model with --backend diffusers.",
        )
    stages = Stages(pipeline, standard[0], places[0], guard)
    pipeline.forward = stages.forward
    standard[0]._predict_noise_with_cfg = stages.predicted  # noqa: SLF001 (the engine has no public name for it)
    standard[0]._predict_noise = stages.noted  # noqa: SLF001


def _standard(stage: Any) -> Any:
    """Return the standard denoising stage that a stage is, or passes ordinary requests to; None for any other."""
    if type(stage).__name__ == _ROUTER:
        stage = stage.standard_stage
    return stage if type(stage).__name__ == _DENOISING else None


class Stages:
    """The guard in the stages of one pipeline, one request after the other.

    Args:
        pipeline: the engine's pipeline.
        denoising: its denoising stage.
        place: index of that stage in the pipeline.
        guard: the guard.
    """

    def __init__(self, pipeline: Any, denoising: Any, place: int, guard: Guard) -> None:
        self.pipeline, self.denoising, self.guard = pipeline, denoising, guard
        self.before, self.after = pipeline.stages[:place], pipeline.stages[place + 1 :]
        self._forward = pipeline.forward
        self._predict_with_cfg = denoising._predict_noise_with_cfg  # noqa: SLF001 (as above)
        self._predict = denoising._predict_noise  # noqa: SLF001
        self._running: Running | None = None

    def forward(self, batch: Any, server_args: Any) -> Any:
        """Run a request, guarded.

        Raises:
            CannotSteer: no negative can take effect in it.
        """
        check(batch)
        running = self._running = Running(self, fresh(batch), server_args)
        try:
            result = self._forward(batch, server_args)
            return running.finish(result)
        except BaseException as error:
            running.abandon(type(error).__name__)
            raise
        finally:
            self._running = None

    def drawn(self, request: Any, server_args: Any) -> Any:
        """Run a request that was kept as it came through the engine's own pipeline, in the midst of its own run."""
        return self._forward(fresh(request), server_args)

    def predicted(self, **arguments: Any) -> Any:
        """Predict the noise of a step, steered, and look at the predicted image."""
        if self._running is None:
            raise CannotSteer("a request did not come through the pipeline", hint="Report this.")
        return self._running.predicted(arguments)

    def noted(self, *args: Any, **kwargs: Any) -> Any:
        """Predict the noise of one branch, and keep it for the step."""
        output = self._predict(*args, **kwargs)
        if self._running is not None:
            self._running.branches.append(output)
        return output

    def guided(self, arguments: dict[str, Any]) -> Any:
        """Predict the noise of a step as the engine does."""
        return self._predict_with_cfg(**arguments)

    def encoded(self, request: Any, prompt: str, running: Any, server_args: Any) -> dict[str, Any]:
        """Encode another prompt with the stages before the denoising, on a copy of the request.

        Args:
            request: the request as it arrived.
            prompt: the prompt in place of its own.
            running: the request during denoising; its noise and timesteps stay as they are.
            server_args: the engine's arguments.
        """
        copied = fresh(request)
        copied.prompt = prompt
        copied.scheduler, copied.timesteps = copy.copy(running.scheduler), running.timesteps
        with _unmanaged([*self.before, self.denoising]):
            for stage in self.before:
                copied = stage(copied, server_args)
            context = self.denoising._prepare_denoising_loop(copied, server_args)  # noqa: SLF001 (as above)
        return context.cfg_policy.branches[0].kwargs

    def shown(self, running: Any, latents: Tensor, server_args: Any) -> Any:
        """Decode latents with the stages after the denoising, on a copy of the request."""
        copied = fresh(running)
        with _unmanaged([self.denoising, *self.after]), torch.autocast(latents.device.type, enabled=False):
            finish = self.denoising._post_denoising_loop  # noqa: SLF001 (as above)
            finish(copied, latents.to(running.latents.dtype), [], [], server_args, is_warmup=True)
            for stage in self.after:
                copied = stage(copied, server_args)
        return copied.output


def fresh(request: Any) -> Any:
    """Copy a request so that stages may write into the copy."""
    copied = copy.copy(request)
    for name, value in vars(request).items():
        if isinstance(value, list | dict):
            object.__setattr__(copied, name, copy.copy(value))
    object.__setattr__(copied, "sampling_params", copy.copy(request.sampling_params))
    object.__setattr__(copied, "metrics", None)  # otherwise the guard's work would be measured as the request's
    return copied


@contextmanager
def _unmanaged(stages: Sequence[Any]) -> Iterator[None]:
    """Run stages without moving their models: within another stage the engine moves none."""
    managers = [stage._component_residency_manager for stage in stages]  # noqa: SLF001 (as above)
    for stage in stages:
        stage.set_component_residency_manager(None)
    try:
        yield
    finally:
        for stage, manager in zip(stages, managers, strict=True):
            stage.set_component_residency_manager(manager)
