"""One guarded call: stand-ins take the places of the pipeline's parts for it and go after it, whatever happens."""

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
from dnp_guard.hosts.diffusers.attending.attending import Attending
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
    from dnp_guard.hosts.diffusers.showing.shows import Shows
    from dnp_guard.types import Outcome


class Call:
    """The guard's part in one call of a pipeline.

    Args:
        guard: the guard.
        recording: of the call.
        request: what is generated.
        negatives: the user's own negative prompt for each image; None where only its embeddings are known.
        done: sampler steps that ran before this was installed.

    Raises:
        CannotSteer: no negative can take effect in this call.
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
        """Whether the evaluation that runs begins a step, and is no sub-step of one."""
        return self._substeps.begins_step

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Measure an evaluation of the guard's own."""
        with self.guard.metrics.overhead("evaluate"):
            yield

    def failed(self, error: Exception) -> None:
        """Note what could not be steered at a step."""
        self.driver.missed(None, error)

    def install(self, more: Mapping[str, Answer] | None = None) -> None:
        """Put a stand-in in the place of each part and scheduler of the pipeline.

        Args:
            more: what else answers for its schedulers.
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
        """Put the parts back."""
        own = vars(self._pipe)
        for name, part in {**self.recording.parts, **self.recording.schedulers}.items():
            if stands_in(own.get(name)):
                own[name] = part
        own.pop("maybe_free_model_hooks", None)

    @property
    def _looks_on(self) -> bool:
        """Whether the pipeline still steps by the scheduler that it began with."""
        return stands_in(vars(self._pipe).get(self._substeps.scheduler))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put the parts back for as long as the caller's own code runs."""
        self.remove()
        try:
            yield
        finally:
            self.install()

    def _free_hooks(self) -> Any:
        """Let the pipeline see its own parts, to which it adds hooks again."""
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
            before = arguments.evaluation(name, part, args, kwargs)  # some use up the lists that they are given
            attending = self._attending
            output = attending.first(name, part, args, kwargs) if attending.wanted else plain(*args, **kwargs)
            self.recording.keep(name, CALL, args, kwargs, output)
            if name in self.recording.timed:
                self._evaluations.append(replace(before, output=output))
                # Attention has to see how every evaluation of the step reads the prompt.
                first = None if attending.wanted else rehearse(self.recording, self._evaluations)
                if first is not None:
                    self.begin(first)
            return output

        return answer

    def _as_rehearsed(self, evaluation: Evaluation) -> bool:
        """Whether the rest of the first step is as a copy showed it; nothing is steered where it is not."""
        again = self.driver.session.state.drawing is not None  # the same call, which was shown when it was first made
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
        """Show, before the first step, what a negative of this call is and what it looks like.

        Raises:
            CannotSteer: it cannot be shown.
        """
        self._substeps.scheduler = first.scheduler
        policy = self.driver.policy
        self.begun = begun = begin(self.guard, policy, self.recording, first, self.images)
        self._rehearsed = sum(each.name in begun.denoisers for each in self._evaluations) - 1
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
        """Begin to steer, with nothing kept of what was evaluated before."""
        guidance = self.driver.policy.guidance
        self._injection = Injection(guidance, proof.places, proof.arithmetic, channels, self, self._attention)

    def begin_again(self) -> None:
        """Be ready for the call to be made again, steered from its first evaluation on.

        Raises:
            CannotSteer: the call was interrupted, or took no step.
        """
        if (begun := self.begun) is None or begun.proof is None or not self._substeps.ran_through:
            raise CannotSteer("the call ended before its last step", hint="Let it run through.")
        self._substeps.begin_again()
        self._inject(begun.proof, begun.channels)
        self.compared, self._end = None, None
        self.held.take()

    def begin_late(self) -> None:
        """Show the same in a call whose first step is over, by having a copy evaluate it again.

        Raises:
            CannotSteer: it cannot be shown.
        """
        self.begin(evaluated_again(self.recording))

    def ended(self) -> list[Image]:
        """What the images would be, where the call ends before they are denoised: nothing where it does not.

        Raises:
            Exception: what kept them from being predicted; latents that are still noisy would look clean.
        """
        if self._end is None or self._substeps.complete:
            return []
        if isinstance(self._end, Exception):
            raise self._end
        return self.decoded(self._end)

    def check_steps(self) -> None:
        """See that the call took a step of its own scheduler; it is a miss where it did not."""
        if self._substeps.none:
            self.failed(CannotSteer("the call took no step of its own scheduler", hint="Guard the one that denoises."))

    def finish(self, previews: Callable[[], list[Image]]) -> tuple[Outcome, ...]:
        """Make the final look and give every image its outcome, without drawing anything again."""
        self.check_steps()
        outcomes = self.driver.final(previews)
        self.guard.finished(self.driver)
        return outcomes

    def abandon(self, reason: str) -> None:
        """Note that the call ended without images."""
        self.driver.abandon(reason)
        self.guard.finished(self.driver)

    def _query(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Hand a step that begins to the driver, where a query is due."""
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
        """Count a sub-step, and put in force what is held once its step is over."""
        self._substeps.count()
        if self._substeps.may_end_noisy:
            try:
                self._end = self._predict(output, timestep, sample)[0]
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._end = error
        if self.begins_step():  # the sub-steps of a step are steered alike
            self.held.take()

    def _predict(self, output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor, float | None]:
        return prediction.predict(self._substeps.stepping, output, timestep, sample)

    def _encode(self, text: str) -> Captured:
        if self.begun is None or self.begun.proof is None:
            raise DnpGuardError("nothing is steered in shadow", hint="Report this.")
        return self.begun.proof.captured(text)

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents, as the policy says: RGB, one picture per image, or some frames of each."""
        return self._of_shows.pictures(latents)

    def encoded(self, picture: Image, like: Tensor) -> Tensor:
        """Latents as the sampler holds them, [B, ...], each of which decodes to a picture."""
        return self._of_shows.encoded(picture, like)

    @property
    def _of_shows(self) -> Shows:
        if self.begun is None:
            raise CannotSteer("the call ended before its first step", hint="Ask for at least one step.")
        return self.begun.shows
