"""One generation: look, ask, judge, steer, record. Knows no host and never raises into a running generation."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from dnp_guard.errors import DnpGuardError, RequestRefused, VlmTimeout
from dnp_guard.generation import failmode, fields, judge
from dnp_guard.generation import pacing as schedule
from dnp_guard.generation.account import Account
from dnp_guard.generation.query import Looker
from dnp_guard.policy import questions, questions_per_image
from dnp_guard.types import Action, Decision, ImageReport, Look, Negative, Outcome, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from concurrent.futures import Future

    from PIL.Image import Image

    from dnp_guard.audit.write.recorder import Recorder
    from dnp_guard.generation.query import Seen
    from dnp_guard.plugins import Plugins
    from dnp_guard.policy import Policy
    from dnp_guard.types import Question, Report
    from dnp_guard.vlm.desk import Desk


class Host(Protocol):
    """What a session needs of the host whose step it looks at."""

    def similarity(self, step: Step) -> Sequence[float]:
        """How like the last prediction that was looked at this one is: -1…1 an image; nothing before the first."""

    def previews(self, step: Step) -> list[Image]:
        """Decode the step's prediction: RGB, one picture an image of the batch, or as many of each, in turn."""

    def apply(self, negatives: Sequence[Negative | None]) -> None:
        """Steer each image by its negative, or no more, from the next denoiser evaluation on."""


@runtime_checkable
class Probing(Protocol):
    """A host that can also guess what would be found."""

    def nearness(self, step: Step) -> Sequence[Mapping[str, float]]:
        """How near each category comes to having to be asked about, 1 and more where it has to, image by image.

        Nothing where there is no probe.
        """


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a session works with; it keeps these to its end, whatever is reloaded meanwhile."""

    policy: Policy
    desk: Desk
    plugins: Plugins
    recorder: Recorder
    redact: Callable[[str], Mapping[str, Any]]
    """Turns a prompt into the record's ``prompt{…}``, as the policy says."""
    turn: Hashable = None
    """Who asks at the desk."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a generation was asked for, as far as the host knows.

    Attributes:
        images: the size of the batch.
        host: ``host{name, version, target}`` of the record.
        prompts: the prompts, where the host tells them.
        run: ``run{seed, scheduler, steps, guidance_scale, size}`` of the record.
        takes_up: whether the host hands over a step when :meth:`Session.wants` says so, and not only when it is due;
            with ``queries.wait: false`` it is not made to wait.
        shows: how many pictures of each image a look shows at most, such as frames of a video.
    """

    images: int
    host: Mapping[str, Any]
    prompts: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    takes_up: bool = False
    shows: int = 1


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
    pace: schedule.Pace = field(default_factory=schedule.Pace)
    compared: frozenset[str] = frozenset()
    """Categories that the last decoded preview was asked about."""

    @property
    def effective(self) -> Negative | None:
        """The latest negative that could take effect."""
        return self.negatives[-1][1] if self.negatives else None

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
        degraded: reasons for which the guard could not do its job at some step.
        caused: whether what was missed is the request's own fault.
    """

    id: str
    images: tuple[_Image, ...]
    total: int | None
    answered: int
    missed: bool
    looking: bool
    recorded: bool
    degraded: tuple[str, ...]
    caused: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    """A look that is being answered while denoising goes on.

    Attributes:
        step: what is looked at.
        before: the last step answered before it.
        images: that are looked at.
        answer: what comes of it.
    """

    step: Step
    before: int
    images: tuple[int, ...]
    answer: Future[Seen]


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
        self._desk, self._turn = runtime.desk, runtime.turn
        self._hook = runtime.plugins.hook
        self._overhead = runtime.recorder.metrics.overhead
        self._questions = questions(runtime.policy)
        self._images = [_Image() for _ in range(request.images)]
        self._enforces = any(not self._policy.shadow(category.id) for category in self._policy.categories)
        self._shows = request.shows
        self._pending: _Pending | None = None
        self._waits = runtime.policy.queries.wait is not False or not request.takes_up
        self._total: int | None = None
        self._answered = -1
        self._missed = False
        self._caused = False
        self._looking = True
        self._account = Account(self.id, self._policy, runtime.recorder, runtime.plugins, request.images)
        self._sensitive = self._account.sensitive
        self._looker = Looker(self._policy, self._desk, self._account.span, request.images, self._turn)
        if state is not None:
            self._go_on(state)
            return
        prompts = [dict(runtime.redact(prompt)) for prompt in request.prompts]
        told = {"host": request.host, "run": request.run or None, "prompt": fields.prompt(prompts)}
        self._account.emit("request.started", **told)
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
            self._account.recorded,
            tuple(self._account.degraded),
            self._caused,
        )

    def _go_on(self, state: State) -> None:
        self._images, self._total, self._answered = list(state.images), state.total, state.answered
        self._missed, self._caused, self._looking = state.missed, state.caused, state.looking
        self._account.recorded, self._account.degraded = state.recorded, list(state.degraded)

    def due(self, index: int, total: int) -> bool:
        """Whether step ``index`` of ``total`` is to be looked at."""
        self._total = total
        return self._looking and any(
            schedule.is_due(steps, index, self._answered)
            for steps in schedule.due_by_category(self._policy, total).values()
        )

    def wants(self, index: int, total: int) -> bool:
        """Whether step ``index`` of ``total`` is to be handed to :meth:`step`: it is due, or an answer has come."""
        due = self.due(index, total)
        return due or (self._pending is not None and self._pending.answer.done())

    def step(self, step: Step, host: Host) -> None:
        """Take up an answer that has come meanwhile, look at a due step, and steer the steps that follow."""
        if self._pending is not None:
            if self._pending.answer.done():
                self._take_up(step, host)
            if step.total is not None and not self.due(step.index, step.total):
                return
        asked = self._asked(step)
        try:
            images = self._concerned(asked, step, host)
            if not images:
                self._answered = schedule.place(step)[0]
                return
            pictures = self._shown(step, lambda: host.previews(step))
            for image in self._images:
                image.compared = frozenset()
            if not self._waits:
                self._ask_aside(step, asked, images, pictures)
                return
            seen = self._ask(step, asked, images, pictures)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._unanswered(step, error)
            return
        if self._steer(seen, images, step, step, host):
            self._answered = schedule.place(step)[0]

    def _asked(self, step: Step | None) -> tuple[Question, ...]:
        """The questions of a look: those of the categories that are due, or all."""
        at, total = schedule.place(step) if step is not None else (0, None)
        if total is None:
            return self._questions
        due = schedule.due_by_category(self._policy, total)
        asked = [each for each in self._questions if schedule.is_due(due[each.category], at, self._answered)]
        return tuple(asked) or self._questions

    def _concerned(self, asked: Sequence[Question], step: Step, host: Host) -> tuple[int, ...]:
        """The images that are looked at in a due step; for the others the last verdict stands."""
        gate = self._policy.queries.skip_similar
        likeness = host.similarity(step) if gate is not None and self._pending is None else ()
        near = self._near(asked, step, host)
        concerned = []
        for index in range(len(self._images)):
            if reason := self._passed_over(index, asked, step, likeness, near):
                self._account.skipped(index, step, reason, near[index] if reason == "unlikely" else None)
            else:
                concerned.append(index)
        return tuple(concerned)

    def _passed_over(
        self, index: int, asked: Sequence[Question], step: Step, likeness: Sequence[float], near: Sequence[float]
    ) -> schedule.Reason | None:
        """Why one image is not looked at in a due step, if it is not."""
        image, categories = self._images[index], {question.category for question in asked}
        if self._pending is not None:
            return "in_flight"
        if reason := schedule.spent(self._policy.queries, image.pace):
            return reason
        if self._missed:
            return None
        if schedule.place(step)[0] < image.pace.until and not categories & self._sensitive:
            return "quiet"
        gate = self._policy.queries.skip_similar or 0.0
        if likeness and categories <= image.compared and likeness[index] >= gate:
            return "similar"
        steered = image.negative is not None or image.acted_on
        return "unlikely" if near and near[index] < 1 and not steered else None

    def _near(self, asked: Sequence[Question], step: Step, host: Host) -> Sequence[float]:
        """How near each image comes to being asked about, by the probe; nothing where none is to be skipped by it."""
        categories = {question.category for question in asked}
        off = self._policy.queries.skip_probe is None or self._pending is not None or self._missed
        if off or categories & self._sensitive or not isinstance(host, Probing):
            return ()
        return [max(row[category] for category in categories) for row in host.nearness(step)]

    def _shown(self, step: Step | None, decode: Callable[[], list[Image]]) -> list[Image]:
        with self._overhead("preview"):
            pictures = decode()
        each, rest = divmod(len(pictures), len(self._images) or 1)
        if len(pictures) != len(self._images) and (rest or not each):
            message = f"the host showed {len(pictures)} pictures of {len(self._images)} images"
            raise DnpGuardError(message, hint="This is a bug of the host adapter.")
        if self._hook.dnp_guard_before_query.get_hookimpls():
            shown = tuple(picture.copy() for picture in pictures)  # a plugin may draw on what it is shown
            self._hook.dnp_guard_before_query(request=self.id, step=step, images=shown)
        return pictures

    def _look(
        self, step: Step | None, asked: Sequence[Question], images: tuple[int, ...], pictures: list[Image]
    ) -> Seen:
        """Ask about some of the images; on any thread."""
        each = len(pictures) // len(self._images)
        shown = [picture for index in images for picture in pictures[index * each : (index + 1) * each]]
        at = step.index if step is not None else None
        looker = replace(self._looker, images=len(images))
        return looker.look(shown, asked, step=at, progress=schedule.progress(step))

    def _ask(
        self, step: Step | None, asked: Sequence[Question], images: tuple[int, ...], pictures: list[Image]
    ) -> Seen:
        """Ask and wait."""
        started = perf_counter()
        try:
            with self._overhead("ask"):
                return self._look(step, asked, images, pictures)
        finally:
            milliseconds = (perf_counter() - started) * 1000
            for image in self._images:
                image.pace = schedule.waited(image.pace, milliseconds)

    def _ask_aside(self, step: Step, asked: Sequence[Question], images: tuple[int, ...], pictures: list[Image]) -> None:
        """Ask while denoising goes on."""
        answer = self._desk.aside(partial(self._look, step, asked, images, pictures), turn=self._turn)
        self._pending = _Pending(step, self._answered, images, answer)
        self._answered = schedule.place(step)[0]

    def _take_up(self, now: Step | None, host: Host | None) -> None:
        """Steer by an answer that has come; without a host, only remember it."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        deadline = self._policy.queries.deadline_ms
        try:
            seen = pending.answer.result(None if deadline is None else deadline / 1000)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            pending.answer.cancel()
            self._answered = pending.before  # it stays due
            late = isinstance(error, TimeoutError) and not pending.answer.done()
            self._unanswered(pending.step, VlmTimeout(f"no answer within {deadline} ms") if late else error)
            return
        if not self._steer(seen, pending.images, pending.step, now, host):
            self._answered = pending.before

    def _steer(self, seen: Seen, images: tuple[int, ...], step: Step, now: Step | None, host: Host | None) -> bool:
        """Judge a look, record it, and have the host steer by it.

        Args:
            seen: what was answered.
            images: that it is of.
            step: what was looked at.
            now: the step at which it is known; the next one is steered. None where there is no next one.
            host: who steers.

        Returns:
            Whether the host could.
        """
        self._account.answered(seen, step)
        try:
            decided = dict(zip(images, self._judge(step, images, seen), strict=True))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._unanswered(step, error)
            return False
        applied = now.index + 1 if now is not None and not self._waits else None
        for row, (index, (decision, _)) in enumerate(decided.items()):
            self._looked(index, step, decision, seen, row, applied=applied)
        negatives = [
            decided[index][0].negative if index in decided else image.negative
            for index, image in enumerate(self._images)
        ]
        changed = [image.negative != negative for image, negative in zip(self._images, negatives, strict=True)]
        for index, (decision, history) in decided.items():  # seen is seen, whether or not the host can steer
            image = self._images[index]
            image.last, image.history = decision, replace(image.history, found=history.found)
        try:
            if host is not None and any(changed):
                with self._overhead("encode"):
                    host.apply(negatives)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.missed(step, error)
            return False
        self._missed = self._caused = False
        for row, (index, (decision, history)) in enumerate(decided.items()):
            image = self._images[index]
            image.history, image.compared = history, seen.asked
            image.pace = self._paced(image, step, seen.probabilities[row])
            untold = decision.negative is not None and image.effective != decision.negative
            if now is not None and (changed[index] or (untold and now.effective)):
                self._change(index, step, now, decision)
        return True

    def _paced(self, image: _Image, step: Step, probabilities: Mapping[str, float]) -> schedule.Pace:
        """The pace of an image after a look at it; what was found comes back, so no look is quiet after it."""
        near = schedule.nearest(self._policy, probabilities, schedule.progress(step))
        near = 1.0 if image.history.held or image.history.found else near
        return schedule.after(self._policy.queries, image.pace, schedule.place(step)[0], near)

    def missed(self, step: Step | None, error: Exception, *, caused: bool = False) -> None:
        """Take note of what the host could not do: predict a step, or apply a negative.

        Args:
            step: that could not be looked at; None for the finished images.
            error: why.
            caused: whether it is the request's own fault, which no policy lets pass.
        """
        self._missed, self._caused = True, self._caused or caused
        self._account.degrade(fields.reason(error), step, str(error))

    def _unanswered(self, step: Step | None, error: Exception) -> None:
        self._account.unanswered(len(self._images))
        self.missed(step, error)

    def final(self, previews: Callable[[], list[Image]], *, unasked: str = "") -> tuple[Outcome, ...]:
        """Look at the finished images, where the policy says so, and settle each image's outcome.

        Args:
            previews: gives the finished images, RGB, in the order of the batch.
            unasked: which due look the host never asked for; its images are then withheld, whatever they show.
        """
        if self._pending is not None:
            with self._overhead("ask"):
                self._take_up(None, None)
        if unasked:
            self._missed = True
            self._account.degrade("query_missing", None, unasked)
            return self._finish(request_caused=True)
        if self._policy.queries.final and self._looking:
            try:
                self._judge_final(self._ask(None, self._questions, self._all, self._shown(None, previews)))
                self._missed = self._caused = False
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._unanswered(None, error)
        return self._finish()

    def abandon(self, reason: str) -> None:
        """Close the session of a generation that ended without finished images."""
        if self._pending is not None:
            self._pending.answer.cancel()  # where it runs already, nobody hears of it
            self._pending = None
        if self.report is None:
            self._account.emit("request.abandoned", reason=reason)
            self._close("abandoned", [Outcome.FAILED_CLOSED for _ in self._images])

    def _refuse_too_many(self) -> None:
        needed = len(self._images) * self._shows * questions_per_image(self._policy)
        if needed <= self._policy.queries.max_questions:
            return
        self._missed, self._looking = True, False
        self._account.degrade("max_questions", None, f"{needed} questions")
        if not self._enforces:
            return
        self._finish(request_caused=True)
        raise RequestRefused(
            f"{len(self._images)} images may need {needed} questions; policy {self._policy.name!r} allows "
            f"{self._policy.queries.max_questions} (queries.max_questions)",
            hint="Generate fewer images in one call, or raise the limit in the policy.",
            report=self.report,
        )

    def _judge(self, step: Step, images: tuple[int, ...], look: Seen) -> list[tuple[Decision, judge.History]]:
        progress, decided = schedule.progress(step), []
        for row, index in enumerate(images):
            of = look.found[row], look.probabilities[row], look.waived[row]
            with self._overhead("judge"):
                decision, history = judge.judge(self._policy, self._images[index].history, *of, progress=progress)
            decided.append((self._tightened(index, step, decision), history))
        return decided

    def _judge_final(self, look: Seen) -> None:
        self._account.answered(look, None)
        for index, image in enumerate(self._images):
            of = look.found[index], look.probabilities[index], look.waived[index]
            with self._overhead("judge"):
                decision = judge.judge_final(self._policy, *of)
            image.final = self._tightened(index, None, decision)
            steered = {category for _, negative in image.negatives for category in negative.categories}
            self._account.still_present(steered & {finding.category for finding in image.final.findings})
            self._looked(index, None, image.final, look, index)

    def _tightened(self, index: int, step: Step | None, decision: Decision) -> Decision:
        """The decision after the plugins: more of the policy's words, or a stricter action."""
        if decision.negative is not None:
            offers = self._hook.dnp_guard_negative(
                findings=decision.findings, words=decision.negative.words, vocabulary=self._policy.vocabulary()
            )
            words = [word for offer in offers for word in (offer if isinstance(offer, list | tuple) else [offer])]
            decision, refused = judge.with_words(self._policy, decision, words)
            for _ in refused:
                self._account.degrade("plugin_word", step, "a plugin offered words outside the policy's vocabulary")
        actions = self._hook.dnp_guard_after_decision(request=self.id, image=index, step=step, decision=decision)
        known = [Action(action) for action in actions if action in _ACTIONS]
        if len(known) < len(actions):
            self._account.degrade("plugin_error", step, f"a plugin called for none of {', '.join(_ACTIONS)}")
        return judge.with_actions(decision, known)

    def _looked(
        self, index: int, step: Step | None, decision: Decision, look: Seen, row: int, *, applied: int | None = None
    ) -> None:
        at, sigma = (step.index, step.sigma) if step is not None else (None, None)
        image = self._images[index]
        image.looks.append(Look(at, sigma, decision, look.latency_ms))
        if not image.secret and fields.tells(decision, self._sensitive):
            image.secret = True
            self._account.forget(index)
        self._account.looked(index, step, decision, look, row, applied=applied, secret=image.secret)

    def _change(self, index: int, step: Step, now: Step, decision: Decision) -> None:
        image, negative = self._images[index], decision.negative
        image.negative = negative
        applied = now.index + 1
        if now.total is not None and applied >= now.total:
            return
        if negative is None:
            self._account.cleared(index, step, applied)
            return
        if now.effective:
            image.negatives.append((applied, negative))
        self._account.injected(index, step, applied, decision, negative, effective=now.effective)

    @property
    def _all(self) -> tuple[int, ...]:
        return tuple(range(len(self._images)))

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
                request_caused=request_caused or self._caused,
            )
            outcomes.append(outcome if self._enforces else Outcome.CLEAN)
        outcomes = self._withheld_unrecorded(outcomes)
        self._account.finished(outcomes)
        outcomes = self._withheld_unrecorded(outcomes)  # the last records may be the ones that fail
        self._close("finished" if any(image.looks for image in self._images) else "unasked", outcomes)
        return tuple(outcomes)

    def _notice_what_never_ran(self) -> None:
        """Count a run that ended before its last due step as a miss, where no final look makes up for it."""
        if self._policy.queries.final or self._missed or not self._policy.queries.steps:
            return
        last = self._total - 1 if self._total is not None else 0
        if self._total is None or self.due(last, self._total):
            self._missed = True
            self._account.degrade("never_looked", None, "the run ended before its last due step was looked at")

    def _withheld_unrecorded(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Fail closed where the policy requires records and one could not be written."""
        if self._account.recorded or not (self._policy.audit.required and self._enforces):
            return outcomes
        if "audit_required" not in self._account.degraded:
            self._account.degrade("audit_required", None, "a record could not be written")
        return [Outcome.FAILED_CLOSED for _ in outcomes]

    def _close(self, end: str, outcomes: list[Outcome]) -> None:
        images = [
            ImageReport(outcome, tuple(image.looks), tuple(image.negatives), fields.why(outcome, image.looks))
            for outcome, image in zip(outcomes, self._images, strict=True)
        ]
        self.report = self._account.close(end, images)
