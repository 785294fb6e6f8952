"""What is told of one generation, in records, metrics and spans. Decides nothing and never raises."""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

from dnp_guard.generation import events, fields, pacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from PIL.Image import Image

    from dnp_guard.audit.write.recorder import Recorder
    from dnp_guard.generation.state import Request
    from dnp_guard.plugins import Plugins
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, Report, Step

    Redact = Callable[[str], Mapping[str, Any]]
    """Turns a prompt into the record's ``prompt{…}``, as the policy says."""


class Account:
    """Tells of one generation.

    Args:
        request: its id.
        policy: the policy in force.
        recorder: of the guard.
        plugins: hear of what is shown and of what goes wrong.
        images: number of images in the batch.

    Attributes:
        span: of the generation.
    """

    def __init__(self, request: str, policy: Policy, recorder: Recorder, plugins: Plugins, images: int) -> None:
        self.span = recorder.tracing.generation(request, policy.name, policy.digest, images)
        self._request = request
        self._policy = policy
        self._sensitive = frozenset(category.id for category in policy.categories if category.sensitive)
        self._in_force = fields.policy(policy)
        self._recorder = recorder
        self._hook = plugins.hook
        self._written = True

    def started(self, request: Request, redact: Redact) -> None:
        """Record what was asked for."""
        prompt = fields.prompt([dict(redact(prompt)) for prompt in request.prompts])
        self._emit("request.started", host=request.host, run=request.run or None, prompt=prompt)

    def tell(self, told: Sequence[events.Event]) -> bool:
        """Tell what happened; whether every record so far was written."""
        for event in told:
            self._told(event)
        return self._written

    def overhead(self, stage: str) -> AbstractContextManager[None]:
        """Measure one stage of the guard's work."""
        return self._recorder.metrics.overhead(stage)

    def showing(self, step: Step | None, pictures: Sequence[Image]) -> None:
        """Let plugins see copies of the pictures of a query."""
        if self._hook.dnp_guard_before_query.get_hookimpls():
            copies = tuple(picture.copy() for picture in pictures)  # a plugin may draw on what it is shown
            self._hook.dnp_guard_before_query(request=self._request, step=step, images=copies)

    def close(self, end: str, report: Report) -> None:
        """Count the generation by how it ended, and end its span."""
        self._recorder.metrics.session(self._policy.name, end)
        for image in report.images:
            self._recorder.metrics.generation(self._policy.name, image.decision)
        self.span.end(report.decision)
        self._recorder.settle()

    def _emit(self, event: str, **values: object) -> None:
        record = {"request": self._request, "policy": self._in_force, **values}
        written = self._recorder.emit(event, required=self._policy.audit.required, **record)
        self._written = written and self._written

    @singledispatchmethod
    def _told(self, event: events.Event) -> None:
        raise NotImplementedError(type(event).__name__)

    @_told.register
    def _(self, event: events.Degraded) -> None:
        at = event.step.index if event.step is not None else None
        self._recorder.metrics.degraded(event.reason)
        self.span.degraded(event.reason)
        self._emit("degraded", step=at, reason=f"{event.reason}: {event.detail}")
        detail = {"step": at, "detail": event.detail}
        self._hook.dnp_guard_degraded(request=self._request, reason=event.reason, detail=detail)

    @_told.register
    def _(self, event: events.Skipped) -> None:
        self._recorder.metrics.queries(self._policy.name, "skipped")
        at = {"step": event.step.index, "steps": event.step.total, "sigma": event.step.sigma}
        self._emit("query.skipped", image=event.image, **at, reason=event.reason, probe=event.near)

    @_told.register
    def _(self, event: events.Answered) -> None:
        self._recorder.metrics.queries(self._policy.name, "answered", len(event.answer.pictures))
        self._recorder.metrics.query_seconds(event.answer.latency_ms / 1000)

    @_told.register
    def _(self, event: events.Unanswered) -> None:
        self._recorder.metrics.queries(self._policy.name, "failed", event.images)

    @_told.register
    def _(self, event: events.Decided) -> None:
        decision = event.decision
        record = fields.query(event.step, decision, self._sensitive)
        record |= {"applied_step": event.applied, "latency_ms": event.answer.latency_ms}
        if event.step is not None:
            record |= self._pace(event.step, event)
        at = event.step.index if event.step is not None else None
        self._emit("query", image=event.image, **record, preview=self._preview(event, at))
        if event.step is None:
            self._evaluated(event.image, decision)
        if decision.waived:
            waived = fields.findings(decision.waived, self._sensitive)
            self._emit("finding.waived", image=event.image, step=at, findings=waived)

    @_told.register
    def _(self, event: events.Forgotten) -> None:
        if self._policy.audit.previews != "never":
            self._recorder.forget(self._request, event.image)

    @_told.register
    def _(self, event: events.Cleared) -> None:
        self._emit("negative.cleared", image=event.image, step=event.step.index, applied_step=event.applied)

    @_told.register
    def _(self, event: events.Injected) -> None:
        negative = event.negative
        findings = [finding for finding in event.decision.findings if finding.category in negative.categories]
        self._emit(
            "negative.injected",
            image=event.image,
            step=event.step.index,
            applied_step=event.applied,
            steps=event.step.total,
            sigma=event.step.sigma,
            findings=fields.findings(findings, self._sensitive),
            negative=fields.negative(negative, self._sensitive) | {"effective": event.effective},
        )
        if event.effective:
            # One count per record: under the category seen first, or else the first that is held.
            category = findings[0].category if findings else negative.categories[0]
            self._recorder.metrics.negative(self._policy.name, category)
            self.span.injected(event.image, event.applied, negative.categories, negative.scale)

    @_told.register
    def _(self, event: events.StillPresent) -> None:
        for category in event.categories:
            self._recorder.metrics.still_present(self._policy.name, category)

    @_told.register
    def _(self, event: events.Finished) -> None:
        self._emit("request.finished", image=event.image, decision=event.outcome)

    @_told.register
    def _(self, event: events.Abandoned) -> None:
        self._emit("request.abandoned", reason=event.reason)

    def _pace(self, step: Step, event: events.Decided) -> dict[str, object]:
        """What decides when the next query is due, where that is not the policy alone."""
        asked = event.answer.asked
        some = sorted(asked) if len(asked) < len(self._policy.categories) else None
        backs_off = self._policy.queries.back_off is not None
        probabilities = event.decision.probabilities
        near = pacing.nearest(self._policy, probabilities, pacing.progress(step)) if backs_off else None
        return {"asked": some, "nearest": near}

    def _evaluated(self, index: int, decision: Decision) -> None:
        for category, probability in decision.probabilities.items():
            score = None if category in self._sensitive else probability
            found = any(finding.category == category for finding in decision.findings)
            self.span.evaluated(index, category, score, found=found)

    def _preview(self, event: events.Decided, at: int | None) -> Mapping[str, str] | None:
        """Keep the preview of a finding where the policy does."""
        decision = event.decision
        if event.secret or self._policy.audit.previews == "never":
            return None
        # A query that did not ask about all that is sensitive does not know that nothing of it is there.
        if not decision.findings or not decision.probabilities.keys() >= self._sensitive:
            return None
        return self._recorder.keep(self._request, event.image, at, event.answer.pictures[event.row])
