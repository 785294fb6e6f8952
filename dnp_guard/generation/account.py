"""What is told of one generation, in records, metrics and spans. Decides nothing and never raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.generation import fields
from dnp_guard.generation import pacing as schedule
from dnp_guard.types import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.audit.write.recorder import Recorder
    from dnp_guard.generation.query import Seen
    from dnp_guard.plugins import Plugins
    from dnp_guard.policy import Policy
    from dnp_guard.types import Decision, ImageReport, Negative, Outcome, Step


class Account:
    """Tells of one generation.

    Args:
        request: its id.
        policy: that it is under.
        recorder: of the guard.
        plugins: that hear of what goes wrong.
        images: in the batch.

    Attributes:
        degraded: reasons for which the guard could not do its job at some step.
        recorded: whether every record was written.
        sensitive: ids of the categories of which nothing is told but that they were seen.
        span: of the generation.
    """

    def __init__(self, request: str, policy: Policy, recorder: Recorder, plugins: Plugins, images: int) -> None:
        self.degraded: list[str] = []
        self.recorded = True
        self.sensitive = frozenset(category.id for category in policy.categories if category.sensitive)
        self.span = recorder.tracing.generation(request, policy.name, policy.digest, images)
        self._request = request
        self._policy = policy
        self._in_force = fields.policy(policy)
        self._recorder = recorder
        self._hook = plugins.hook

    def emit(self, event: str, **values: object) -> None:
        """Record an event."""
        record = {"request": self._request, "policy": self._in_force, **values}
        written = self._recorder.emit(event, required=self._policy.audit.required, **record)
        self.recorded = written and self.recorded

    def degrade(self, reason: str, step: Step | None, detail: str) -> None:
        """Tell that the guard could not do its job; the reason is one of the program's words."""
        self.degraded.append(reason)
        at = step.index if step is not None else None
        self._recorder.metrics.degraded(reason)
        self.span.degraded(reason)
        self.emit("degraded", step=at, reason=f"{reason}: {detail}")
        self._hook.dnp_guard_degraded(request=self._request, reason=reason, detail={"step": at, "detail": detail})

    def unanswered(self, images: int) -> None:
        """Count a look that was not answered."""
        self._recorder.metrics.queries(self._policy.name, "failed", images)

    def answered(self, seen: Seen, step: Step | None) -> None:
        """Count an answered look, and tell where what excuses its findings could not be asked about."""
        self._recorder.metrics.queries(self._policy.name, "answered", len(seen.pictures))
        self._recorder.metrics.query_seconds(seen.latency_ms / 1000)
        if seen.unexcused is not None:
            said = f"an allowed case could not be asked about: {seen.unexcused}"
            self.degrade(fields.reason(seen.unexcused), step, said)

    def skipped(self, index: int, step: Step, reason: schedule.Reason, near: float | None = None) -> None:
        """Tell of an image that is not looked at in a due step.

        Args:
            index: of the image.
            step: at which.
            reason: why.
            near: what the probe says of it, where that is the reason.
        """
        self._recorder.metrics.queries(self._policy.name, "skipped")
        at = {"step": step.index, "steps": step.total, "sigma": step.sigma}
        self.emit("query.skipped", image=index, **at, reason=reason, probe=near)

    def looked(
        self,
        index: int,
        step: Step | None,
        decision: Decision,
        seen: Seen,
        row: int,
        *,
        applied: int | None,
        secret: bool,
    ) -> None:
        """Tell what one image was seen to show.

        Args:
            index: of the image.
            step: that was looked at; None for the final look.
            decision: what came of it.
            seen: the look.
            row: of the image in it.
            applied: the first step that it could steer, where it was not waited for.
            secret: whether the image shows, or showed, something sensitive.
        """
        told = fields.look(step, decision, self.sensitive)
        at = step.index if step is not None else None
        told |= {"applied_step": applied, "latency_ms": seen.latency_ms}
        if step is not None:
            told |= self._of_the_pace(step, decision, seen)
        preview = None if secret else self._kept(index, at, decision, seen.pictures[row])
        self.emit("query", image=index, **told, preview=preview)
        if step is None:
            self._evaluated(index, decision)
        if decision.waived:
            waived = fields.findings(decision.waived, self.sensitive)
            self.emit("finding.waived", image=index, step=at, findings=waived)

    def forget(self, index: int) -> None:
        """Remove the previews of an image that shows something sensitive."""
        if self._policy.audit.previews != "never":
            self._recorder.forget(self._request, index)

    def cleared(self, index: int, step: Step, applied: int) -> None:
        """Tell that an image is steered no more from a step on."""
        self.emit("negative.cleared", image=index, step=step.index, applied_step=applied)

    def injected(
        self, index: int, step: Step, applied: int, decision: Decision, negative: Negative, *, effective: bool
    ) -> None:
        """Tell of a negative.

        Args:
            index: of the image.
            step: that was looked at.
            applied: the first step that it steers.
            decision: that it is of.
            negative: its words and scale.
            effective: whether the host can steer at the steps that follow.
        """
        found = [finding for finding in decision.findings if finding.category in negative.categories]
        self.emit(
            "negative.injected",
            image=index,
            step=step.index,
            applied_step=applied,
            steps=step.total,
            sigma=step.sigma,
            findings=fields.findings(found, self.sensitive),
            negative=fields.negative(negative, self.sensitive) | {"effective": effective},
        )
        if not effective:
            self.degrade("not_effective", step, "the host cannot steer at the steps that follow")
            return
        # One count a record: under the category that was seen first, or else under the first that is held.
        self._recorder.metrics.negative(self._policy.name, found[0].category if found else negative.categories[0])
        self.span.injected(index, applied, negative.categories, negative.scale)

    def still_present(self, categories: set[str]) -> None:
        """Count what an image was steered away from and shows in the end."""
        for category in sorted(categories):
            self._recorder.metrics.still_present(self._policy.name, category)

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Tell what became of each image."""
        for index, outcome in enumerate(outcomes):
            self.emit("request.finished", image=index, decision=outcome)

    def close(self, end: str, images: Sequence[ImageReport]) -> Report:
        """Count the generation by how it ended, end its span, and give the report."""
        self._recorder.metrics.session(self._policy.name, end)
        for image in images:
            self._recorder.metrics.generation(self._policy.name, image.decision)
        report = Report(self._request, self._policy.name, self._policy.digest, tuple(images), tuple(self.degraded))
        self.span.end(report.decision)
        self._recorder.settle()
        return report

    def _of_the_pace(self, step: Step, decision: Decision, seen: Seen) -> dict[str, object]:
        """What the steps that are looked at next follow from, where that is not the policy alone."""
        some = sorted(seen.asked) if len(seen.asked) < len(self._policy.categories) else None
        backs_off = self._policy.queries.back_off is not None
        near = schedule.nearest(self._policy, decision.probabilities, schedule.progress(step)) if backs_off else None
        return {"asked": some, "nearest": near}

    def _evaluated(self, index: int, decision: Decision) -> None:
        for category, probability in decision.probabilities.items():
            told = None if category in self.sensitive else probability
            found = any(finding.category == category for finding in decision.findings)
            self.span.evaluated(index, category, told, found=found)

    def _kept(self, index: int, at: int | None, decision: Decision, picture: Image) -> Mapping[str, str] | None:
        """Keep the preview of a finding where the policy does."""
        if self._policy.audit.previews == "never":
            return None
        # A look that did not ask about all that is sensitive does not know that nothing of it is there.
        if not decision.findings or not decision.probabilities.keys() >= self.sensitive:
            return None
        return self._recorder.keep(self._request, index, at, picture)
