"""Sessions that guard generations in other processes. Implements the protocol without HTTP."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dnp_guard.errors import DnpGuardError, RequestRefused
from dnp_guard.generation import pacing, reach
from dnp_guard.generation.host import Pictures
from dnp_guard.generation.redrawing import attempted
from dnp_guard.generation.second_chance import LEFT, NO_TIME
from dnp_guard.generation.state import Request
from dnp_guard.hosts.protocol import AnswerMessage, InputVerdicts, Open, Opened, Verdicts
from dnp_guard.server import due_queries, pictures, policies, replies, retrying, state
from dnp_guard.server.in_flight import Flight
from dnp_guard.server.live_sessions import ENDED, INPUTS, LEFT_OUT, LiveSessions, check_goes_on
from dnp_guard.server.problems import Refusal
from dnp_guard.server.sessions import Stored
from dnp_guard.server.verdicts import verdicts
from dnp_guard.types import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dnp_guard.generation.driver import Driver
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.protocol import Finish, InputsMessage, QueryMessage
    from dnp_guard.policy import Policy
    from dnp_guard.server.guards import Guards
    from dnp_guard.server.receipts import Issuer
    from dnp_guard.server.sessions import SessionStore, Status
    from dnp_guard.server.settings import Limits
    from dnp_guard.server.tokens import Grant

_REPEATABLE = 8
"""How many of the last steps are answered again when a query is repeated."""

_TRIAL = "0" * 8192
"""A token that nobody has; it is long enough to need new space in the store."""


class SessionService:
    """Opens, continues and ends sessions. A session guards one generation, which a host runs elsewhere.

    The store has every session as it was after its last request, so that any worker can continue it; a copy in memory
    only saves reading the store. All audit records of a request are written before it is answered.

    Args:
        guards: guards of the tenants.
        store: shared with other workers.
        limits: limits per request, session and token.
        issuer: signs receipts; None for no receipts.
        clock: seconds since 1970.

    Attributes:
        guards: as given.
        store: as given.
        flight: counts the pixels that all requests hold.
    """

    def __init__(
        self,
        guards: Guards,
        store: SessionStore,
        limits: Limits,
        issuer: Issuer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.guards = guards
        self.store = store
        self._limits = limits
        self._issuer = issuer
        self._clock = clock
        self._sessions = LiveSessions(guards, store, limits.idle_s, clock)
        self.flight = Flight(max(limits.pixels_held, limits.total_pixels), "pixels")
        self._turning = threading.Lock()
        self._turns: WeakValueDictionary[str, Any] = WeakValueDictionary()
        """A lock per session that has a request now."""

    def open(self, grant: Grant, asked: Open) -> Opened:
        """Begin a session, or another attempt of one whose images the host has to generate again.

        Raises:
            Refusal: the token does not allow it, or it exceeds a limit.
        """
        self.admit(grant)
        if asked.retries is not None:
            return self._open_again(grant, asked.retries, asked.indices or [])
        if grant.hosts and asked.host.name not in grant.hosts:
            raise Refusal("host", f"The token is for {', '.join(grant.hosts)}.")
        if asked.images > self._limits.images:
            detail = f"At most {self._limits.images} images per session are allowed; generate fewer together."
            raise Refusal("refused", detail)
        can = asked.can or ()
        request = Request(
            asked.images,
            asked.host.model_dump(exclude_defaults=True) | {"name": asked.host.name},
            tuple(asked.prompts),
            asked.run.model_dump(exclude_none=True) | ({"steps": asked.steps} if asked.steps else {}),
            draws_again="retry" in can,
        )
        with policies.selected(self.guards, grant, asked.policy, asked.region, asked.surface) as guard:
            policy = guard.policy
            policies.admit(policy, self.store, asked.images, self._limits, can)
            try:
                with guard.on_behalf_of(asked.subject):
                    driver = guard.start(request, policy)
            except RequestRefused as error:
                guard.settle()
                raise Refusal("refused", f"{error.message}. {error.hint}") from error
        if "attention" in can and reach.in_attention(policy, shown="attention_shown" in can):
            driver.session.steers_attention(guided=asked.run.guidance_scale != 1)
        stored = Stored(
            id=driver.id,
            token=grant.sha256,
            tenant=grant.tenant or "",
            request=asked.model_copy(update={"prompts": [], "subject": None}).model_dump_json(),
            policy=json.dumps(driver.session.given.resolved()),
            digest=driver.policy.digest,
            expires=self._sessions.expiry(),
            state=state.dumps(driver.session.state),
        )
        if not self._sessions.add(stored, guard, driver, self._limits.sessions):
            driver.abandon("too many open sessions")
            raise Refusal("sessions", f"At most {self._limits.sessions} open sessions per token are allowed.", wait=1)
        return replies.opened(driver, asked, self._limits.idle_s)

    def _open_again(self, grant: Grant, session: str, indices: Sequence[int]) -> Opened:
        with self._turn(session):
            stored = self._sessions.load(grant.sha256, session)
            retrying.check_awaited(stored)
            guard, live = self._sessions.take_up(stored)
            if sorted(indices) != list(live.session.state.drawn):
                raise Refusal("images", f"Draw each image of {live.session.state.drawn} again.")
            answers = {key: value for key, value in json.loads(stored.answers).items() if key == INPUTS}
            restarted = replace(stored, final="", asked=-1, step=-1, answers=json.dumps(answers))
            self._sessions.save(restarted, guard, live)
            return replies.opened(live, Open.model_validate_json(stored.request), self._limits.idle_s)

    def inputs(self, grant: Grant, session: str, asked: InputsMessage) -> InputVerdicts:
        """Check the input pictures of a generation before its first step. A repeated request gets the same answer.

        Raises:
            Refusal: there is no such session, it has begun or is over, or a picture cannot be accepted.
        """
        self.admit(grant)
        with self._turn(session) as take:
            stored = self._sessions.load(grant.sha256, session)
            if (given := json.loads(stored.answers).get(INPUTS)) is not None:
                return InputVerdicts.model_validate(given)
            check_goes_on(stored)
            guard, live = self._sessions.take_up(stored)
            if stored.step >= 0 or live.session.state.drawing is not None:
                raise Refusal("step", "The first step has been asked about already.", step=stored.step)
            shown = pictures.decoded(pictures.inputs(asked.images, self._limits), take)
            stored = self._sessions.claim(stored)  # the session may be over after this
            verdicts = replies.of_inputs(live.inputs([[picture] for picture in shown]), len(shown))
            stored = replace(stored, status="open", answers=json.dumps({INPUTS: verdicts.model_dump(mode="json")}))
            if live.report is not None:
                stored = replace(stored, status="finished", final=replies.refused(live).model_dump_json())
            self._sessions.save(stored, guard, live)
            return verdicts

    def query(self, grant: Grant, session: str, asked: QueryMessage) -> tuple[AnswerMessage, float]:
        """Query the vision-language model about the images at a denoising step, if the policy requires it there.

        Returns:
            The answer, and the milliseconds spent waiting for the model.

        Raises:
            Refusal: there is no such session, it is past this step, or an image cannot be accepted.
        """
        self.admit(grant)
        with self._turn(session) as take:
            stored = self._sessions.load(grant.sha256, session)
            answered = json.loads(stored.answers)
            if str(asked.step) in answered:
                return AnswerMessage.model_validate(answered[str(asked.step)]), 0.0
            check_goes_on(stored)
            if asked.step < stored.step:
                raise Refusal("step", f"Step {stored.step} was asked about already.", step=stored.step)
            guard, live = self._sessions.take_up(stored)
            total = json.loads(stored.request)["steps"]
            if total is None and asked.progress is None:
                raise Refusal("request", "Send the progress, because the number of steps is unknown.")
            step = _step(asked, total)
            with self._arriving(stored, live, step):
                _check_within(asked.step, total)
            if not live.in_time:
                self._ended(stored, guard, live, NO_TIME)
                raise Refusal("over", f"No image is drawn again: {NO_TIME}.")
            missing = due_queries.left_out(live.policy, total, stored, asked, answered.get(ENDED))
            if missing and asked.failed and ENDED not in answered:
                live.missed(step, DnpGuardError(f"{missing}: the host could not send one"))
            elif missing:
                answered.setdefault(LEFT_OUT, missing)
            if asked.ended:
                answered[ENDED] = asked.step
            at, of = pacing.place(step)
            # The host has asked, even where its pictures are refused.
            stored = replace(stored, asked=max(at, stored.asked), step=asked.step, answers=json.dumps(answered))
            if asked.used == "separate":
                live.attention_lost()
            due = live.due(at, of or pacing.TICKS)
            similarities = replies.similarities(asked.images, len(live.session.state.images))
            looks = due and live.looks(step, similarities)
            with self._arriving(stored, live, step):
                opened = pictures.opened(asked.images, live.session.state.drawn, self._limits)
                shown = retrying.of_batch(live, pictures.decoded(opened, take)) if looks else []
            waited = 0.0
            if due:
                before = live.session.state.images[0].pace.waited_ms
                live.step(step, Pictures(shown, similarities))
                waited = live.session.state.images[0].pace.waited_ms - before
            answer = replies.answer(live)
            answered[str(asked.step)] = answer.model_dump(mode="json")
            # Steps only grow, so a repeated one is among the last; keeping all would cost more with every step.
            beside = {key: answered.pop(key) for key in (INPUTS, LEFT_OUT, ENDED) if key in answered}
            answered = beside | dict(list(answered.items())[-_REPEATABLE:])
            self._sessions.save(replace(stored, answers=json.dumps(answered)), guard, live)
            return answer, waited

    def final(self, grant: Grant, session: str, asked: Finish) -> Verdicts:
        """Query the vision-language model about the finished images, and return the verdict on every image.

        Raises:
            Refusal: there is no such session, it is over, or an image cannot be accepted.
        """
        self.admit(grant)
        with self._turn(session) as take:
            stored = self._sessions.load(grant.sha256, session)
            if stored.final:
                return Verdicts.model_validate_json(stored.final)
            check_goes_on(stored)
            guard, live = self._sessions.take_up(stored)
            drawn = live.session.state.drawn
            if asked.used == "separate":
                live.attention_lost()
            with self._arriving(stored, live, None):
                shown = pictures.decoded(pictures.opened(asked.images, drawn, self._limits), take)
            total = json.loads(stored.request)["steps"]
            left_out = str(json.loads(stored.answers).get(LEFT_OUT, ""))
            missing = left_out or due_queries.unasked(live.policy, total, stored.asked)
            stored = self._sessions.claim(stored)
            batch = retrying.of_batch(live, shown)
            stands, again = attempted(live, lambda: batch, missing=missing)
            judged = dict(zip(drawn, shown if stands else [None] * len(drawn), strict=True))
            final = verdicts(self._issuer, stored, live, judged, self._clock(), again)
            status: Status = "open" if again else "finished"
            self._sessions.save(replace(stored, status=status, final=final.model_dump_json()), guard, live)
            return final

    def abandon(self, grant: Grant, session: str, reason: str = "the host ended it") -> None:
        """End a session whose generation brings no finished images; do nothing if the session is over.

        Raises:
            Refusal: there is no such session.
        """
        self.admit(grant)
        with self._turn(session):
            stored = self._sessions.load(grant.sha256, session)
            if stored.status != "open":
                return
            guard, live = self._sessions.take_up(stored)
            if live.session.state.drawing:
                self._ended(stored, guard, live, LEFT)
                return
            stored = self._sessions.claim(stored)
            live.abandon(reason)
            self._sessions.save(replace(stored, status="abandoned"), guard, live)

    def _ended(self, stored: Stored, guard: Guard, live: Driver, reason: str) -> None:
        """End a retry that brought no pictures; its images get the action that the policy names for that case."""
        drawn = live.session.state.drawn
        stored = self._sessions.claim(stored)
        live.give_up(reason)
        final = verdicts(None, stored, live, dict.fromkeys(drawn), self._clock())
        self._sessions.save(replace(stored, status="finished", final=final.model_dump_json()), guard, live)

    def sweep(self) -> None:
        """End sessions that have expired."""
        self._sessions.sweep()

    def close(self, *, keep: bool) -> None:
        """Close the guards and the store; end the open sessions first, unless they are kept for another worker."""
        if not keep:
            self._sessions.end_open("the service ended")
        self.guards.close()
        self.store.close()

    def admit(self, grant: Grant) -> None:
        """Count a request against the rate limit of its token.

        Raises:
            Refusal: the token has sent too many requests in this minute.
        """
        now = self._clock()
        if self.store.count(grant.sha256, int(now // 60)) > self._limits.rate:
            wait = 60 - int(now % 60)
            raise Refusal("rate", f"At most {self._limits.rate} requests per minute are allowed.", wait=wait)

    def check(self, policy: Policy) -> None:
        """Check that the store may hold sessions under a policy; see :func:`policies.check`."""
        policies.check(policy, self.store)

    def try_store(self) -> None:
        """Write a test entry to the store; raise the store's error if that fails."""
        self.store.count(_TRIAL, int(self._clock() // 60))

    @contextmanager
    def _turn(self, session: str) -> Iterator[Callable[[int], None]]:
        """Run one request per session at a time in this worker, and yield a function that reserves pixels for it."""
        with self._turning:
            turn = self._turns.setdefault(session, threading.Lock())
        with turn, self.flight.request() as take:
            yield take

    @contextmanager
    def _arriving(self, stored: Stored, live: Driver, step: Step | None) -> Iterator[None]:
        """Record a missed query if the ``with`` block refuses a request, but not as ``busy``; pass on every refusal."""
        try:
            yield
        except Refusal as problem:
            if problem.kind == "busy":  # nothing is wrong with the pictures
                raise
            live.missed(step, problem, caused=True)
            self._sessions.save(stored, self.guards.of(stored.tenant or None), live)
            raise


def _step(asked: QueryMessage, total: int | None) -> Step:
    """Return the step that a query is about; the last step of the run if the host says that the run has ended."""
    last = asked.step if total is None else total - 1
    index = last if asked.ended else min(asked.step, last)
    progress = 1.0 if asked.ended else asked.progress
    return Step(index, total, asked.sigma, None, progress=progress, effective=asked.effective)


def _check_within(step: int, total: int | None) -> None:
    """Refuse a query at a step above ``total``; a step equal to ``total`` stands for the end of the run."""
    if total is not None and step > total:
        raise Refusal("request", f"Step {step} lies beyond the {total} steps that the session was opened with.")
