"""Guard those of vLLM-Omni's own pipelines that use the engine's ``CFGParallelMixin``.

One method of the mixin predicts the guided noise of a step, and another runs the scheduler's step; the guard replaces
both. ``PIPELINES`` lists the guarded classes, because the mixin does not tell what a pipeline draws. According to their
source code, the listed ones draw images from text, predict one tensor per step, and return pixels of about -1…1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.engines.ranks import Ranks
from dnp_guard.hosts.engines.sglang_request import check_policy
from dnp_guard.hosts.engines.vllm_omni_batch import DIFFUSERS, RunningBatch, check_batch
from dnp_guard.hosts.engines.vllm_omni_rehearsal import FirstPrediction, PipelineMethod, Rehearsal, fresh, outputs
from dnp_guard.preview.autoencoder import to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from dnp_guard.guard import Guard

MIXIN = "CFGParallelMixin"
PIPELINES = frozenset(
    {
        "FluxPipeline",
        "OvisImagePipeline",
        "QwenImagePipeline",
        "StableDiffusion3Pipeline",
        "StableDiffusionXLPipeline",
    }
)
"""Classes of vLLM-Omni 0.30.0 that are guarded."""
_NO_CACHE = (None, "", "none")


def attach(pipeline: Any, guard: Guard) -> Ranks:
    """Guard one of the engine's own pipelines, by replacing methods of the object; its class stays as it is.

    Args:
        pipeline: the pipeline as the engine loaded it, with ``od_config``.
        guard: the guard.

    Returns:
        The ranks (processes) that draw the pipeline's images together.

    Raises:
        CannotSteer: the class is not listed; the engine is configured to skip parts of steps, to mix the steps of
            several requests, to deliver latents, or to split requests or layers among ranks; or the policy's guidance
            mode cannot steer the pipeline.
    """
    kinds = [kind.__name__ for kind in type(pipeline).__mro__]
    if MIXIN not in kinds or kinds[0] not in PIPELINES:
        known = ", ".join(sorted(PIPELINES))
        raise CannotSteer(
            f"{kinds[0]} is a pipeline of vLLM-Omni's own, in which no negative is known to take effect",
            hint=f"Serve the model with {DIFFUSERS}. Of the engine's own pipelines, these are guarded: {known}.",
        )
    check_policy(guard.policy, DIFFUSERS)
    config = pipeline.od_config
    if config.cache_backend not in _NO_CACHE:
        raise CannotSteer(
            f"the cache backend {config.cache_backend!r} skips parts of steps", hint="Serve without a cache backend."
        )
    if config.step_execution:
        raise CannotSteer(
            "step-wise execution mixes the steps of many requests", hint="Serve without step_execution and streaming."
        )
    if config.output_type == "latent":
        raise CannotSteer("latents are delivered without a look", hint="Serve with another output_type.")
    parallel = config.parallel_config
    if (parallel.data_parallel_size or 1) > 1 or parallel.pipeline_parallel_size > 1:
        raise CannotSteer(
            "data and pipeline parallelism give each rank other requests, or other layers",
            hint="Use tensor, sequence or guidance parallelism, or one server per replica.",
        )
    attached = AttachedMixin(pipeline, guard)
    pipeline.forward = attached.forward
    pipeline.predict_noise_maybe_with_cfg = attached.predicted
    pipeline.scheduler_step_maybe_with_cfg = attached.stepped
    pipeline.combine_cfg_noise = attached.combined
    return attached.ranks


class AttachedMixin:
    """The guarded methods that replace the engine's own in one pipeline; they run one batch after the other.

    Args:
        pipeline: the engine's pipeline.
        guard: the guard.

    Attributes:
        ranks: the ranks (processes) that draw the pipeline's images together.
    """

    def __init__(self, pipeline: Any, guard: Guard) -> None:
        self._pipeline, self._guard = pipeline, guard
        self._method = PipelineMethod(pipeline, pipeline.forward)
        self._predict = pipeline.predict_noise_maybe_with_cfg
        self._step = pipeline.scheduler_step_maybe_with_cfg
        self._combine = pipeline.combine_cfg_noise
        self.ranks = Ranks()
        self._rehearsal: Rehearsal | None = None
        self._running: RunningBatch | None = None
        self._unconditional: Any = None

    def forward(self, batch: Any) -> Any:
        """Run a batch of requests under the guard.

        Raises:
            CannotSteer: no negative prompt can take effect in the batch, or the ranks are out of step.
        """
        with self.ranks.request():
            check_batch(batch)
            rehearsal = self._rehearsal = Rehearsal(self._method, self.ranks, fresh(batch))
            running = self._running = RunningBatch(self._guard, rehearsal, self._pipeline)
            try:
                result = self._method.forward(batch)
                replaced = self.ranks.together(lambda: running.finish(result), rehearsal)
            except BaseException as error:
                running.abandon(type(error).__name__)
                raise
            finally:
                self._rehearsal = self._running = None
        self._deliver(result, replaced)
        return result

    def predicted(
        self,
        do_true_cfg: bool,  # noqa: FBT001 (the engine's)
        true_cfg_scale: float,
        positive_kwargs: dict[str, Any],
        negative_kwargs: dict[str, Any] | None,
        cfg_normalize: bool = True,  # noqa: FBT001, FBT002 (the engine's)
        output_slice: int | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Predict and steer the guided noise of a step.

        In a rehearsal, a run on a copy of the batch, return the latents to show, or end the run by ``FirstPrediction``.
        """
        if self._method.encoding:
            raise FirstPrediction(positive_kwargs)
        if self._method.shown is not None:
            return self._method.shown
        rehearsal, running = self._present()
        rehearsal.arguments = {
            "do_true_cfg": do_true_cfg,
            "true_cfg_scale": true_cfg_scale,
            "positive_kwargs": positive_kwargs,
            "output_slice": output_slice,
        }
        negative = self.ranks.together(running.begin, rehearsal)
        if negative is not None:
            negative_kwargs = rehearsal.under(negative)
        self._unconditional = None
        output = self._predict(
            do_true_cfg, true_cfg_scale, positive_kwargs, negative_kwargs, cfg_normalize, output_slice, kwargs
        )
        unconditional = output if self._unconditional is None else self._unconditional
        pushed = self.ranks.together(lambda: running.steered(output, unconditional), rehearsal)
        return output if pushed is None else pushed.to(output)

    def combined(self, positive: Any, negative: Any, *args: Any, **kwargs: Any) -> Any:
        """Combine the guidance branches of a step as the engine does, and keep the unconditional prediction."""
        self._unconditional = negative[0] if isinstance(negative, tuple) else negative
        return self._combine(positive, negative, *args, **kwargs)

    def stepped(self, noise_pred: Any, t: Any, latents: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the scheduler's step, after querying the VLM about the predicted image if a query is due.

        In a rehearsal, a run on a copy of the batch, return the latents to show.
        """
        if self._method.shown is not None:
            return self._method.shown.to(latents)
        rehearsal, running = self._present()
        self.ranks.together(lambda: running.look(noise_pred, t, latents), rehearsal)
        return self._step(noise_pred, t, latents, *args, **kwargs)

    def _present(self) -> tuple[Rehearsal, RunningBatch]:
        if self._rehearsal is None or self._running is None:
            raise CannotSteer("a request did not come through the pipeline's forward", hint="Report this.")
        return self._rehearsal, self._running

    def _deliver(self, result: Any, replaced: dict[int, Image]) -> None:
        """Put replacement pictures into a result; the keys of ``replaced`` are indices of images in the batch."""
        first = 0
        for output in outputs(result):
            if not self.ranks.leads:
                output.output = None  # the engine takes the first rank's output; this one is unchecked
                continue
            made, images = output.output, range(first, first + len(output.output))
            for index in replaced.keys() & set(images):
                made = made.clone() if made is output.output else made
                made[index - first] = (to_tensor([replaced[index]])[0] * 2 - 1).to(made)
            output.output, first = made, images.stop
