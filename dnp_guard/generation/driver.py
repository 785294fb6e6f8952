"""Run one generation's session for its host: plan, query, judge, steer, report. No error reaches the generation."""

from __future__ import annotations

from time import perf_counter, time
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError, RequestRefused, VlmTimeout, own
from dnp_guard.generation import second_chance
from dnp_guard.generation.times import Times
from dnp_guard.generation.views import views

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from concurrent.futures import Future

    from PIL.Image import Image

    from dnp_guard.generation.account import Account, Redact
    from dnp_guard.generation.host import Holder, View
    from dnp_guard.generation.outcomes import UserPreviews
    from dnp_guard.generation.plan import Plan
    from dnp_guard.generation.query import Answer, Inquiry
    from dnp_guard.generation.session import Session
    from dnp_guard.generation.state import Request
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import InputReport, Negative, Outcome, Report, Step


class Driver:
    """Runs the session of one generation for a host, which is the adapter of a pipeline or sampler.

    Args:
        session: the rules and the state of the generation.
        inquiry: puts the queries to the vision-language model.
        account: records, counts and traces the session's events.
        steering: receives the negative prompts to steer by; None if the host reads :attr:`negatives` itself.
    """

    def __init__(self, session: Session, inquiry: Inquiry, account: Account, steering: Holder | None = None) -> None:
        self.session = session
        self._inquiry = inquiry
        self._account = account
        self._steering = steering
        self._late: tuple[Plan, Future[Answer]] | None = None
        self._closed = False
        self._times = Times(session.policy.retries, session.state.began or session.begins(time()))

    @property
    def id(self) -> str:
        """The id of the generation in its audit records."""
        return self.session.state.id

    @property
    def policy(self) -> Policy:
        """The policy that the generation began with; it stays in force to the end."""
        return self.session.policy

    @property
    def negatives(self) -> tuple[Negative | None, ...]:
        """The negative prompt that steers each image now; None for an image that is not steered."""
        return self.session.negatives

    @property
    def user_previews(self) -> tuple[UserPreviews, ...]:
        """Whether the host may show its user each unfinished image now: ``allow``, ``blur`` or ``withhold``."""
        return self.session.user_previews

    @property
    def report(self) -> Report | None:
        """The report of the generation; None before it is over."""
        return self.session.report if self._closed else None

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcome of each image; empty before they are settled."""
        return self.session.state.outcomes or ()

    def begin(self, request: Request, redact: Redact) -> None:
        """Record the start of the generation.

        Args:
            request: the request.
            redact: turns a prompt into the ``prompt{…}`` of the record, as the policy requires.

        Raises:
            RequestRefused: the request could need more questions than the policy allows.
        """
        self._account.started(request, redact)
        self._tell()
        if self.session.refused:
            self._close("finished", aborted=True)
            raise RequestRefused(
                f"{request.images} images may need {self.session.needed} questions; policy {self.policy.name!r} allows "
                f"{self.policy.queries.max_questions} (queries.max_questions)",
                hint="Generate fewer images in one call, or raise the limit in the policy.",
                report=self.report,
            )

    def attention_lost(self) -> None:
        """Note that the host failed to steer in the denoiser's attention; see :meth:`Session.attention_lost`."""
        self.session.attention_lost()
        self._tell()

    def inputs(
        self, pictures: Sequence[Sequence[Image]], of: Sequence[Collection[int] | None] = ()
    ) -> tuple[InputReport, ...]:
        """Query the pictures that the request contains, such as an image to edit, before the first step.

        Args:
            pictures: RGB frames per picture: one, or several of a video; none for a picture that cannot be decoded.
            of: per picture, the indices of the images made from it; None for all images. All by default.

        Returns:
            The report on each picture; empty if the policy queries none. If one says ``block``, the generation is over.
        """
        plan = self.session.plan_inputs([len(frames) for frames in pictures])
        if plan is None:
            return ()
        answer: Answer | Exception | None = None
        try:
            if plan.images:
                with self._account.overhead("ask"):
                    answer = self._inquiry.put(plan, [pictures[index] for index in plan.images])
        except Exception as error:  # noqa: BLE001 (the session decides how to treat it)
            answer = error
        self.session.inputs(of or [None] * len(pictures), plan, answer)
        self._tell()
        if self.session.state.turned_away:
            self._close("finished")
        return self.session.state.inputs

    def due(self, index: int, total: int) -> bool:
        """Return whether the host must call :meth:`step`: a query is due at this step, or a late answer has arrived."""
        return self.session.due(index, total) or (self._late is not None and self._late[1].done())

    def looks(self, step: Step, likeness: Sequence[float] = ()) -> bool:
        """Return whether the query at a due step needs decoded pictures; it does not if it skips every image.

        Args:
            step: the step.
            likeness: similarities of the predictions, from :meth:`~dnp_guard.generation.host.View.likeness`.
        """
        return self._late is not None or bool(self.session.plan(step, likeness).images)

    def step(self, step: Step, view: View) -> None:
        """Handle a step: take a late answer, put a due query, and steer the following steps by the answer."""
        if self._late is not None and self._late[1].done():
            self._take_late(step)
            if step.total is not None and not self.session.due(step.index, step.total):
                return
        queries = self.policy.queries
        idle = not (self.session.state.in_flight or self.session.state.missed)
        try:
            likeness = view.likeness() if queries.skip_similar is not None and idle else ()
            nearness = view.nearness() if queries.skip_probe is not None and idle else ()
            plan = self.session.plan(step, likeness, nearness)
            self.session.asking(plan)
            if plan.images:
                self._query(plan, view.pictures, step)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.session.unanswered(self.session.plan(step), error)
        self._tell()

    def missed(self, step: Step | None, error: Exception, *, caused: bool = False) -> None:
        """Note an error that kept the host from a query or from steering; see :meth:`Session.failed`."""
        self.session.failed(step, error, caused=caused)
        self._tell()

    def final(self, pictures: Callable[[], Sequence[Image]]) -> tuple[Outcome, ...]:
        """Query the finished images if the policy asks for it, and settle the outcome of every image, without retries.

        Args:
            pictures: returns the finished images, RGB, in the order of the batch.
        """
        self.look(pictures)
        self.again()
        return self.settle()

    def look(self, pictures: Callable[[], Sequence[Image]], *, missing: str = "") -> bool:
        """Make the final look, the query of an attempt's finished images, if the policy asks for it.

        Args:
            pictures: returns the finished images, RGB, in the order of the batch.
            missing: description of a due query that the host left out; empty if there is none.

        Returns:
            Whether the images of the attempt may be used; not those of a retry whose final look is not answered.
        """
        if self._late is not None:
            with self._account.overhead("ask"):
                self._take_late(None)
        plan = self.session.plan_final()
        if missing:
            self.session.missed("query_missing", None, missing)
        elif plan is not None:
            self._query(plan, pictures, None)
        stands = True
        if self.session.state.drawing is not None:
            stands = not self.session.state.missed
            if stands:
                self.session.retry_took(self._times.took_ms)
            else:
                self._retry_failed("it was not looked at")
        self._tell()
        return stands

    def again(self) -> tuple[int, ...]:
        """Begin a retry: choose the images to draw again, and steer them from the first step on.

        Returns:
            Indices of the images to draw again; empty if there are none.
        """
        images = self.session.again(in_time=self._times.for_another)
        if images:
            self._times = Times(self.policy.retries, self.session.begins(time()))
            self._begin_again()
        self._tell()
        return images if self.session.state.drawing else ()

    @property
    def in_time(self) -> bool:
        """Whether a running retry is still within the time that the policy allows a request; True without a retry."""
        return not (self.session.state.drawing and self._times.over)

    def give_up(self, reason: Exception | str) -> None:
        """End a retry that failed, and settle the outcome of every image by the attempt before it.

        Args:
            reason: the error that the retry raised, or an explanation in words.
        """
        self._retry_failed(reason)
        self.settle()

    def settle(self, *, aborted: bool = False) -> tuple[Outcome, ...]:
        """Settle the outcome of every image by its last answered query, and end the generation.

        Args:
            aborted: whether the images must be withheld, whatever they show.
        """
        return self._close("finished", aborted=aborted)

    def abandon(self, reason: str) -> None:
        """Close the session of a generation that ended without finished images."""
        self._drop_late()
        if not self._closed:
            self.session.abandon(reason)
            self._close("abandoned")

    def _begin_again(self) -> None:
        """Hand the negative prompts of a retry to the host; if that fails, end the retry."""
        try:
            with self._account.overhead("encode"):
                if self._steering is not None:
                    self._steering.hold(second_chance.to_hold(self.session.state))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._retry_failed(error)

    def _retry_failed(self, reason: Exception | str) -> None:
        self._drop_late()
        if isinstance(reason, Exception):
            reason = str(reason) if own(reason) else type(reason).__name__
        self.session.retry_failed(reason, self._times.took_ms)
        self._tell()

    def _query(self, plan: Plan, pictures: Callable[[], Sequence[Image]], now: Step | None) -> None:
        """Decode the pictures of a plan and query them; if the host does not wait, a later step takes the answer."""
        started, waited = 0.0, 0.0
        try:
            with self._account.overhead("preview"):
                shown = self._shown(plan, pictures())
            if plan.step is not None and not self.session.waits:
                self._late = plan, self._inquiry.aside(plan, shown)
                return
            started = perf_counter()
            try:
                with self._account.overhead("ask"):
                    answer = self._inquiry.put(plan, shown)
            finally:
                waited = (perf_counter() - started) * 1000
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.session.unanswered(plan, error, waited)
            return
        self._answered(plan, answer, now, waited)

    def _answered(self, plan: Plan, answer: Answer, now: Step | None, waited_ms: float = 0.0) -> None:
        before = self.session.negatives
        try:
            with self._account.overhead("judge"):
                self.session.answered(plan, answer, now, waited_ms)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.session.unanswered(plan, error, waited_ms)
            return
        if self._steering is None or now is None or self.session.negatives == before:
            return
        try:
            with self._account.overhead("encode"):
                self._steering.hold(second_chance.to_hold(self.session.state))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.session.unsteered(plan, error)

    def _take_late(self, now: Step | None) -> None:
        """Take the answer to the query that ran beside denoising; wait for it no longer than ``deadline_ms``."""
        late, self._late = self._late, None
        if late is None:
            return
        plan, answer = late
        deadline = self.policy.queries.deadline_ms
        try:
            taken = answer.result(None if deadline is None else deadline / 1000)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            answer.cancel()
            in_time = not isinstance(error, TimeoutError) or answer.done()
            self.session.unanswered(plan, error if in_time else VlmTimeout(f"no answer within {deadline} ms"))
        else:
            self._answered(plan, taken, now)
        self._tell()

    def _drop_late(self) -> None:
        if self._late is not None:
            self._late[1].cancel()  # the result of a call that is already running is ignored
            self._late = None

    def _shown(self, plan: Plan, pictures: Sequence[Image]) -> list[Sequence[Image]]:
        """Show all pictures to the plugins; return those of the planned images, with extra views of finished images."""
        images = len(self.session.state.images)
        per_image, rest = divmod(len(pictures), images or 1)
        if len(pictures) != images and (rest or not per_image):
            raise DnpGuardError(f"{len(pictures)} pictures of {images} images", hint="Report this bug of the host.")
        self._account.showing(plan.step, pictures)
        shown = [pictures[index * per_image : (index + 1) * per_image] for index in plan.images]
        names = self.policy.queries.views if plan.step is None else ()
        return [[view for picture in own for view in views(picture, names)] for own in shown] if names else shown

    def _close(self, end: str, *, aborted: bool = False) -> tuple[Outcome, ...]:
        """Settle and report the outcomes; ``end`` says how the generation ended, such as ``abandoned``."""
        if end != "abandoned":
            self.session.settle(aborted=aborted)
        self._tell()
        self._tell()  # a record that could not be written may have changed the outcomes
        self._closed, state = True, self.session.state
        asked = any(image.queries for image in state.images) or any(report.decision for report in state.inputs)
        if self.session.report is not None:
            self._account.close(end if asked or end == "abandoned" else "unasked", self.session.report)
        return self.outcomes

    def _tell(self) -> None:
        if not self._account.tell(self.session.events()):
            self.session.unrecorded()
