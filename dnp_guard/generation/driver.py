"""Run a session for a host: plan, preview, query, answer, steer, report. Never raises into a running generation."""

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
    """Runs the session of one generation.

    Args:
        session: the session.
        inquiry: puts the session's queries.
        account: records, counts and traces the session's events.
        steering: holds the session's negatives; None if the sampler's owner reads :attr:`negatives` itself.
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
        """The id in the generation's records."""
        return self.session.state.id

    @property
    def policy(self) -> Policy:
        """The policy that the generation began with; it stays in force to the end."""
        return self.session.policy

    @property
    def negatives(self) -> tuple[Negative | None, ...]:
        """The negative that steers each image now."""
        return self.session.negatives

    @property
    def user_previews(self) -> tuple[UserPreviews, ...]:
        """How much of each image the host may show its user now."""
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
            redact: turns a prompt into the record's ``prompt{…}``, as the policy requires.

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
        """Note that the host could not steer in attention space; see :meth:`Session.attention_lost`."""
        self.session.attention_lost()
        self._tell()

    def inputs(
        self, pictures: Sequence[Sequence[Image]], of: Sequence[Collection[int] | None] = ()
    ) -> tuple[InputReport, ...]:
        """Query the request's own pictures, before the first step.

        Args:
            pictures: RGB frames per picture: one, or several of a video; none for a picture that cannot be shown.
            of: for each picture the images that are made from it; None for all. All by default.

        Returns:
            The report on each picture; empty if the policy does not ask. After ``block`` the generation is over.
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
        """Return whether to pass on step ``index`` of ``total``: a query is due, or a late answer has arrived."""
        return self.session.due(index, total) or (self._late is not None and self._late[1].done())

    def looks(self, step: Step, likeness: Sequence[float] = ()) -> bool:
        """Return whether a due step needs pictures; it does not if every image is skipped.

        Args:
            step: the step.
            likeness: likeness from the step's view.
        """
        return self._late is not None or bool(self.session.plan(step, likeness).images)

    def step(self, step: Step, view: View) -> None:
        """Take a late answer, put a due query, and steer the steps that follow."""
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
        """Note an error of the host; see :meth:`Session.failed`."""
        self.session.failed(step, error, caused=caused)
        self._tell()

    def final(self, pictures: Callable[[], Sequence[Image]]) -> tuple[Outcome, ...]:
        """Look at the finished images if the policy does so, and settle the outcome of every image, without retries.

        Args:
            pictures: returns the finished images, RGB, in the order of the batch.
        """
        self.look(pictures)
        self.again()
        return self.settle()

    def look(self, pictures: Callable[[], Sequence[Image]], *, missing: str = "") -> bool:
        """Make the final look at an attempt, if the policy makes one.

        Args:
            pictures: returns the finished images, RGB, in the order of the batch.
            missing: description of a due query that the host never put.

        Returns:
            Whether the attempt may stand; a retry without its final look may not, and ends.
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
        """Begin a retry of the images that the policy gives one, steered from the first step on.

        Returns:
            Indices of the images; empty if none is drawn again.
        """
        images = self.session.again(in_time=self._times.for_another)
        if images:
            self._times = Times(self.policy.retries, self.session.begins(time()))
            self._begin_again()
        self._tell()
        return images if self.session.state.drawing else ()

    @property
    def in_time(self) -> bool:
        """Whether a retry may go on, within the time that the policy allows a request."""
        return not (self.session.state.drawing and self._times.over)

    def give_up(self, reason: Exception | str) -> None:
        """End a retry that brings no images, and settle; the earlier attempt's result stands.

        Args:
            reason: the error that it raised, or the reason in words.
        """
        self._retry_failed(reason)
        self.settle()

    def settle(self, *, aborted: bool = False) -> tuple[Outcome, ...]:
        """Settle the outcome of every image by its last look.

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
        """Hold the negatives of a retry; if that fails, settle the earlier attempt."""
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
        """Show a plan's images and query them; if nobody waits, a later step takes the answer."""
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
        """Take an answer that has arrived; at the end of the run, wait for it until the deadline."""
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
        """Return the pictures of each image in a plan, after plugins have seen all of them."""
        images = len(self.session.state.images)
        per_image, rest = divmod(len(pictures), images or 1)
        if len(pictures) != images and (rest or not per_image):
            raise DnpGuardError(f"{len(pictures)} pictures of {images} images", hint="Report it: the host is wrong.")
        self._account.showing(plan.step, pictures)
        shown = [pictures[index * per_image : (index + 1) * per_image] for index in plan.images]
        names = self.policy.queries.views if plan.step is None else ()
        return [[view for picture in own for view in views(picture, names)] for own in shown] if names else shown

    def _close(self, end: str, *, aborted: bool = False) -> tuple[Outcome, ...]:
        """Settle and report the outcomes, and close the account."""
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
