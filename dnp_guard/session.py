"""One generation: look, ask, judge, steer, record. Knows no host and never raises into a running generation."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

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
    negative: Negative | None = None
    looks: list[Look] = field(default_factory=list)
    negatives: list[tuple[int, Negative]] = field(default_factory=list)


class Session:
    """The guard's loop over one generation.

    Args:
        runtime: policy, backend, plugins and recorder in force.
        request: what is generated.

    Raises:
        RequestRefused: it could need more than ``queries.max_questions``; recorded as ``failed_closed``.
    """

    def __init__(self, runtime: Runtime, request: Request) -> None:
        self.id = uuid.uuid4().hex
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
        self._answered = -1
        self._missed = False
        self._looking = True
        self._recorded = True
        self._sensitive = frozenset(category.id for category in runtime.policy.categories if category.sensitive)
        self._degraded: list[str] = []
        self._span = runtime.recorder.tracing.generation(
            self.id, self._policy.name, self._policy.digest, request.images
        )
        prompts = [dict(runtime.redact(prompt)) for prompt in request.prompts]
        self._emit("request.started", host=request.host, run=request.run or None, prompt=fields.prompt(prompts))
        self._refuse_too_many()

    def due(self, index: int, total: int) -> bool:
        """Whether step ``index`` of ``total`` is to be looked at."""
        return self._looking and any(
            schedule.is_due(steps, index, self._answered)
            for steps in schedule.due_by_category(self._policy, total).values()
        )

    def _asked(self, step: Step | None) -> tuple[Question, ...]:
        """The questions of a look: those of the categories that are due, or all."""
        if step is None or step.total is None:
            return self._questions
        due = schedule.due_by_category(self._policy, step.total)
        asked = [each for each in self._questions if schedule.is_due(due[each.category], step.index, self._answered)]
        return tuple(asked) or self._questions

    def step(self, step: Step, host: Host) -> None:
        """Look at a due step, and steer the steps that follow."""
        try:
            if self._skips(host.similarity(step)):
                self._skip(step)
                return
            rows, pictures, latency_ms = self._look(step, lambda: host.previews(step))
            negatives = self._judge(step, rows, pictures, latency_ms)
            changed = [image.negative != negative for image, negative in zip(self._images, negatives, strict=True)]
            if any(changed):
                with self._overhead("encode"):
                    host.apply(negatives)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._unanswered(step, error)
            return
        self._answered, self._missed = step.index, False
        for index, negative in enumerate(negatives):
            if changed[index]:
                self._change(index, step, negative)

    def _skips(self, similarity: Sequence[float]) -> bool:
        gate = self._policy.queries.skip_similar
        return gate is not None and not self._missed and bool(similarity) and min(similarity) >= gate

    def _skip(self, step: Step) -> None:
        """Let every image's last verdict stand for a step that shows nothing new."""
        self._answered = step.index
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

    def final(self, previews: Callable[[], list[Image]]) -> tuple[Outcome, ...]:
        """Look at the finished images, where the policy says so, and settle each image's outcome.

        Args:
            previews: gives the finished images, RGB, in the order of the batch.
        """
        if self._policy.queries.final and self._looking:
            try:
                rows, pictures, latency_ms = self._look(None, previews)
                self._judge_final(rows, pictures, latency_ms)
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
        if self._policy.mode == "shadow":
            return
        self._finish(request_caused=True)
        raise RequestRefused(
            f"{len(self._images)} images may need {needed} questions; policy {self._policy.name!r} allows "
            f"{self._policy.queries.max_questions} (queries.max_questions)",
            hint="Generate fewer images in one call, or raise the limit in the policy.",
        )

    def _look(
        self, step: Step | None, decode: Callable[[], list[Image]]
    ) -> tuple[Sequence[Sequence[float]], list[Image], float]:
        with self._overhead("preview"):
            pictures = decode()
        if len(pictures) != len(self._images):
            message = f"the host showed {len(pictures)} pictures of {len(self._images)} images"
            raise DnpGuardError(message, hint="This is a bug of the host adapter.")
        self._hook.dnp_guard_before_query(request=self.id, step=step, images=tuple(pictures))
        at = step.index if step is not None else None
        questions = self._asked(step)
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
        return rows, pictures, answers.latency_ms

    def _waived(self, picture: Image, found: Sequence[Finding]) -> tuple[Finding, ...]:
        """Ask the ``allowed`` questions of what was found in one image."""
        categories = dict.fromkeys(finding.category for finding in found)
        asked = [question for category in categories for question in allowed_questions(self._policy, category)]
        if not asked:
            return ()
        texts = [question.text for question in asked]
        (row,) = self._asker.ask([picture], texts, loosening=range(len(texts))).probabilities
        allowed: dict[str, float] = {}
        for question, probability in zip(asked, row, strict=True):
            allowed[question.category] = max(probability, allowed.get(question.category, 0.0))
        return judge.waive(self._policy, found, allowed)

    def _judge(
        self, step: Step, rows: Sequence[Sequence[float]], pictures: list[Image], latency_ms: float
    ) -> list[Negative | None]:
        decided, asked = [], self._asked(step)
        for index, (image, row) in enumerate(zip(self._images, rows, strict=True)):
            found, probabilities = judge.find(self._policy, asked, row)
            waived = self._waived(pictures[index], found)
            with self._overhead("judge"):
                decision, history = judge.judge(self._policy, image.history, found, probabilities, waived)
            decided.append((self._tightened(index, step, decision), history))
        for index, (decision, history) in enumerate(decided):
            self._images[index].last, self._images[index].history = decision, history
            self._looked(index, step, decision, latency_ms)
        return [decision.negative for decision, _ in decided]

    def _judge_final(self, rows: Sequence[Sequence[float]], pictures: list[Image], latency_ms: float) -> None:
        for index, (image, row) in enumerate(zip(self._images, rows, strict=True)):
            found, probabilities = judge.find(self._policy, self._questions, row, final=True)
            waived = self._waived(pictures[index], found)
            with self._overhead("judge"):
                decision = judge.judge_final(self._policy, found, probabilities, waived)
            image.final = self._tightened(index, None, decision)
            steered = {category for _, negative in image.negatives for category in negative.categories}
            for category in steered & {finding.category for finding in image.final.findings}:
                self._recorder.metrics.still_present(self._policy.name, category)
            self._looked(index, None, image.final, latency_ms)

    def _tightened(self, index: int, step: Step | None, decision: Decision) -> Decision:
        """The decision after the plugins: more of the policy's words, or a stricter action."""
        if decision.negative is not None:
            offers = self._hook.dnp_guard_negative(
                findings=decision.findings, words=decision.negative.words, vocabulary=self._policy.vocabulary()
            )
            decision, refused = judge.with_words(self._policy, decision, [word for offer in offers for word in offer])
            for _ in refused:
                self._degrade("plugin_word", step, "a plugin offered words outside the policy's vocabulary")
        actions = self._hook.dnp_guard_after_decision(request=self.id, image=index, step=step, decision=decision)
        return judge.with_actions(decision, [Action(action) for action in actions])

    def _looked(self, index: int, step: Step | None, decision: Decision, latency_ms: float) -> None:
        at, sigma = (step.index, step.sigma) if step is not None else (None, None)
        self._images[index].looks.append(Look(at, sigma, decision, latency_ms))
        self._emit("query", image=index, **fields.look(step, decision, self._sensitive), latency_ms=latency_ms)
        if step is None:
            for category, probability in decision.probabilities.items():
                told = None if category in self._sensitive else probability
                found = any(finding.category == category for finding in decision.findings)
                self._span.evaluated(index, category, told, found=found)
        if decision.waived:
            waived = fields.findings(decision.waived, self._sensitive)
            self._emit("finding.waived", image=index, step=at, findings=waived)

    def _change(self, index: int, step: Step, negative: Negative | None) -> None:
        image = self._images[index]
        image.negative = negative
        if step.total is None or step.index + 1 >= step.total:
            return
        if negative is None:
            self._emit("negative.cleared", image=index, step=step.index, applied_step=step.index + 1)
            return
        image.negatives.append((step.index + 1, negative))
        seen = image.last.findings if image.last is not None else ()
        found = [finding for finding in seen if finding.category in negative.categories]
        self._emit(
            "negative.injected",
            image=index,
            step=step.index,
            applied_step=step.index + 1,
            steps=step.total,
            sigma=step.sigma,
            findings=fields.findings(found, self._sensitive),
            negative=fields.negative(negative, self._sensitive) | {"effective": True},
        )
        # One count a record: under the category that was seen first, or else under the first that is held.
        self._recorder.metrics.negative(self._policy.name, found[0].category if found else negative.categories[0])
        self._span.injected(index, step.index + 1, negative.categories, negative.scale)

    def _finish(self, *, request_caused: bool = False) -> tuple[Outcome, ...]:
        final = self._policy.queries.final
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
            outcomes.append(Outcome.CLEAN if self._policy.mode == "shadow" else outcome)
        for index, outcome in enumerate(outcomes):
            self._emit("request.finished", image=index, decision=outcome)
        if self._policy.audit.required and not self._recorded and self._policy.mode != "shadow":
            self._degrade("audit_required", None, "a record could not be written")
            outcomes = [Outcome.FAILED_CLOSED for _ in outcomes]
        end = "finished" if any(image.looks for image in self._images) else "unasked"
        self._recorder.metrics.session(self._policy.name, end)
        self._close(outcomes)
        return tuple(outcomes)

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
