"""Apply the answer to a query: judge every image, let plugins make the decisions stricter, and steer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dnp_guard.generation import events, fields, inputs, judge, pacing, second_chance
from dnp_guard.generation.steered import IN_VAIN, steered
from dnp_guard.types import Action, QueryReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dnp_guard.generation.plan import Plan
    from dnp_guard.generation.query import Answer
    from dnp_guard.generation.state import ImageState, State
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, Step

    Tighten = Callable[[str, int, Step | None, Decision], tuple[Decision, Sequence[events.Degraded]]]
    """Takes request id, image index, step and decision; returns a decision at least as strict, and plugin failures."""


def untouched(
    _request: str, _image: int, _step: Step | None, decision: Decision
) -> tuple[Decision, Sequence[events.Degraded]]:
    """Return the decision unchanged; used when the guard has no plugins to make it stricter."""
    return decision, ()


@dataclass(frozen=True, slots=True)
class Answering:
    """Applies the answer of one query to a session's state.

    Attributes:
        policy: the policy in force.
        sensitive: ids of the sensitive categories; the guard stores no picture of them.
        tighten: function by which plugins may make an image's decision stricter.
        log: list to which each event is appended when it happens, so that an error later on loses none.
    """

    policy: Policy
    sensitive: frozenset[str]
    tighten: Tighten
    log: list[events.Event]

    def taken(self, state: State, plan: Plan, answer: Answer, now: Step | None, *, waits: bool) -> State:
        """Return the state of the session after the answer to a query.

        Args:
            state: the state before.
            plan: the query that was put.
            answer: its answer.
            now: the step that runs when the answer arrives; the next step is steered. None if no step follows.
            waits: whether the host paused denoising until the answer arrived.
        """
        self.log.append(events.Answered(answer))
        if answer.unexcused is not None:
            detail = f"an allowed case could not be asked about: {answer.unexcused}"
            state = self._degraded(state, fields.reason(answer.unexcused), plan.step, detail)
        if plan.step is None:
            return self._finally(state, plan, answer)
        applied = now.index + 1 if now is not None and not waits else None
        return self._steered(state, plan, plan.step, answer, now, applied)

    def _steered(
        self, state: State, plan: Plan, step: Step, answer: Answer, now: Step | None, applied: int | None
    ) -> State:
        """Return the state after the answer to a step's query; a late answer steers from ``applied`` on."""
        decided = {}
        for row, index in enumerate(plan.images):
            seen = inputs.seen(self.policy, state.images[index], answer, row)
            progress = pacing.progress(step)
            decision, history = judge.judge(self.policy, state.images[index].history, *seen, progress=progress)
            decision = second_chance.steered(self.policy, state.images[index], decision)
            state, decision = self._tightened(state, index, step, decision)
            decided[index] = decision, history
        images = list(state.images)
        for row, (index, (decision, history)) in enumerate(decided.items()):
            image = self._decided(images[index], index, step, decision, answer, row, applied)
            image = replace(image, last=decision, history=history, compared=answer.asked)
            images[index] = replace(image, pace=self._paced(image, step, answer.probabilities[row]))
        for index, (decision, _) in decided.items():
            if now is not None:
                images[index], change = steered(images[index], index, step, now, decision)
                self.log.extend(change)
                if any(isinstance(event, events.Injected) and not event.effective for event in change):
                    state = self._degraded(state, IN_VAIN, step, "the host cannot steer at the steps that follow")
        at = max(state.answered, pacing.place(step)[0])
        return replace(state, images=tuple(images), answered=at, missed=False, caused=False, in_flight=False)

    def _finally(self, state: State, plan: Plan, answer: Answer) -> State:
        """Return the state after the final look, the query of the finished images."""
        for row, index in enumerate(plan.images):
            image = state.images[index]
            decision = judge.judge_final(self.policy, *inputs.seen(self.policy, image, answer, row))
            state, decision = self._tightened(state, index, None, decision)
            steered = {category for _, negative in image.negatives for category in negative.categories}
            present = steered & {finding.category for finding in decision.findings}
            if present:
                self.log.append(events.StillPresent(tuple(sorted(present))))
            if image.attempts > 1 and decision.action is not Action.RETRY:
                self.log.append(events.RetryEnded(index, "still_present" if decision.action else "cleared"))
            images = list(state.images)
            images[index] = replace(self._decided(image, index, None, decision, answer, row, None), final=decision)
            state = replace(state, images=tuple(images))
        return replace(state, missed=False, caused=False)

    def _tightened(self, state: State, index: int, step: Step | None, decision: Decision) -> tuple[State, Decision]:
        decision, faults = self.tighten(state.id, index, step, decision)
        for fault in faults:
            state = self._degraded(state, fault.reason, fault.step, fault.detail)
        return state, decision

    def _degraded(self, state: State, reason: str, step: Step | None, detail: str) -> State:
        self.log.append(events.Degraded(reason, step, detail))
        return replace(state, degraded=(*state.degraded, reason))

    def _decided(
        self,
        image: ImageState,
        index: int,
        step: Step | None,
        decision: Decision,
        answer: Answer,
        row: int,
        applied: int | None,
    ) -> ImageState:
        at, sigma = (step.index, step.sigma) if step is not None else (None, None)
        secret = image.secret or fields.tells(decision, self.sensitive)
        if secret and not image.secret:
            self.log.append(events.Forgotten(index))
        self.log.append(events.Decided(index, step, decision, answer, row, applied, secret, image.attempts))
        report = QueryReport(at, sigma, decision, answer.latency_ms, image.attempts)
        return replace(image, secret=secret, queries=(*image.queries, report))

    def _paced(self, image: ImageState, step: Step, probabilities: Mapping[str, float]) -> pacing.Pace:
        """Return the pace of an image after a query, that is, when to query it again.

        Once something was found in the image, no later query is quiet (:func:`pacing.after`): the content may return.
        """
        steered = image.last is not None and image.last.negative is not None
        near = pacing.nearest(self.policy, probabilities, pacing.progress(step))
        near = 1.0 if image.history.held or image.history.found else near
        return pacing.after(self.policy.queries, image.pace, pacing.place(step)[0], near, steered=steered)
