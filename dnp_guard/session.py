"""One generation: look, ask, judge, steer, record. Knows no host and never raises into a running generation."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dnp_guard import failmode, fields, judge, schedule
from dnp_guard.errors import DnpGuardError, RequestRefused
from dnp_guard.policy import allowed_questions, negation, questions, questions_per_image
from dnp_guard.types import Action, Decision, ImageReport, Look, Negative, Outcome, Report, Step
from dnp_guard.vlm.base import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.plugins import Plugins
    from dnp_guard.policy import Policy
    from dnp_guard.recorder import Recorder
    from dnp_guard.types import Finding, Question
    from dnp_guard.vlm.opinions import Opinions


class Host(Protocol):
    """What a session needs of the host whose step it looks at."""

    def similarity(self, step: Step) -> Sequence[float]:
        """How like the last prediction that was looked at this one is: -1…1 an image; nothing before the first."""

    def previews(self, step: Step) -> list[Image]:
        """Decode the step's prediction: one RGB picture an image of the batch."""

    def apply(self, negatives: Sequence[Negative | None]) -> None:
        """Steer each image by its negative, or no more, from the next denoiser evaluation on."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a session works with; it keeps these to its end, whatever is reloaded meanwhile."""

    policy: Policy
    asker: Opinions
    plugins: Plugins
    recorder: Recorder
    redact: Callable[[str], Mapping[str, Any]]
    """Turns a prompt into the record's ``prompt{…}``, as the policy says."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a generation was asked for, as far as the host knows.

    Attributes:
        images: the size of the batch.
        host: ``host{name, version, target}`` of the record.
        prompts: the prompts, where the host tells them.
        run: ``run{seed, scheduler, steps, guidance_scale, size}`` of the record.
    """

    images: int
    host: Mapping[str, Any]
    prompts: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Image:
    """What a session knows of one image."""

    history: judge.History = field(default_factory=judge.History)
    last: Decision | None = None
    final: Decision | None = None
    secret: bool = False
    negative: Negative | None = None
    looks: list[Look] = field(default_factory=list)
    negatives: list[tuple[int, Negative]] = field(default_factory=list)

    @property
    def acted_on(self) -> bool:
        """Whether something was seen at the last look, or is still held, that is more than recorded."""
        return self.last is not None and self.last.action not in {None, Action.MONITOR}


@dataclass(frozen=True, slots=True)
class State:
    """What a session remembers between two calls of its host: enough to go on in another process.

    Attributes:
        id: of the session.
        images: what is known of each image.
        total: steps of the run, once a host has said it.
        answered: the last step that was answered; -1 for none.
        missed: whether a look was missed and no later one was answered.
        looking: whether it looks at all.
        recorded: whether every record was written.
        compared: categories that the last look asked about.
        degraded: reasons for which the guard could not do its job at some step.
    """

    id: str
    images: tuple[_Image, ...]
    total: int | None
    answered: int
    missed: bool
    looking: bool
    recorded: bool
    compared: frozenset[str]
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Answered:
    """A look that was answered."""

    questions: Sequence[Question]
    rows: Sequence[Sequence[float]]
    pictures: list[Image]
    latency_ms: float


_ACTIONS = tuple(Action)
UserPreviews = Literal["withhold", "blur", "allow"]


class Session:
    """The guard's loop over one generation.

    Args:
        runtime: policy, backend, plugins and recorder in force.
        request: what is generated.
        state: :attr:`state` of a session that another process began, to go on with; policy and request are that one's.

    Raises:
        RequestRefused: it could need more than ``queries.max_questions``; recorded as ``failed_closed``.
    """

    def __init__(self, runtime: Runtime, request: Request, state: State | None = None) -> None:
        self.id = state.id if state is not None else uuid.uuid4().hex
        self.report: Report | None = None
        self._policy = runtime.policy
        self._in_force = fields.policy(runtime.policy)
        self._asker = runtime.asker
        self._model = describe(runtime.asker.backend).name
        self._hook = runtime.plugins.hook
        self._recorder = runtime.recorder
        self._overhead = runtime.recorder.metrics.overhead
        self._questions = questions(runtime.policy)
        self._images = [_Image() for _ in range(request.images)]
        self._enforces = any(not self._policy.shadow(category.id) for category in self._policy.categories)
        self._compared: frozenset[str] = frozenset()
        self._total: int | None = None
        self._answered = -1
        self._missed = False
        self._looking = True
        self._recorded = True
        self._sensitive = frozenset(category.id for category in runtime.policy.categories if category.sensitive)
        self._degraded: list[str] = []
        self._span = runtime.recorder.tracing.generation(
            self.id, self._policy.name, self._policy.digest, request.images
        )
        if state is not None:
            self._go_on(state)
            return
        prompts = [dict(runtime.redact(prompt)) for prompt in request.prompts]
        self._emit("request.started", host=request.host, run=request.run or None, prompt=fields.prompt(prompts))
        self._refuse_too_many()

    @property
    def policy(self) -> Policy:
        """The policy that it began with, and keeps."""
        return self._policy

    @property
    def negatives(self) -> tuple[Negative | None, ...]:
        """What each image is steered away from now."""
        return tuple(image.negative for image in self._images)

    @property
    def missed_last(self) -> bool:
        """Whether the last look was not answered; it stays due."""
        return self._missed

    @property
    def user_previews(self) -> tuple[UserPreviews, ...]:
        """What of each image a host may show its user now: all of one in which nothing is found that is acted on."""
        how = self._policy.preview.user_previews
        blind = self._missed and self._enforces and self._policy.on_failure != "open"
        if self._sensitive:
            how = "withhold"
        return tuple(how if blind or image.acted_on else "allow" for image in self._images)

    @property
    def state(self) -> State:
        """What it remembers."""
        return State(
            self.id,
            tuple(self._images),
            self._total,
            self._answered,
            self._missed,
            self._looking,
            self._recorded,
            self._compared,
            tuple(self._degraded),
        )

    def _go_on(self, state: State) -> None:
        self._images, self._total, self._answered = list(state.images), state.total, state.answered
        self._missed, self._looking, self._recorded = state.missed, state.looking, state.recorded
        self._compared, self._degraded = state.compared, list(state.degraded)

    def due(self, index: int, total: int) -> bool:
        """Whether step ``index`` of ``total`` is to be looked at."""
        self._total = total
        return self._looking and any(
            schedule.is_due(steps, index, self._answered)
            for steps in schedule.due_by_category(self._policy, total).values()
        )

    def _asked(self, step: Step | None) -> tuple[Question, ...]:
        """The questions of a look: those of the categories that are due, or all."""
        at, total = schedule.place(step) if step is not None else (0, None)
        if total is None:
            return self._questions
        due = schedule.due_by_category(self._policy, total)
        asked = [each for each in self._questions if schedule.is_due(due[each.category], at, self._answered)]
        return tuple(asked) or self._questions

    def step(self, step: Step, host: Host) -> None:
        """Look at a due step, and steer the steps that follow."""
        asked = self._asked(step)
        try:
            if self._skips(asked, host.similarity(step)):
                self._skip(step)
                return
            look = self._look(step, asked, lambda: host.previews(step))
            decided = self._judge(step, look)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._unanswered(step, error)
            return
        for index, (decision, _) in enumerate(decided):
            self._looked(index, step, decision, look)
        negatives = [decision.negative for decision, _ in decided]
        changed = [image.negative != negative for image, negative in zip(self._images, negatives, strict=True)]
        try:
            if any(changed):
                with self._overhead("encode"):
                    host.apply(negatives)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.missed(step, error)
            return
        self._answered, self._missed = schedule.place(step)[0], False
        self._compared = frozenset(question.category for question in asked)
        for index, (image, (decision, history)) in enumerate(zip(self._images, decided, strict=True)):
            image.last, image.history = decision, history
            if changed[index]:
                self._change(index, step, decision)

    def _skips(self, asked: Sequence[Question], similarity: Sequence[float]) -> bool:
        """Whether the step shows nothing new to any category that is due at it."""
        gate = self._policy.queries.skip_similar
        if gate is None or self._missed or not similarity:
            return False
        return min(similarity) >= gate and {question.category for question in asked} <= self._compared

    def _skip(self, step: Step) -> None:
        """Let every image's last verdict stand for a step that shows nothing new."""
        self._answered = schedule.place(step)[0]
        self._recorder.metrics.queries(self._policy.name, "skipped", len(self._images))
        for index in range(len(self._images)):
            self._emit("query.skipped", image=index, step=step.index, steps=step.total, sigma=step.sigma)

    def missed(self, step: Step | None, error: Exception) -> None:
        """Take note of what the host could not do: predict a step, or apply a negative."""
        self._missed = True
        self._degrade(fields.reason(error), step, str(error))

    def _unanswered(self, step: Step | None, error: Exception) -> None:
        self._recorder.metrics.queries(self._policy.name, "failed", len(self._images))
        self.missed(step, error)

    def final(self, previews: Callable[[], list[Image]], *, unasked: str = "") -> tuple[Outcome, ...]:
        """Look at the finished images, where the policy says so, and settle each image's outcome.

        Args:
            previews: gives the finished images, RGB, in the order of the batch.
            unasked: which due look the host never asked for; its images are then withheld, whatever they show.
        """
        if unasked:
            self._missed = True
            self._degrade("query_missing", None, unasked)
            return self._finish(request_caused=True)
        if self._policy.queries.final and self._looking:
            try:
                self._judge_final(self._look(None, self._questions, previews))
                self._missed = False
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._unanswered(None, error)
        return self._finish()

    def abandon(self, reason: str) -> None:
        """Close the session of a generation that ended without finished images."""
        if self.report is None:
            self._emit("request.abandoned", reason=reason)
            self._recorder.metrics.session(self._policy.name, "abandoned")
            self._close([Outcome.FAILED_CLOSED for _ in self._images])

    def _refuse_too_many(self) -> None:
        needed = len(self._images) * questions_per_image(self._policy)
        if needed <= self._policy.queries.max_questions:
            return
        self._missed, self._looking = True, False
        self._degrade("max_questions", None, f"{needed} questions")
        if not self._enforces:
            return
        self._finish(request_caused=True)
        raise RequestRefused(
            f"{len(self._images)} images may need {needed} questions; policy {self._policy.name!r} allows "
            f"{self._policy.queries.max_questions} (queries.max_questions)",
            hint="Generate fewer images in one call, or raise the limit in the policy.",
            report=self.report,
        )

    def _look(self, step: Step | None, questions: Sequence[Question], decode: Callable[[], list[Image]]) -> _Answered:
        with self._overhead("preview"):
            pictures = decode()
        if len(pictures) != len(self._images):
            message = f"the host showed {len(pictures)} pictures of {len(self._images)} images"
            raise DnpGuardError(message, hint="This is a bug of the host adapter.")
        if self._hook.dnp_guard_before_query.get_hookimpls():
            shown = tuple(picture.copy() for picture in pictures)  # a plugin may draw on what it is shown
            self._hook.dnp_guard_before_query(request=self.id, step=step, images=shown)
        at = step.index if step is not None else None
        count = len(questions)
        asked = [*questions, *(map(negation, questions) if self._policy.question.paired else ())]
        with self._overhead("ask"), self._span.query(at, len(pictures), len(asked), self._model):
            answers = self._asker.ask(
                pictures, [question.text for question in asked], loosening=range(count, len(asked))
            )
        self._recorder.metrics.queries(self._policy.name, "answered", len(pictures))
        self._recorder.metrics.query_seconds(answers.latency_ms / 1000)
        rows = answers.probabilities
        if self._policy.question.paired:
            rows = tuple(judge.stricter(row[:count], row[count:]) for row in rows)
        return _Answered(questions, rows, pictures, answers.latency_ms)

    def _waived(
        self, step: Step | None, pictures: Sequence[Image], found: Sequence[Sequence[Finding]]
    ) -> list[tuple[Finding, ...]]:
        """Ask the ``allowed`` questions of what was found, of all images at once; unanswered, nothing is waived."""
        categories = dict.fromkeys(finding.category for findings in found for finding in findings)
        asked = [question for category in categories for question in allowed_questions(self._policy, category)]
        concerned = [index for index, findings in enumerate(found) if findings] if asked else []
        waived: list[tuple[Finding, ...]] = [() for _ in found]
        if not concerned:
            return waived
        texts = [question.text for question in asked]
        try:
            answers = self._asker.ask([pictures[index] for index in concerned], texts, loosening=range(len(texts)))
        except Exception as error:  # noqa: BLE001 (a finding stands until it is excused)
            self._degrade(fields.reason(error), step, f"an allowed case could not be asked about: {error}")
            return waived
        for index, row in zip(concerned, answers.probabilities, strict=True):
            allowed: dict[str, float] = {}
            for question, probability in zip(asked, row, strict=True):
                allowed[question.category] = max(probability, allowed.get(question.category, 0.0))
            waived[index] = judge.waive(self._policy, found[index], allowed)
        return waived

    def _judge(self, step: Step, look: _Answered) -> list[tuple[Decision, judge.History]]:
        at, total = schedule.place(step)
        progress = at / total if total else None
        seen = [judge.find(self._policy, look.questions, row, progress=progress) for row in look.rows]
        waived = self._waived(step, look.pictures, [found for found, _ in seen])
        decided = []
        for index, (image, (found, probabilities)) in enumerate(zip(self._images, seen, strict=True)):
            with self._overhead("judge"):
                decision, history = judge.judge(
                    self._policy, image.history, found, probabilities, waived[index], progress=progress
                )
            decided.append((self._tightened(index, step, decision), history))
        return decided

    def _judge_final(self, look: _Answered) -> None:
        seen = [judge.find(self._policy, look.questions, row, final=True) for row in look.rows]
        waived = self._waived(None, look.pictures, [found for found, _ in seen])
        for index, (image, (found, probabilities)) in enumerate(zip(self._images, seen, strict=True)):
            with self._overhead("judge"):
                decision = judge.judge_final(self._policy, found, probabilities, waived[index])
            image.final = self._tightened(index, None, decision)
            steered = {category for _, negative in image.negatives for category in negative.categories}
            for category in steered & {finding.category for finding in image.final.findings}:
                self._recorder.metrics.still_present(self._policy.name, category)
            self._looked(index, None, image.final, look)

    def _tightened(self, index: int, step: Step | None, decision: Decision) -> Decision:
        """The decision after the plugins: more of the policy's words, or a stricter action."""
        if decision.negative is not None:
            offers = self._hook.dnp_guard_negative(
                findings=decision.findings, words=decision.negative.words, vocabulary=self._policy.vocabulary()
            )
            words = [word for offer in offers for word in (offer if isinstance(offer, list | tuple) else [offer])]
            decision, refused = judge.with_words(self._policy, decision, words)
            for _ in refused:
                self._degrade("plugin_word", step, "a plugin offered words outside the policy's vocabulary")
        actions = self._hook.dnp_guard_after_decision(request=self.id, image=index, step=step, decision=decision)
        known = [Action(action) for action in actions if action in _ACTIONS]
        if len(known) < len(actions):
            self._degrade("plugin_error", step, f"a plugin called for none of {', '.join(_ACTIONS)}")
        return judge.with_actions(decision, known)

    def _looked(self, index: int, step: Step | None, decision: Decision, look: _Answered) -> None:
        at, sigma = (step.index, step.sigma) if step is not None else (None, None)
        self._images[index].looks.append(Look(at, sigma, decision, look.latency_ms))
        seen = fields.look(step, decision, self._sensitive)
        preview = self._kept(index, at, decision, look.pictures[index])
        self._emit("query", image=index, **seen, latency_ms=look.latency_ms, preview=preview)
        if step is None:
            for category, probability in decision.probabilities.items():
                told = None if category in self._sensitive else probability
                found = any(finding.category == category for finding in decision.findings)
                self._span.evaluated(index, category, told, found=found)
        if decision.waived:
            waived = fields.findings(decision.waived, self._sensitive)
            self._emit("finding.waived", image=index, step=at, findings=waived)

    def _kept(self, index: int, at: int | None, decision: Decision, picture: Image) -> Mapping[str, str] | None:
        """Keep the preview of a finding where the policy does; none of an image that shows something sensitive."""
        if self._policy.audit.previews == "never":
            return None
        image = self._images[index]
        if not image.secret and fields.tells(decision, self._sensitive):
            image.secret = True
            self._recorder.forget(self.id, index)
        # A look that did not ask about all that is sensitive does not know that nothing of it is there.
        if image.secret or not decision.findings or not decision.probabilities.keys() >= self._sensitive:
            return None
        return self._recorder.keep(self.id, index, at, picture)

    def _change(self, index: int, step: Step, decision: Decision) -> None:
        image, negative = self._images[index], decision.negative
        image.negative = negative
        if step.total is not None and step.index + 1 >= step.total:
            return
        if negative is None:
            self._emit("negative.cleared", image=index, step=step.index, applied_step=step.index + 1)
            return
        if step.effective:
            image.negatives.append((step.index + 1, negative))
        found = [finding for finding in decision.findings if finding.category in negative.categories]
        self._emit(
            "negative.injected",
            image=index,
            step=step.index,
            applied_step=step.index + 1,
            steps=step.total,
            sigma=step.sigma,
            findings=fields.findings(found, self._sensitive),
            negative=fields.negative(negative, self._sensitive) | {"effective": step.effective},
        )
        if not step.effective:
            self._degrade("not_effective", step, "the host cannot steer at the steps that follow")
            return
        # One count a record: under the category that was seen first, or else under the first that is held.
        self._recorder.metrics.negative(self._policy.name, found[0].category if found else negative.categories[0])
        self._span.injected(index, step.index + 1, negative.categories, negative.scale)

    def _finish(self, *, request_caused: bool = False) -> tuple[Outcome, ...]:
        final = self._policy.queries.final
        self._notice_what_never_ran()
        outcomes = []
        for image in self._images:
            looked = image.final if final and image.final is not None else image.last
            seen = judge.settle(looked, image.history, final=image.final is not None, steered=bool(image.negatives))
            outcome = failmode.resolve(
                self._policy.on_failure,
                seen,
                missed=self._missed,
                answered=bool(image.looks),
                request_caused=request_caused,
            )
            outcomes.append(outcome if self._enforces else Outcome.CLEAN)
        outcomes = self._withheld_unrecorded(outcomes)
        for index, outcome in enumerate(outcomes):
            self._emit("request.finished", image=index, decision=outcome)
        outcomes = self._withheld_unrecorded(outcomes)  # the last records may be the ones that fail
        end = "finished" if any(image.looks for image in self._images) else "unasked"
        self._recorder.metrics.session(self._policy.name, end)
        self._close(outcomes)
        return tuple(outcomes)

    def _notice_what_never_ran(self) -> None:
        """Count a run that ended before its last due step as a miss, where no final look makes up for it."""
        if self._policy.queries.final or self._missed or not self._policy.queries.steps:
            return
        last = self._total - 1 if self._total is not None else 0
        if self._total is None or self.due(last, self._total):
            self._missed = True
            self._degrade("never_looked", None, "the run ended before its last due step was looked at")

    def _withheld_unrecorded(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Fail closed where the policy requires records and one could not be written."""
        if self._recorded or not (self._policy.audit.required and self._enforces):
            return outcomes
        if "audit_required" not in self._degraded:
            self._degrade("audit_required", None, "a record could not be written")
        return [Outcome.FAILED_CLOSED for _ in outcomes]

    def _close(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._recorder.metrics.generation(self._policy.name, outcome)
        images = tuple(
            ImageReport(outcome, tuple(image.looks), tuple(image.negatives), fields.why(outcome, image.looks))
            for outcome, image in zip(outcomes, self._images, strict=True)
        )
        self.report = Report(self.id, self._policy.name, self._policy.digest, images, tuple(self._degraded))
        self._span.end(self.report.decision)
        self._recorder.settle()

    def _degrade(self, reason: str, step: Step | None, detail: str) -> None:
        self._degraded.append(reason)
        at = step.index if step is not None else None
        self._recorder.metrics.degraded(reason)
        self._span.degraded(reason)
        self._emit("degraded", step=at, reason=f"{reason}: {detail}")
        self._hook.dnp_guard_degraded(request=self.id, reason=reason, detail={"step": at, "detail": detail})

    def _emit(self, event: str, **values: object) -> None:
        record = {"request": self.id, "policy": self._in_force, **values}
        written = self._recorder.emit(event, required=self._policy.audit.required, **record)
        self._recorded = written and self._recorded
