"""Guard one call of a pipeline: stand-ins replace the pipeline's parts during the call, and are always removed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.generation.redrawing import check_time
from dnp_guard.hosts.diffusers import prediction
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.capture import FirstStep, rehearse
from dnp_guard.hosts.diffusers.asking.recording import RECORDED
from dnp_guard.hosts.diffusers.asking.standin import CALL, STEP, StandIn, of_scheduler, stands_in
from dnp_guard.hosts.diffusers.attending.choice import Attending
from dnp_guard.hosts.diffusers.beginning import begin, evaluated_again
from dnp_guard.hosts.diffusers.injection import Injection
from dnp_guard.hosts.diffusers.predicted import Predicted
from dnp_guard.hosts.diffusers.substeps import Substeps
from dnp_guard.steering.held import Held
from dnp_guard.types import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.generation.driver import Driver
    from dnp_guard.generation.state import Request
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.places import Captured
    from dnp_guard.hosts.diffusers.asking.proof import Proof
    from dnp_guard.hosts.diffusers.asking.recording import Recording
    from dnp_guard.hosts.diffusers.asking.standin import Answer
    from dnp_guard.hosts.diffusers.attending.injection import AttentionInjection
    from dnp_guard.hosts.diffusers.beginning import Begun
    from dnp_guard.hosts.diffusers.showing.predicted_pictures import Shows
    from dnp_guard.types import Outcome


class Call:
    """One guarded call of a pipeline: it queries the VLM at the due steps, and steers the steps that follow.

    Args:
        guard: the guard.
        recording: recording of the call.
        request: number of images, prompts and settings of the call, for the policy and the audit record.
        negatives: the user's own negative prompt per image; None if only its embeddings are known.
        done: number of sampler steps that ran before the guard was installed.

    Raises:
        CannotSteer: no negative prompt can take effect in this call.
        RequestRefused: the policy does not allow so many questions.
    """

    def __init__(
        self,
        guard: Guard,
        recording: Recording,
        request: Request,
        negatives: Sequence[str] | None,
        *,
        done: int = 0,
    ) -> None:
        self.guard = guard
        self.images = request.images
        self.recording = recording
        self._pipe = recording.pipe
        policy = guard.policy
        if policy.guidance.mode == "replace" and negatives is None and policy.mode != "shadow":
            raise CannotSteer(
                "guidance mode 'replace' needs the user's negative as text, and only its embeddings are known",
                hint="Pass negative_prompt=, or use guidance mode 'separate'.",
            )
        self._attending = Attending(policy, recording.parts)
        self._substeps = Substeps(recording, done)
        self._evaluations: list[Evaluation] = []
        self._rehearsed = 0
        self.begun: Begun | None = None
        self._attention: AttentionInjection | None = None
        self._injection: Injection | None = None
        self.compared: Tensor | None = None
        self._end: Tensor | Exception | None = None
        self.held = Held(self._encode, negatives or [""] * request.images)
        self.driver: Driver = guard.start(replace(request, takes_up=True), policy, steering=self.held)

    def begins_step(self) -> bool:
        """Return whether the running evaluation begins a step, and is not a sub-step of one."""
        return self._substeps.begins_step

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Measure the time of an evaluation that the guard adds, in a ``with`` block."""
        with self.guard.metrics.overhead("evaluate"):
            yield

    def failed(self, error: Exception) -> None:
        """Record that a step could not be steered."""
        self.driver.missed(None, error)

    def install(self, more: Mapping[str, Answer] | None = None) -> None:
        """Replace every part and scheduler of the pipeline by a stand-in, through which the guard sees and steers.

        Args:
            more: functions that answer in place of the schedulers' own, by name, besides ``step``.
        """
        own = vars(self._pipe)
        for name, part in self.recording.parts.items():
            answers: dict[str, Any] = {function: self._answered(name, function) for function in RECORDED[1:]}
            own[name] = StandIn(part, {**answers, CALL: self._evaluated(name), "cache_context": self._in_context})
        for name, scheduler in self.recording.schedulers.items():
            own[name] = of_scheduler(scheduler, {**(more or {}), "step": self._stepped(name)})
        if hasattr(self._pipe, "maybe_free_model_hooks"):
            own["maybe_free_model_hooks"] = self._free_hooks

    def remove(self) -> None:
        """Put the pipeline's own parts and schedulers back in place of the stand-ins."""
        own = vars(self._pipe)
        for name, part in {**self.recording.parts, **self.recording.schedulers}.items():
            if stands_in(own.get(name)):
                own[name] = part
        own.pop("maybe_free_model_hooks", None)

    @property
    def _looks_on(self) -> bool:
        """Whether the pipeline still uses the scheduler that it began with."""
        return stands_in(vars(self._pipe).get(self._substeps.scheduler))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put the pipeline's own parts back while the caller's code runs in a ``with`` block."""
        self.remove()
        try:
            yield
        finally:
            self.install()

    def _free_hooks(self) -> Any:
        """Put the pipeline's own parts back, and free its offloading hooks: diffusers then adds hooks to the parts."""
        self.remove()
        return self._pipe.maybe_free_model_hooks()

    def _answered(self, name: str, function: str) -> Any:
        plainly = self.recording.recorder(name, function)

        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            return plain(*args, **kwargs) if self._substeps.scheduler else plainly(plain, *args, **kwargs)

        return answer

    def _evaluated(self, name: str) -> Any:
        part = self.recording.parts[name]

        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            injection = self._injection
            if injection is not None and self.begun and name in self.begun.denoisers and self._looks_on:
                evaluation = arguments.evaluation(name, part, args, kwargs)
                if self._as_rehearsed(evaluation):
                    return injection.evaluate(evaluation, args, kwargs)
            if self._substeps.scheduler:
                return plain(*args, **kwargs)
            before = arguments.evaluation(name, part, args, kwargs)  # some denoisers empty their lists
            attending = self._attending
            output = attending.first(name, part, args, kwargs) if attending.wanted else plain(*args, **kwargs)
            self.recording.keep(name, CALL, args, kwargs, output)
            if name in self.recording.timed:
                self._evaluations.append(replace(before, output=output))
                # Attention needs to see how every evaluation of the step reads the prompt.
                first = None if attending.wanted else rehearse(self.recording, self._evaluations)
                if first is not None:
                    self.begin(first)
            return output

        return answer

    def _as_rehearsed(self, evaluation: Evaluation) -> bool:
        """Return whether an evaluation has the arguments that it had on a copy of the call; if not, stop steering."""
        again = self.driver.session.state.drawing is not None  # a repeated call, which was proven the first time
        if not again and self._substeps.none and self.begun is not None and self.begun.proof is not None:
            self._rehearsed += 1
            try:
                self.begun.proof.check(self._rehearsed, evaluation)
            except CannotSteer as error:
                self.failed(error)
                self._injection = None
                return False
        return True

    def _in_context(self, plain: Any, *args: Any, **kwargs: Any) -> Any:
        if self._injection is not None:
            self._injection.in_context(kwargs)
        return plain(*args, **kwargs)

    def _stepped(self, name: str) -> Any:
        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            if self._substeps.scheduler not in {"", name}:
                return plain(*args, **kwargs)
            check_time(self.driver)
            given = {**dict(zip(STEP, args, strict=False)), **kwargs}
            if not self._substeps.scheduler:
                self.begin(FirstStep(self._evaluations, given["model_output"], given["sample"], name))
            if self._injection is not None:
                given["model_output"] = guided = self._injection.guided(given["model_output"])
                args, kwargs = ((guided, *args[1:]), kwargs) if args else (args, {**kwargs, "model_output": guided})
            now = given["model_output"], given["timestep"], given["sample"]
            self._query(*now)
            self._count(*now)
            return plain(*args, **kwargs)

        return answer

    def begin(self, first: FirstStep) -> None:
        """Prove before the first step where a negative prompt goes in the call, and how predictions become pictures.

        Raises:
            CannotSteer: no negative prompt can take effect, or the predictions do not become pictures.
        """
        self._substeps.scheduler = first.scheduler
        policy = self.driver.policy
        self.begun = begun = begin(self.guard, policy, self.recording, first, self.images)
        self._rehearsed = sum(evaluation.name in begun.denoisers for evaluation in self._evaluations) - 1
        self._evaluations = []
        if policy.queries.sigmas:
            self.driver.session.levels = self._substeps.levels
        if (proof := begun.proof) is None:
            return
        self._attention = self._attending.injection(proof, begun.words, self)
        if self._attention is not None:
            self.driver.session.steers_attention(guided=proof.places.negative)
        self._inject(proof, begun.channels)

    def _inject(self, proof: Proof, channels: int) -> None:
        """Begin to steer, and use nothing from earlier evaluations."""
        guidance = self.driver.policy.guidance
        self._injection = Injection(guidance, proof.places, proof.arithmetic, channels, self, self._attention)

    def begin_again(self) -> None:
        """Prepare to repeat the call, steered from its first evaluation on.

        Raises:
            CannotSteer: the call ended before its last step, or was not steered.
        """
        if (begun := self.begun) is None or begun.proof is None or not self._substeps.ran_through:
            raise CannotSteer("the call ended before its last step", hint="Let it run through.")
        self._substeps.begin_again()
        self._inject(begun.proof, begun.channels)
        self.compared, self._end = None, None
        self.held.take()

    def begin_late(self) -> None:
        """Do the same as :meth:`begin` for a call that is past its first step: a copy evaluates that step again.

        Raises:
            CannotSteer: no negative prompt can take effect, or the predictions do not become pictures.
        """
        self.begin(evaluated_again(self.recording))

    def ended(self) -> list[Image]:
        """Return the predicted images if the call ended with latents that are still noisy; otherwise an empty list.

        Raises:
            Exception: the error that prevented the prediction. Noisy latents are not shown instead, because nothing
                can be seen in them.
        """
        if self._end is None or self._substeps.complete:
            return []
        if isinstance(self._end, Exception):
            raise self._end
        return self.decoded(self._end)

    def check_steps(self) -> None:
        """Check that the call took a step of its own scheduler; if not, record that it could not be guarded."""
        if self._substeps.none:
            self.failed(CannotSteer("the call took no step of its own scheduler", hint="Guard the one that denoises."))

    def finish(self, previews: Callable[[], list[Image]]) -> tuple[Outcome, ...]:
        """Query the VLM about the finished images, and settle the outcome of every image, without retries."""
        self.check_steps()
        outcomes = self.driver.final(previews)
        self.guard.finished(self.driver)
        return outcomes

    def abandon(self, reason: str) -> None:
        """Record that the call ended without images."""
        self.driver.abandon(reason)
        self.guard.finished(self.driver)

    def _query(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Query the VLM about the image that a step predicts, if a query is due."""
        (index, substep), total = self._substeps.step, self._substeps.steps
        if substep or not self.driver.due(index, total):
            return
        try:
            with self.guard.metrics.overhead("predict"):
                predicted, sigma = self._predict(output, timestep, sample)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.driver.missed(Step(index, total, None, None), error)
            return
        step = Step(index, total, sigma, predicted)
        self.driver.step(step, Predicted(self, step))

    def _count(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Count a sub-step; after the last one of a step, put the negatives of the last query in force."""
        self._substeps.count()
        if self._substeps.may_end_noisy:
            try:
                self._end = self._predict(output, timestep, sample)[0]
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._end = error
        if self.begins_step():  # all sub-steps of a step are steered alike
            self.held.take()

    def _predict(self, output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor, float | None]:
        return prediction.predict(self._substeps.stepping, output, timestep, sample)

    def _encode(self, text: str) -> Captured:
        if self.begun is None or self.begun.proof is None:
            raise DnpGuardError("nothing is steered in shadow", hint="Report this.")
        return self.begun.proof.captured(text)

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents to RGB as the policy's ``preview`` requires: a picture per image, or some frames per video."""
        return self._of_shows.pictures(latents)

    def encoded(self, picture: Image, like: Tensor) -> Tensor:
        """Encode a picture as latents in the sampler's form, [B, ...], the same for every image of the batch."""
        return self._of_shows.encoded(picture, like)

    @property
    def _of_shows(self) -> Shows:
        if self.begun is None:
            raise CannotSteer("the call ended before its first step", hint="Ask for at least one step.")
        return self.begun.shows
