"""Report the events of one generation in audit records, metrics and trace spans. Nothing here decides or raises."""

from __future__ import annotations

import hashlib
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit import events as records
from dnp_guard.generation import events, fields, pacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from PIL.Image import Image

    from dnp_guard.audit.shapes import PreviewFields, WouldFields
    from dnp_guard.audit.write.recorder import Recorder
    from dnp_guard.generation.state import Request
    from dnp_guard.plugins import Plugins
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, Report, Step

    Redact = Callable[[str], Mapping[str, Any]]
    """Turns a prompt into the ``prompt{…}`` of an audit record, as far as the policy lets it be recorded."""


_SAMPLE: Final = 0.01
"""Share of finished images without findings whose previews are stored, if the policy does not set one."""


class Account:
    """Reports the events of one generation in audit records, metrics, trace spans and plugin hooks.

    Args:
        request: id of the generation.
        policy: the policy in force.
        recorder: writes the audit records of the guard, and holds its metrics.
        plugins: plugins of the guard; they see the queried pictures, and failures of the guard.
        images: number of images in the batch.

    Attributes:
        span: trace span of the generation.
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
        """Record that the request has started."""
        prompt = fields.prompt([dict(redact(prompt)) for prompt in request.prompts])
        self._emit(
            records.RequestStarted(
                request=self._request,
                host=request.host,
                run=request.run or None,
                prompt=prompt,
                subject=request.subject,
            )
        )

    def tell(self, happened: Sequence[events.Event]) -> bool:
        """Write the events of the session to the audit record, the metrics and the trace.

        Returns:
            Whether every audit record of the generation so far was written.
        """
        for event in happened:
            self._told(event)
        return self._written

    def overhead(self, stage: str) -> AbstractContextManager[None]:
        """Measure how long a ``with`` block takes, as one stage of the guard's work such as ``judge``."""
        return self._recorder.metrics.overhead(stage)

    def showing(self, step: Step | None, pictures: Sequence[Image]) -> None:
        """Pass copies of a query's pictures to the plugins, just before the query."""
        if self._hook.dnp_guard_before_query.get_hookimpls():
            copies = tuple(picture.copy() for picture in pictures)  # a plugin may draw on its pictures
            self._hook.dnp_guard_before_query(request=self._request, step=step, images=copies)

    def close(self, end: str, report: Report) -> None:
        """Count the generation by how it ended, such as ``abandoned``, and its images by outcome; end the span."""
        self._recorder.metrics.session(self._policy.name, end)
        for image in report.images:
            self._recorder.metrics.generation(self._policy.name, image.decision)
        self.span.end(report.decision)
        self._recorder.settle()

    def _emit(self, event: records.Event) -> None:
        written = self._recorder.emit(event, required=self._policy.audit.required, policy=self._in_force)
        self._written = written and self._written

    @singledispatchmethod
    def _told(self, event: events.Event) -> None:
        raise NotImplementedError(type(event).__name__)

    @_told.register
    def _(self, event: events.Degraded) -> None:
        at = event.step.index if event.step is not None else None
        self._recorder.metrics.degraded(event.reason)
        self.span.degraded(event.reason)
        reason = f"{event.reason}: {event.detail}"
        self._emit(records.GuardDegraded(request=self._request, step=at, reason=reason))
        detail = {"step": at, "detail": event.detail}
        self._hook.dnp_guard_degraded(request=self._request, reason=event.reason, detail=detail)

    @_told.register
    def _(self, event: events.Skipped) -> None:
        self._recorder.metrics.queries(self._policy.name, "skipped")
        self._emit(
            records.QuerySkipped(
                request=self._request,
                image=event.image,
                attempt=_attempt(event),
                step=event.step.index,
                steps=event.step.total,
                sigma=event.step.sigma,
                probe=event.near,
                reason=event.reason,
            )
        )

    @_told.register
    def _(self, event: events.Answered) -> None:
        self._recorder.metrics.queries(self._policy.name, "answered", len(event.answer.pictures))
        self._recorder.metrics.query_seconds(event.answer.latency_ms / 1000)

    @_told.register
    def _(self, event: events.Unanswered) -> None:
        self._recorder.metrics.queries(self._policy.name, "failed", event.images)

    @_told.register
    def _(self, event: events.Decided) -> None:
        decision, step = event.decision, event.step
        at = step.index if step is not None else None
        self._emit(
            records.QueryAnswered(
                request=self._request,
                image=event.image,
                attempt=_attempt(event),
                step=at,
                applied_step=event.applied,
                steps=step.total if step is not None else None,
                sigma=step.sigma if step is not None else None,
                findings=fields.findings(decision.findings, self._sensitive),
                decision=decision.action or "none",
                would=fields.would(decision),
                preview=self._preview(event, at),
                asked=self._asked(event),
                nearest=self._nearest(event),
                latency_ms=event.answer.latency_ms,
            )
        )
        for category, outcome in fields.seen(self._policy, decision).items():
            self._recorder.metrics.finding(self._policy.name, category, outcome)
        if event.step is None:
            self._evaluated(event.image, decision)
        if decision.waived:
            waived = fields.findings(decision.waived, self._sensitive)
            self._emit(
                records.FindingWaived(
                    request=self._request,
                    image=event.image,
                    attempt=_attempt(event),
                    step=at,
                    findings=waived or [],
                )
            )

    @_told.register
    def _(self, event: events.InputSeen) -> None:
        decision = event.report.decision
        self._recorder.metrics.input(self._policy.name, event.report.action)
        self._emit(
            records.InputQueried(
                request=self._request,
                input=event.index,
                findings=fields.findings(decision.findings, self._sensitive) if decision else None,
                decision=(decision.action or "none") if decision else "none",
                would=fields.would(decision) if decision else None,
                action=event.report.action,
                answered=decision is not None,
                latency_ms=event.latency_ms,
            )
        )

    @_told.register
    def _(self, event: events.Forgotten) -> None:
        if self._policy.audit.previews != "never":
            self._recorder.forget(self._request, event.image)

    @_told.register
    def _(self, event: events.Cleared) -> None:
        at = event.step.index
        self._emit(
            records.NegativeCleared(
                request=self._request,
                image=event.image,
                attempt=_attempt(event),
                step=at,
                applied_step=event.applied,
            )
        )

    @_told.register
    def _(self, event: events.Injected) -> None:
        negative = event.negative
        findings = [finding for finding in event.decision.findings if finding.category in negative.categories]
        self._emit(
            records.NegativeInjected(
                request=self._request,
                image=event.image,
                attempt=_attempt(event),
                step=event.step.index,
                applied_step=event.applied,
                steps=event.step.total,
                sigma=event.step.sigma,
                findings=fields.findings(findings, self._sensitive),
                negative=fields.negative(negative, self._sensitive, effective=event.effective),
            )
        )
        if event.effective:
            # Count once per record: under the category that was seen first, or else the first one held.
            category = findings[0].category if findings else negative.categories[0]
            self._recorder.metrics.negative(self._policy.name, category)
            self.span.injected(event.image, event.applied, negative.categories, negative.scale)

    @_told.register
    def _(self, event: events.StillPresent) -> None:
        for category in event.categories:
            self._recorder.metrics.still_present(self._policy.name, category)

    @_told.register
    def _(self, event: events.Retried) -> None:
        negative, findings = event.negative, event.decision.findings
        self._emit(
            records.RequestRetried(
                request=self._request,
                image=event.image,
                attempt=event.attempt,
                findings=fields.findings(findings, self._sensitive),
                negative=fields.negative(negative, self._sensitive, effective=True) if negative is not None else None,
            )
        )
        self.span.retried(event.image, event.attempt, negative.categories if negative is not None else ())

    @_told.register
    def _(self, event: events.RetryEnded) -> None:
        self._recorder.metrics.retry(self._policy.name, event.outcome)

    @_told.register
    def _(self, event: events.Finished) -> None:
        would: WouldFields | None = {"decision": event.would} if event.would is not None else None
        self._emit(
            records.RequestFinished(
                request=self._request,
                image=event.image,
                decision=event.outcome,
                would=would,
                attempts=event.attempts if event.attempts > 1 else None,
                retry_ms=event.retry_ms if event.attempts > 1 else None,
                reason=event.not_again or None,
            )
        )

    @_told.register
    def _(self, event: events.Abandoned) -> None:
        self._emit(records.RequestAbandoned(request=self._request, reason=event.reason))

    def _asked(self, event: events.Decided) -> Sequence[str] | None:
        """Return the categories that a query asked about; None if it asked about all, or was about finished images."""
        asked = event.answer.asked
        some = event.step is not None and len(asked) < len(self._policy.categories)
        return sorted(asked) if some else None

    def _nearest(self, event: events.Decided) -> float | None:
        """Return an image's highest ratio of probability to threshold; None without ``back_off``, and at the end."""
        if event.step is None or self._policy.queries.back_off is None:
            return None
        return pacing.nearest(self._policy, event.decision.probabilities, pacing.progress(event.step))

    def _evaluated(self, index: int, decision: Decision) -> None:
        for category, probability in decision.probabilities.items():
            score = None if category in self._sensitive else probability
            found = any(finding.category == category for finding in decision.findings)
            self.span.evaluated(index, category, score, found=found)

    def _preview(self, event: events.Decided, at: int | None) -> PreviewFields | None:
        """Store the picture of a query if the policy asks for it; return its fields for the record, otherwise None."""
        decision = event.decision
        # A preview's file is named by its step, and the first attempt's file stays.
        if event.secret or event.attempt > 1 or self._policy.audit.previews == "never":
            return None
        if not decision.findings and not (at is None and self._sampled(event.image)):
            return None
        # A query that did not ask about every sensitive category cannot exclude them.
        if not decision.probabilities.keys() >= self._sensitive:
            return None
        return self._recorder.keep(self._request, event.image, at, event.answer.pictures[event.row])

    def _sampled(self, image: int) -> bool:
        """Return whether the finished image belongs to the random sample that is stored even without a finding."""
        audit = self._policy.audit
        if audit.previews != "sampled":
            return False
        share = _SAMPLE if audit.sample is None else audit.sample
        drawn = hashlib.sha256(f"{self._request}/{image}".encode()).digest()[:8]
        return int.from_bytes(drawn) < share * 2**64


def _attempt(event: events.Skipped | events.Decided | events.Injected | events.Cleared) -> int | None:
    """Return the number of the attempt at an image that an event belongs to; None if it is the first."""
    return event.attempt if event.attempt > 1 else None
