"""The rules of one generation, as a state machine: steps and answers go in; queries, negatives and events come out.

It does no I/O and never waits.

::

    plan = session.plan(step)             # which images to query, which questions, which images to skip
    session.asking(plan)
    session.answered(plan, answer, step)  # or session.unanswered(plan, error)
    session.negatives                     # the negative that steers each image now
    session.events()                      # events to record, count and trace
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from dnp_guard.errors import own
from dnp_guard.generation import events, fields, inputs, pacing, reach, second_chance
from dnp_guard.generation.answering import Answering, untouched
from dnp_guard.generation.outcomes import enforces, outcome, previews, report, would
from dnp_guard.generation.plan import Plan, plan
from dnp_guard.generation.state import ImageState, State
from dnp_guard.generation.steered import IN_VAIN, steers
from dnp_guard.policy.model.questions import questions, questions_per_image, questions_per_look
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dnp_guard.generation.answering import Tighten
    from dnp_guard.generation.outcomes import UserPreviews
    from dnp_guard.generation.query import Answer
    from dnp_guard.generation.state import Request
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Negative, Report, Step


class Session:
    """Applies a policy to one generation.

    Args:
        policy: the policy in force; it stays so to the end, whatever is reloaded meanwhile.
        request: the request.
        state: :attr:`state` of a session that another process began under the same policy and request, to continue it.
        tighten: function by which plugins may make an image's decision stricter.

    Attributes:
        given: the policy in force, as it was given.
        policy: the same policy with ``mode: auto`` resolved: ``separate`` until :meth:`steers_attention` is called.
        state: the memory of the session, a frozen value.
        waits: whether the host pauses denoising until a query is answered.
        needed: number of questions that the generation may need.
        levels: noise fraction at the start of each step of the run, once the host has provided it.
    """

    def __init__(
        self, policy: Policy, request: Request, state: State | None = None, tighten: Tighten = untouched
    ) -> None:
        self.given = policy
        self.state = state or State(uuid.uuid4().hex, (ImageState(),) * request.images)
        self.policy = reach.steered(policy, self.state.reach)
        self._tighten = tighten
        self._questions = questions(policy)
        self._sensitive = frozenset(category.id for category in policy.categories if category.sensitive)
        self._enforces = enforces(policy)
        self.waits = policy.queries.wait is not False or not request.takes_up
        self.levels: tuple[float, ...] = ()
        self._draws_again = request.draws_again
        self._events: list[events.Event] = []
        self._undo, self._earlier = self.state, 0
        self.needed = request.images * request.shows * questions_per_image(policy)
        if state is None and self.needed > policy.queries.max_questions:
            self.state = replace(self.state, looking=False)
            self.missed("max_questions", None, f"{self.needed} questions")

    @property
    def refused(self) -> bool:
        """Whether the generation must not start because it could need more than ``queries.max_questions``."""
        return self._enforces and not self.state.looking

    @property
    def negatives(self) -> tuple[Negative | None, ...]:
        """The negative prompt that steers each image now; None for an image that is not steered."""
        return tuple(image.negative for image in self.state.images)

    @property
    def user_previews(self) -> tuple[UserPreviews, ...]:
        """Whether the host may show its user each unfinished image now: ``allow``, ``blur`` or ``withhold``."""
        return previews(self.policy, self.state, secret=bool(self._sensitive))

    @property
    def report(self) -> Report | None:
        """The report of the generation; None before it is over."""
        return report(self.policy, self.state)

    @property
    def so_far(self) -> Report | None:
        """The report if the running retry were never finished; a ``retry`` verdict carries the outcomes in it."""
        state = second_chance.undone(self.state)
        outcomes = tuple(outcome(self.policy, state, image, aborted=False) for image in state.images)
        return report(self.policy, replace(state, outcomes=outcomes))

    def steers_attention(self, *, guided: bool = True) -> None:
        """Steer in the denoiser's attention from now on; call this before any image is steered.

        Args:
            guided: whether the host has an unconditional prediction, which a separate guidance term needs.
        """
        self.state = replace(self.state, reach="guided" if guided else "alone")
        self.policy = reach.steered(self.given, self.state.reach)

    def attention_lost(self) -> None:
        """Steer by a ``separate`` guidance term from now on; do nothing unless the session steers in attention."""
        if self.policy.guidance.mode == "attention":
            self.state, event = reach.lost(self.given, self.state)
            self.policy = reach.steered(self.given, self.state.reach)
            self._events.append(event)

    def due(self, index: int, total: int) -> bool:
        """Return whether a query is due at step ``index`` of ``total``."""
        return self.state.looking and any(
            pacing.is_due(steps, index, self.state.answered)
            for steps in pacing.due_by_category(self.policy, total, self.levels).values()
        )

    def plan(self, step: Step, likeness: Sequence[float] = (), nearness: Sequence[Mapping[str, float]] = ()) -> Plan:
        """Plan the query at a due step; see :func:`dnp_guard.generation.plan.plan`."""
        return plan(self.policy, self._questions, self.state, step, likeness, nearness, self.levels)

    def plan_final(self) -> Plan | None:
        """Plan the final look, the query of the finished images; None if the policy makes none."""
        if not (self.policy.queries.final and self.state.looking):
            return None
        return Plan(None, self._questions, self.state.drawn, {}, self.state.answered)

    def begins(self, now: float) -> tuple[float, float]:
        """Note that an attempt begins.

        Args:
            now: the time, in seconds since 1970.

        Returns:
            When the request and this attempt began, in seconds since 1970.
        """
        began = (self.state.began or (now,))[0], now
        self.state = replace(self.state, began=began)
        return began

    def again(self, *, in_time: bool = True) -> tuple[int, ...]:
        """Begin a retry of the images whose final look asks for one; return their indices, which may be none.

        Args:
            in_time: whether another attempt would finish in time.
        """
        can = self._draws_again and (self.state.recorded or not self.policy.audit.required)
        self.state, happened, images = second_chance.begin(self.policy, self.state, can=can, in_time=in_time)
        self._events += happened
        return images

    def retry_failed(self, reason: str, took_ms: float = 0.0) -> None:
        """End the running retry, which raised, lacks its final look, or took too long.

        Args:
            reason: explanation for people.
            took_ms: how long the retry took, in milliseconds.
        """
        state = self._degraded(self.state, "retry_failed", None, reason)
        self.state, happened = second_chance.failed(replace(state, retry_ms=state.retry_ms + took_ms), reason)
        self._events += happened

    def retry_took(self, milliseconds: float) -> None:
        """Add the duration of a retry that had its final look to the total for the report."""
        self.state = replace(self.state, retry_ms=self.state.retry_ms + milliseconds)

    def plan_inputs(self, pictures: Sequence[int]) -> Plan | None:
        """Plan the query about the request's own pictures; None if the policy does not ask about them.

        Args:
            pictures: number of frames per picture; 0 for a picture that cannot be decoded.
        """
        if not (self.policy.asks_inputs and self.state.looking and pictures):
            return None
        self.needed += sum(pictures) * questions_per_look(self.policy)
        if too_many := self.needed > self.policy.queries.max_questions:
            self.state = self._degraded(self.state, "max_questions", None, f"{self.needed} questions")
        shown = tuple(index for index, count in enumerate(pictures) if count and not too_many)
        return Plan(None, self._questions, shown, {}, self.state.answered)

    def inputs(self, of: Sequence[Collection[int] | None], plan: Plan, answer: Answer | Exception | None) -> None:
        """Take the answer about the request's own pictures; see :func:`dnp_guard.generation.inputs.taken`."""
        self.state, happened = inputs.taken(self.policy, self.state, of, plan, answer)
        self._events += happened

    def asking(self, plan: Plan) -> None:
        """Note that a planned query is being put now."""
        if plan.step is None:
            return
        at, total = pacing.place(plan.step)
        self.state = replace(self.state, total=total)
        for index, (reason, near) in plan.skipped.items():
            self._events.append(events.Skipped(index, plan.step, reason, near, self.state.images[index].attempts))
        if not plan.images:
            self.state = replace(self.state, answered=at)
            return
        # Forget the last comparison first: the next prediction is compared with the preview that is decoded now.
        images = tuple(replace(image, compared=frozenset()) for image in self.state.images)
        self.state = replace(self.state, images=images)
        if not self.waits:
            self.state = replace(self.state, answered=at, in_flight=True)

    def answered(self, plan: Plan, answer: Answer, now: Step | None = None, waited_ms: float = 0.0) -> None:
        """Take the answer to a query: judge it, and steer by the decisions.

        Args:
            plan: the query that was put.
            answer: its answer.
            now: the step that runs when the answer arrives; the next step is steered. None if no step follows.
            waited_ms: how long the generation waited for the answer, in milliseconds.
        """
        self._undo = before = self._waited(waited_ms)
        self._earlier = len(self._events)
        answering = Answering(self.policy, self._sensitive, self._tighten, self._events)
        self.state = answering.taken(before, plan, answer, now, waits=self.waits)

    def unsteered(self, plan: Plan, error: Exception) -> None:
        """Undo the steering of the last answer because the host could not apply it; its findings stay."""
        images = tuple(
            replace(
                old,
                last=new.last,
                queries=new.queries,
                secret=new.secret,
                history=replace(old.history, found=new.history.found),
            )
            for old, new in zip(self._undo.images, self.state.images, strict=True)
        )
        before = self._undo.degraded
        degraded = (*before, *(reason for reason in self.state.degraded[len(before) :] if reason != IN_VAIN))
        self.state = replace(self._undo, images=images, answered=plan.before, in_flight=False, degraded=degraded)
        self._events[self._earlier :] = [event for event in self._events[self._earlier :] if not steers(event)]
        self.failed(plan.step, error)

    def unanswered(self, plan: Plan, error: Exception, waited_ms: float = 0.0) -> None:
        """Note that a query was not answered; the query stays due."""
        self.state = self._waited(waited_ms)
        if plan.step is not None:
            self.state = replace(self.state, answered=plan.before, in_flight=False)
        self._events.append(events.Unanswered(len(plan.images)))
        self.failed(plan.step, error)

    def failed(self, step: Step | None, error: Exception, *, caused: bool = False) -> None:
        """Note an error in a prediction, a picture, an answer or the steering.

        Args:
            step: the step; None for the finished images.
            error: the error.
            caused: whether the request itself caused it; then no policy lets the image pass.
        """
        # Messages of other code, such as a pipeline, may quote the prompt, so they go into no record.
        self.missed(fields.reason(error), step, str(error) if own(error) else type(error).__name__, caused=caused)

    def missed(self, reason: str, step: Step | None, detail: str, *, caused: bool = False) -> None:
        """Note that a query was missed. Unless a later one is answered, ``failmode`` decides the outcomes.

        Args:
            reason: label of ``dnp_guard_degraded_total``.
            step: the step; None for the finished images.
            detail: explanation for people.
            caused: whether the request itself caused it.
        """
        state = self._degraded(self.state, reason, step, detail)
        self.state = replace(state, missed=True, caused=state.caused or caused)

    def settle(self, *, aborted: bool = False) -> tuple[Outcome, ...]:
        """Settle the outcome of every image.

        Args:
            aborted: whether the finished images must be withheld, whatever they show.
        """
        queries, total = self.policy.queries, self.state.total
        never = total is None or self.due(total - 1, total)
        looks = (queries.steps or queries.sigmas) and not self.state.turned_away
        if not queries.final and not self.state.missed and looks and never:
            self.missed("never_looked", None, "the run ended before its last due step was looked at")
        self.state = replace(self.state, images=tuple(second_chance.given_up(image) for image in self.state.images))
        settled = [outcome(self.policy, self.state, image, aborted=aborted) for image in self.state.images]
        outcomes = self._recorded(settled)
        for index, (image, settled_to) in enumerate(zip(self.state.images, outcomes, strict=True)):
            retries = would(self.policy, image, settled_to), image.attempts, image.not_again, self.state.retry_ms
            self._events.append(events.Finished(index, settled_to, *retries))
        return outcomes

    def abandon(self, reason: str) -> None:
        """End a generation that has no finished images; do nothing if the generation is over."""
        if self.state.outcomes is None:
            self._events.append(events.Abandoned(reason))
            self.state = replace(self.state, outcomes=tuple(Outcome.FAILED_CLOSED for _ in self.state.images))

    def unrecorded(self) -> None:
        """Note that a record could not be written; if the policy requires records, nothing may be delivered."""
        self.state = replace(self.state, recorded=False)
        if self.state.outcomes is not None:
            self._recorded(self.state.outcomes)

    def events(self) -> tuple[events.Event, ...]:
        """Return the events since the last call, in order."""
        happened, self._events, self._earlier = tuple(self._events), [], 0
        return happened

    def _waited(self, milliseconds: float) -> State:
        images = tuple(replace(image, pace=pacing.waited(image.pace, milliseconds)) for image in self.state.images)
        return replace(self.state, images=images)

    def _degraded(self, state: State, reason: str, step: Step | None, detail: str) -> State:
        self._events.append(events.Degraded(reason, step, detail))
        return replace(state, degraded=(*state.degraded, reason))

    def _recorded(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Store the outcomes; fail closed if the policy requires records and one could not be written."""
        if not self.state.recorded and self.policy.audit.required and self._enforces:
            outcomes = [Outcome.FAILED_CLOSED for _ in outcomes]
            if "audit_required" not in self.state.degraded:
                self.state = self._degraded(self.state, "audit_required", None, "a record could not be written")
        self.state = replace(self.state, outcomes=(settled := tuple(outcomes)))
        return settled
