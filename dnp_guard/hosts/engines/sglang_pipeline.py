"""Attach the guard to one of SGLang-Diffusion's own pipelines, and guard its requests one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.engines.sglang_request import Running, check, check_policy
from dnp_guard.hosts.engines.sglang_stages import Stages, fresh

if TYPE_CHECKING:
    from dnp_guard.guard import Guard

_DENOISING = "DenoisingStage"
_ROUTER = "ProgressiveDenoisingStageRouter"


def attach(pipeline: Any, guard: Guard) -> None:
    """Guard one of the engine's own pipelines, by replacing methods of the object; its class stays as it is.

    Args:
        pipeline: the pipeline as the engine loaded it, with ``stages``.
        guard: the guard.

    Raises:
        CannotSteer: the pipeline does not draw images, is only partly in this worker, or has other than the standard
            stages; or the policy's guidance mode cannot steer it.
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
    attached = Attached(Stages(pipeline, places[0], standard[0]), guard)
    pipeline.forward = attached.forward
    standard[0]._predict_noise_with_cfg = attached.predicted  # noqa: SLF001 (the engine has no public name for it)
    standard[0]._predict_noise = attached.noted  # noqa: SLF001 (as above)


def _standard(stage: Any) -> Any:
    """Return the standard denoising stage: ``stage`` itself, or the one in a router of stages; None if neither is."""
    if type(stage).__name__ == _ROUTER:
        stage = stage.standard_stage
    return stage if type(stage).__name__ == _DENOISING else None


class Attached:
    """The guarded methods that replace the engine's own in one pipeline.

    Args:
        stages: stages of the pipeline.
        guard: the guard.
    """

    def __init__(self, stages: Stages, guard: Guard) -> None:
        self._stages, self._guard = stages, guard
        self._running: Running | None = None

    def forward(self, batch: Any, server_args: Any) -> Any:
        """Run a request under the guard.

        Raises:
            CannotSteer: no negative prompt can take effect in the request.
        """
        check(batch)
        running = self._running = Running(self._guard, self._stages, fresh(batch), server_args)
        try:
            return running.finish(self._stages.run(batch, server_args))
        except BaseException as error:
            running.abandon(type(error).__name__)
            raise
        finally:
            self._running = None

    def predicted(self, **arguments: Any) -> Any:
        """Predict and steer the noise of a step, and query the VLM about the predicted image if a query is due."""
        if self._running is None:
            raise CannotSteer("a request did not come through the pipeline", hint="Report this.")
        return self._running.predicted(arguments)

    def noted(self, *args: Any, **kwargs: Any) -> Any:
        """Predict the noise of one guidance branch as the engine does, and keep the prediction to steer the step."""
        output = self._stages.predict(*args, **kwargs)
        if self._running is not None:
            self._running.branches.append(output)
        return output
