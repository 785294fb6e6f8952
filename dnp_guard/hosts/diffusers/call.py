"""One guarded call: everything is installed for it and removed after it, whatever happens."""

from __future__ import annotations

import inspect
import threading
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.generation.driver import View
from dnp_guard.generation.state import Request
from dnp_guard.hosts.diffusers.decoding import decoder
from dnp_guard.hosts.diffusers.families import family_of
from dnp_guard.hosts.diffusers.families.latents import FRAMES, of_frames
from dnp_guard.hosts.diffusers.families.video import ONE_EACH
from dnp_guard.hosts.diffusers.injection import Injection
from dnp_guard.hosts.diffusers.output import Output
from dnp_guard.hosts.diffusers.prediction import predict
from dnp_guard.hosts.diffusers.request import batch_of, host_of, run_of
from dnp_guard.hosts.diffusers.shown import covering, covering_latents
from dnp_guard.hosts.likeness import coarse, similarity
from dnp_guard.steering.held import Held
from dnp_guard.types import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.generation.driver import Driver
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.diffusers.injection import Conditioning
    from dnp_guard.preview.probe import Probe

_RUNNING: ContextVar[Call | None] = ContextVar("dnp_guard.running", default=None)
"""The call that runs in this context; pipelines in other threads may share its denoiser."""

_OF = "_dnp_guard_call"
"""What of a wrapped ``scheduler.step`` says whose it is."""

_WRAPPING = threading.Lock()


class Call:
    """The guard's part in one call of a pipeline.

    Args:
        guard: the guard.
        pipe: the pipeline.
        request: what is generated.
        users_negatives: the user's own negative prompt for each image.
        wanted: the arguments of the call, where they are known.
        done: sampler steps that ran before this was installed.

    Raises:
        CannotSteer: no negative can take effect in this call.
        RequestRefused: the policy does not allow so many questions.
    """

    def __init__(
        self,
        guard: Guard,
        pipe: Any,
        request: Request,
        users_negatives: Sequence[str] | None,
        wanted: Mapping[str, Any] | None = None,
        *,
        done: int = 0,
    ) -> None:
        self.guard = guard
        self.images = request.images
        self._pipe = pipe
        self._family = family_of(pipe, guard.families)
        if wanted is None and self._family.attached_only:
            raise CannotSteer(
                f"the call argument does not tell enough of a call of {type(pipe).__name__}",
                hint="Attach the guard instead: pipe.callback_on_step_end = guard.",
            )
        self._wanted = wanted or {}
        policy = guard.policy
        mode = policy.guidance.mode
        self._decode = decoder(pipe, policy.preview.method, guard.preview_vae)
        if mode == "replace" and users_negatives is None and policy.mode != "shadow":
            raise CannotSteer(
                "guidance mode 'replace' needs the user's negative as text, and only its embeddings are known",
                hint="Pass negative_prompt=, attach the guard to the pipeline, or use guidance mode 'separate'.",
            )
        self._probe = probe_for(guard, pipe)
        self._substeps = done
        self._before = _RUNNING.get()
        self.scheduler = pipe.scheduler
        self.plain_step: Any = None
        self.removed = False
        self.compared: Tensor | None = None
        self._end: Tensor | Exception | None = None
        self.held = Held(self._encode, users_negatives or [""] * request.images)
        self.driver: Driver = guard.start(replace(request, takes_up=True), policy, steering=self.held)
        self._injection = Injection(policy.guidance, self._family, self)

    def running(self) -> bool:
        """Whether the current context is the one of this call."""
        return _RUNNING.get() is self and self._pipe.scheduler is self.scheduler

    def begins_step(self) -> bool:
        """Whether the evaluation that runs begins a step, and is no sub-step of one."""
        return self._substeps % getattr(self.scheduler, "order", 1) == 0

    def order(self) -> str:
        """The branches of this call, as ``Family.order``."""
        return self._family.branches(self._pipe, self._family.order)

    def weight(self) -> float | None:
        """The weight of the unconditional branch where the pipeline normalises what it guided, otherwise None."""
        return self._family.weight(self._pipe, self._wanted)

    def evaluating(self) -> AbstractContextManager[None]:
        """Measure an evaluation of the guard's own."""
        return self.guard.metrics.overhead("evaluate")

    def failed(self, error: Exception) -> None:
        """Note what could not be steered at a step."""
        self.driver.missed(None, error)

    def install(self) -> None:
        """Wrap ``scheduler.step`` and hook the denoisers."""
        _RUNNING.set(self)
        with _WRAPPING:
            self._wrap_step()
        for denoiser in self._family.denoisers_of(self._pipe):
            self._injection.install(denoiser)

    def _wrap_step(self) -> None:
        plain = self.scheduler.step
        self.plain_step = self.scheduler.__dict__.get("step")
        signature = inspect.signature(plain)

        @wraps(plain)
        def step(*args: Any, **kwargs: Any) -> Any:
            if _RUNNING.get() is self:
                bound = signature.bind(*args, **kwargs)
                given = bound.arguments
                given["model_output"] = self._injection.guided(given["model_output"])
                now = given["model_output"], given["timestep"], given["sample"]
                self._query(*now)
                self._stepped(*now)
                return plain(*bound.args, **bound.kwargs)
            return plain(*args, **kwargs)

        setattr(step, _OF, self)
        self.scheduler.step = step

    def remove(self) -> None:
        """Put everything back as it was."""
        self._injection.reset()
        self.removed = True
        with _WRAPPING:
            # A call in another thread that shares the scheduler may have wrapped the step since, and still run.
            while (call := getattr(self.scheduler.__dict__.get("step"), _OF, None)) is not None and call.removed:
                if call.plain_step is None:
                    del self.scheduler.__dict__["step"]
                else:
                    self.scheduler.step = call.plain_step
        _RUNNING.set(self._before)

    def nearness(self, step: Step) -> list[dict[str, float]]:
        """How near each category comes to having to be asked about, by the guard's probe; none without one."""
        rule = self.driver.policy.queries.skip_probe
        if self._probe is None or rule is None or step.total is None:
            return []
        with self.guard.metrics.overhead("predict"):
            latents = self._family.unpack(self._pipe, step.prediction, self._wanted)
            return self._probe.nearness(latents, step.index / step.total, rule.max_miss)

    def ended(self) -> list[Image]:
        """What the images would be, where the call ends before they are denoised: nothing where it does not.

        Raises:
            Exception: what kept them from being predicted; latents that are still noisy would look clean.
        """
        if self._end is None or self._complete:
            return []
        if isinstance(self._end, Exception):
            raise self._end
        return self.decoded(self._end)

    @property
    def _ran_through(self) -> bool:
        """Whether no step was left out, as those after an interruption are."""
        return self._substeps >= _timesteps(self._pipe)

    @property
    def _complete(self) -> bool:
        """Whether nothing of the noise is left."""
        return self._ran_through and not _ends_early(self._pipe, self._wanted)

    def finish(self, previews: Callable[[], list[Image]]) -> Any:
        """Make the final look and give every image its outcome."""
        outcomes = self.driver.final(previews)
        self.guard.finished(self.driver)
        return outcomes

    def abandon(self, reason: str) -> None:
        """Note that the call ended without images."""
        self.driver.abandon(reason)
        self.guard.finished(self.driver)

    def _query(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Hand a step that begins to the driver, where a query is due."""
        order = getattr(self.scheduler, "order", 1)
        index, substep = divmod(self._substeps, order)
        total = -(-_timesteps(self._pipe) // order)
        if substep or not self.driver.due(index, total):
            return
        try:
            with self.guard.metrics.overhead("predict"):
                prediction, sigma = predict(self.scheduler, output, timestep, sample)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.driver.missed(Step(index, total, None, None), error)
            return
        step = Step(index, total, sigma, prediction)
        self.driver.step(step, _Predicted(self, step))

    def _stepped(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Count a sub-step, and put in force what is held once its step is over."""
        self._substeps += 1
        # Of a call that is interrupted no step says that it is the last.
        if self._wanted.get("output_type") == "latent" or (self._ran_through and not self._complete):
            try:
                self._end = predict(self.scheduler, output, timestep, sample)[0]
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._end = error
        if self.begins_step():  # the sub-steps of a step are steered alike
            self.held.take()

    def _encode(self, text: str) -> Conditioning:
        encoded = self._family.encode(self._pipe, [text], self._wanted)
        return {name: None if value is None else value[0] for name, value in encoded.items()}

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents, as the policy says: RGB, one picture per image, or one per frame."""
        return self._decode(of_frames(self._family.unpack(self._pipe, latents, self._wanted)))


@dataclass(frozen=True, slots=True)
class _Predicted(View):
    """The prediction x̂0 of one step.

    Attributes:
        call: that it is of.
        step: with the prediction.
    """

    call: Call
    step: Step

    def pictures(self) -> list[Image]:
        """Decode x̂0, as the policy says."""
        self.call.compared = coarse(self.step.prediction)
        return self.call.decoded(self.step.prediction)

    def likeness(self) -> list[float]:
        """Cosine of x̂0, averaged over 2x2 latents, with the last x̂0 that was decoded."""
        return similarity(self.step.prediction, self.call.compared)

    def nearness(self) -> list[dict[str, float]]:
        """How near each category comes to having to be asked about, by the guard's probe."""
        return self.call.nearness(self.step)


def guarded_call(
    guard: Guard, pipe: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run ``call(pipe, *args, **kwargs)`` under a guard.

    Raises:
        CannotSteer: no negative could take effect in this call.
        RequestRefused: the policy does not allow so many questions.
    """
    signature = inspect.signature(call)
    try:
        signature.bind(pipe, *args, **kwargs)
    except TypeError:
        return call(pipe, *args, **kwargs)  # the pipeline says best what is wrong with its arguments
    kwargs = {**dict(zip(list(signature.parameters)[1:], args, strict=False)), **kwargs}  # a callback may go by place
    if kwargs.get("callback_on_step_end") is guard:
        kwargs = {**kwargs, "callback_on_step_end": None}
    bound = signature.bind(pipe, **kwargs)
    bound.apply_defaults()
    wanted = bound.arguments
    family = family_of(pipe, guard.families)
    family.check(pipe, wanted)
    prompts, negatives, images = batch_of(wanted, one_each=type(pipe).__name__ in ONE_EACH)
    if guard.policy.guidance.mode == "replace" and guard.policy.mode != "shadow":
        family.check_unconditional(wanted)
    request = Request(images, host_of(pipe), prompts, run_of(pipe, wanted), shows=FRAMES if family.video else 1)
    guarded = Call(guard, pipe, request, negatives, wanted)
    for name, cover in (("callback_on_step_end", covering), ("callback", covering_latents)):
        if (own := kwargs.get(name)) is not None:
            if hasattr(own, "tensor_inputs"):  # diffusers reads it of its own callback objects only
                kwargs = {**kwargs, "callback_on_step_end_tensor_inputs": own.tensor_inputs}
            kwargs = {**kwargs, name: cover(own, lambda: guarded.driver.user_previews)}
    try:
        try:
            guarded.install()
            result = call(pipe, **kwargs)
        finally:
            guarded.remove()
        output = Output(result, wanted.get("output_type") or "pil", pipe, family, wanted, guarded.ended)
        return output.delivered(guarded.finish(output.pictures))
    except BaseException as error:
        guarded.abandon(type(error).__name__)
        raise


def probe_for(guard: Guard, pipe: Any) -> Probe | None:
    """The guard's probe, where its policy skips by one.

    Raises:
        CannotSteer: the probe reads the latents of another autoencoder.
    """
    probe = guard.probe
    if probe is not None:
        try:
            probe.check_space(pipe.vae)
        except DnpGuardError as error:
            raise CannotSteer(error.message, hint=error.hint) from error
    return probe


def _timesteps(pipe: Any) -> int:
    known: int | None = getattr(pipe, "num_timesteps", None)
    return len(pipe.scheduler.timesteps) if known is None else known


def _ends_early(pipe: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether the running call ends before its images are denoised, by the pipeline's own rule."""
    # Some pipelines do not keep the argument; where arguments are unknown, those that do are asked.
    end = wanted["denoising_end"] if "denoising_end" in wanted else getattr(pipe, "denoising_end", None)
    return isinstance(end, float) and 0 < end < 1
