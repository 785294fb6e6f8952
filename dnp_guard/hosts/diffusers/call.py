"""One guarded call: stand-ins take the places of the pipeline's parts for it and go after it, whatever happens."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.generation.driver import View
from dnp_guard.hosts.diffusers import arguments, prediction
from dnp_guard.hosts.diffusers.capture import FirstStep, capture_evaluated
from dnp_guard.hosts.diffusers.checks import check_caches
from dnp_guard.hosts.diffusers.injection import Injection
from dnp_guard.hosts.diffusers.proof import Proof
from dnp_guard.hosts.diffusers.recording import RECORDED, takes_time
from dnp_guard.hosts.diffusers.shows import Shows
from dnp_guard.hosts.diffusers.standin import CALL, StandIn, of_scheduler, stands_in
from dnp_guard.hosts.likeness import coarse, similarity
from dnp_guard.steering.held import Held
from dnp_guard.types import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.generation.driver import Driver
    from dnp_guard.generation.state import Request
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.diffusers.arguments import Evaluation
    from dnp_guard.hosts.diffusers.places import Captured
    from dnp_guard.hosts.diffusers.recording import Recording
    from dnp_guard.hosts.diffusers.standin import Answer

_STEP = ("model_output", "timestep", "sample")
"""The first arguments of every scheduler's step."""


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
        self._substeps = done
        self._stepping = ""
        self._evaluations: list[Evaluation] = []
        self._denoisers: frozenset[str] = frozenset()
        self._proof: Proof | None = None
        self._injection: Injection | None = None
        self._shows: Shows | None = None
        self._inside = False
        self.compared: Tensor | None = None
        self._end: Tensor | Exception | None = None
        self.held = Held(self._encode, negatives or [""] * request.images)
        self.driver: Driver = guard.start(replace(request, takes_up=True), policy, steering=self.held)

    def begins_step(self) -> bool:
        """Whether the evaluation that runs begins a step, and is no sub-step of one."""
        return self._substeps % self._order == 0

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
        return stands_in(vars(self._pipe).get(self._stepping))

    def aside(self) -> AbstractContextManager[None]:
        """Put the parts back for as long as the caller's own code runs."""
        return self._aside()

    @contextmanager
    def _aside(self) -> Iterator[None]:
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
            return plain(*args, **kwargs) if self._stepping else plainly(plain, *args, **kwargs)

        return answer

    def _evaluated(self, name: str) -> Any:
        part = self.recording.parts[name]

        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            if self._injection is not None and name in self._denoisers and self._looks_on:
                return self._injection.evaluate(arguments.evaluation(name, part, args, kwargs), args, kwargs)
            if self._stepping:
                return plain(*args, **kwargs)
            before = arguments.evaluation(name, part, args, kwargs)  # some use up the lists that they are given
            output = plain(*args, **kwargs)
            self.recording.keep(name, CALL, args, kwargs, output)
            self._evaluations.append(replace(before, output=output))
            return output

        return answer

    def _in_context(self, plain: Any, *args: Any, **kwargs: Any) -> Any:
        if self._injection is not None:
            self._injection.in_context(kwargs)
        return plain(*args, **kwargs)

    def _stepped(self, name: str) -> Any:
        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            if self._stepping not in {"", name}:
                return plain(*args, **kwargs)
            given = {**dict(zip(_STEP, args, strict=False)), **kwargs}
            if not self._stepping:
                self.begin(name, given["model_output"], given["sample"])
            if self._injection is not None:
                guided = self._injection.guided(given["model_output"])
                given["model_output"] = guided
                if args:
                    args = (guided, *args[1:])
                else:
                    kwargs = {**kwargs, "model_output": guided}
            now = given["model_output"], given["timestep"], given["sample"]
            self._query(*now)
            self._count(*now)
            return plain(*args, **kwargs)

        return answer

    def begin(self, scheduler: str, output: Tensor, sample: Tensor) -> None:
        """Show, before the first step, what a negative of this call is and what it looks like.

        Raises:
            CannotSteer: it cannot be shown.
        """
        self._stepping = scheduler
        own = _of_denoiser(self._evaluations, sample)
        if sample.shape[0] != self.images:
            raise CannotSteer(
                f"it denoises {sample.shape[0]} latents for {self.images} images, which cannot be told apart",
                hint="Generate one image in a call, or use another pipeline of the same model.",
            )
        policy, kind = self.driver.policy, type(own[0].part)
        same = [name for name, part in self.recording.parts.items() if type(part) is kind and takes_time(part)]
        self._denoisers = frozenset({own[0].name, *same})
        self._shows = Shows(
            self.recording,
            dict.fromkeys(self._denoisers, own),
            scheduler,
            self.images,
            policy.preview.method,
            self.guard.preview_vae,
        )
        self._evaluations = []
        self._check_shows(sample)
        if policy.mode == "shadow":
            return
        check_caches(own[0].part)
        proof = self._proven(FirstStep(own, output, sample))
        if policy.guidance.mode == "replace" and not proof.places.negative:
            raise CannotSteer(
                "guidance mode 'replace' has no unconditional slot in this call: a negative prompt changes nothing in "
                "what its denoiser is given",
                hint="Use guidance mode 'separate', or call the pipeline with guidance and a negative_prompt.",
            )
        channels = self._shows.channels(output)
        self._proof = proof
        self._injection = Injection(policy.guidance, proof.places, proof.arithmetic, channels, self)

    def _check_shows(self, sample: Tensor) -> None:
        try:
            self._of_shows.check(sample)
        except DnpGuardError:
            raise
        except Exception as error:
            raise CannotSteer(
                f"its end cannot be run on a copy, which shows its predictions: {error}",
                hint="Pass arguments that can be read twice, or use another pipeline of the same model.",
            ) from error

    @property
    def scheduler(self) -> Any:
        """The scheduler that steps."""
        return self.recording.schedulers.get(self._stepping)

    def begin_late(self) -> None:
        """Show the same in a call whose first step is over, by having a copy evaluate it again.

        Raises:
            CannotSteer: it cannot be shown.
        """
        scheduler = (
            "scheduler" if "scheduler" in self.recording.schedulers else next(iter(self.recording.schedulers), "")
        )
        try:
            first = capture_evaluated(self.recording, scheduler)
        except Exception as error:
            raise CannotSteer(
                f"its call cannot be made again on a copy, which shows where its prompt goes: {error}",
                hint="Attach the guard instead: pipe.callback_on_step_end = guard.",
            ) from error
        self._evaluations = list(first.evaluations)
        self.begin(scheduler, first.output, first.sample)

    def _proven(self, own: FirstStep) -> Proof:
        try:
            return Proof(self.recording, own, self._stepping, _any_words(self.guard))
        except DnpGuardError:
            raise
        except Exception as error:
            raise CannotSteer(
                f"its call cannot be made again on a copy, which shows where its prompt goes: {error}",
                hint="Pass arguments that can be read twice, or use another pipeline of the same model.",
            ) from error

    def nearness(self, step: Step) -> list[dict[str, float]]:
        """How near each category comes to having to be asked about, by the guard's probe; none without one."""
        rule, probe = self.driver.policy.queries.skip_probe, self.guard.probe
        if probe is None or rule is None or step.total is None or self._shows is None:
            return []
        with self.guard.metrics.overhead("predict"):
            return probe.nearness(self._shows.scaled(step.prediction), step.index / step.total, rule.max_miss)

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
    def _order(self) -> int:
        return int(getattr(self.scheduler, "order", 1))

    @property
    def _ran_through(self) -> bool:
        """Whether no step was left out, as those after an interruption are."""
        return self._substeps >= self._timesteps

    @property
    def _complete(self) -> bool:
        """Whether nothing of the noise is left."""
        return self._ran_through and not self._ends_early

    @property
    def _timesteps(self) -> int:
        known: int | None = getattr(self._pipe, "num_timesteps", None)
        return len(getattr(self.scheduler, "timesteps", ())) if known is None else known

    @property
    def _ends_early(self) -> bool:
        """Whether the running call ends before its images are denoised, by the pipeline's own rule."""
        end = self.recording.given.get("denoising_end")
        return isinstance(end, float) and 0 < end < 1

    def finish(self, previews: Callable[[], list[Image]]) -> Any:
        """Make the final look and give every image its outcome."""
        if not self._stepping:
            self.failed(CannotSteer("the call took no step of its own scheduler", hint="Guard the one that denoises."))
        outcomes = self.driver.final(previews)
        self.guard.finished(self.driver)
        return outcomes

    def abandon(self, reason: str) -> None:
        """Note that the call ended without images."""
        self.driver.abandon(reason)
        self.guard.finished(self.driver)

    def _query(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Hand a step that begins to the driver, where a query is due."""
        index, substep = divmod(self._substeps, self._order)
        total = -(-self._timesteps // self._order)
        if substep or not self.driver.due(index, total):
            return
        try:
            with self.guard.metrics.overhead("predict"):
                predicted, sigma = self._predict(output, timestep, sample)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.driver.missed(Step(index, total, None, None), error)
            return
        step = Step(index, total, sigma, predicted)
        self.driver.step(step, _Predicted(self, step))

    def _count(self, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Count a sub-step, and put in force what is held once its step is over."""
        self._substeps += 1
        # Of a call that is interrupted no step says that it is the last.
        latent = self.recording.given.get("output_type") == "latent"
        if latent or (self._ran_through and not self._complete):
            try:
                self._end = self._predict(output, timestep, sample)[0]
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._end = error
        if self.begins_step():  # the sub-steps of a step are steered alike
            self.held.take()

    def _predict(self, output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor, float | None]:
        return prediction.predict(self.scheduler, output, timestep, sample)

    def _encode(self, text: str) -> Captured:
        if self._proof is None:
            raise DnpGuardError("nothing is steered in shadow", hint="Report this.")
        return self._proof.captured(text)

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents, as the policy says: RGB, one picture per image, or some frames of each."""
        return self._of_shows.pictures(latents)

    def encoded(self, picture: Image, like: Tensor) -> Tensor:
        """Latents as the sampler holds them, [B, ...], each of which decodes to a picture."""
        return self._of_shows.encoded(picture, like)

    @property
    def _of_shows(self) -> Shows:
        if self._shows is None:
            raise CannotSteer("the call ended before its first step", hint="Ask for at least one step.")
        return self._shows


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


def _of_denoiser(evaluations: Sequence[Evaluation], sample: Tensor) -> list[Evaluation]:
    """The evaluations of the part that was evaluated last before a step.

    Raises:
        CannotSteer: there are none.
    """
    last = next((each for each in reversed(evaluations) if takes_time(each.part)), None)
    if last is None:
        raise CannotSteer(
            f"no part of it that can be evaluated again denoises its latents ({'x'.join(map(str, sample.shape))})",
            hint="Use a pipeline whose denoiser is a torch module.",
        )
    if kept := arguments.keeps(last.output):
        raise CannotSteer(
            f"its {last.name} hands a {kept} of the whole batch on to later steps, where no negative is",
            hint="Use the pipeline of the same model that computes each step anew.",
        )
    return [each for each in evaluations if each.name == last.name]


def _any_words(guard: Guard) -> str:
    """Words that may be injected; any will do."""
    negatives = [text for category in guard.policy.categories for text in (category.negative or ())]
    return next((text for text in negatives if "$" not in text), "a word")
