"""One desk before each backend, whoever asks: it shares calls, bounds waits, and serves all in fair turns."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from dnp_guard.errors import VlmBusy, VlmError, VlmTimeout
from dnp_guard.vlm.aside import beside
from dnp_guard.vlm.backend_call import BackendCall
from dnp_guard.vlm.base import Query, Wrapped, as_backend
from dnp_guard.vlm.waiting import MOST_WAITING, FairQueue, Pending, crowded
from dnp_guard.vlm.worker import NAME, apart, start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    from PIL.Image import Image

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Asked, BackendInfo

T = TypeVar("T")

WINDOW_S = 0.004
"""How long a call waits for company, where there was some lately."""
_JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a backend answered.

    Attributes:
        probabilities: of "yes", shape [images, questions].
        latency_ms: how long the caller waited.
    """

    probabilities: Probabilities
    latency_ms: float


class Desk:
    """Stands before one backend, whoever asks: guards, tenants and deadlines.

    **Threads.** A backend gets as many calls at once as its ``at_once`` says, one unless it says more. A question
    without a deadline that finds nobody else is put in the caller's own thread; any other waits in line for a thread
    of the desk, which ends when the line does.

    **Sharing.** Where the backend says ``batches = True``, callers that ask the same at the same time share a call.
    What arrives while a call runs is answered by the next one. A generation alone never waits: only after a call that
    was shared does the next one wait for company, :data:`WINDOW_S` at most. Where a shared call fails, the question of
    each caller that still waits is put once more by itself, so that one's picture cannot fail another's.

    **Fair turns.** The queue is served in rotation over those who ask (``turn``), and at most
    :data:`~dnp_guard.vlm.waiting.MOST_WAITING` questions of each may wait; see
    :class:`~dnp_guard.vlm.waiting.FairQueue`.

    **Late answers.** A forward pass that is running cannot be cancelled, so a deadline bounds the *waiting*: past it
    the call is left to itself. Until it returns, a question that would not wait longer than it has already taken is
    refused at once; a more patient one waits in line, so that one tenant's short deadline refuses nobody else.

    Args:
        backend: who answers: a backend, or any object with ``ask(images, questions)``.

    Attributes:
        users: how many have yet to close it.
    """

    def __init__(self, backend: Asked) -> None:
        self.backend = as_backend(backend)
        self.users = 1
        self._arrived = threading.Condition()
        self._line = FairQueue()
        self._calls: list[BackendCall] = []
        self._beside: Counter[Hashable] = Counter()
        self._company = False
        self._closed = False

    @property
    def info(self) -> BackendInfo:
        """Who answers."""
        return self.backend.info

    def ask(
        self,
        images: Sequence[Image],
        questions: Sequence[str],
        *,
        deadline_ms: int | None = None,
        spent_ms: float = 0.0,
        loosening: Collection[int] = (),
        final: bool = False,
        turn: Hashable = None,
    ) -> Answers:
        """Put every question about every image, and answer or raise within the deadline.

        Without images, or without questions, the backend is not called.

        Args:
            images: RGB pictures.
            questions: rendered from the policy.
            deadline_ms: how long the answer may take; None to wait for it.
            spent_ms: of the deadline, by what was asked before in the same query.
            loosening: which questions, by position, make a verdict milder by "yes".
            final: whether the images are finished.
            turn: who asks, such as a tenant; those who ask take turns.

        Returns:
            The checked answers.

        Raises:
            VlmTimeout: no answer within the deadline.
            VlmBusy: an earlier call that outlived such a deadline has not returned yet, or too many questions wait.
            VlmBadAnswer: the answer has another shape, or holds something that is not a probability.
            VlmError: anything else that the backend raised, itself chained; quoted where the message is this package's.
        """
        if not images or not questions:
            return Answers(((),) * len(images), 0.0)
        began = perf_counter()
        query = Query(tuple(images), tuple(questions), frozenset(loosening), final)
        left = None if deadline_ms is None else max(0.0, deadline_ms - spent_ms)
        if left == 0:
            raise _too_late(deadline_ms)
        place = Pending(query, turn, None if left is None else monotonic() + left / 1000)
        own = self._enter(place, left)
        if own is not None:
            try:
                own.make(self.backend)
            finally:
                self._return(own)
        elif not self._wait(place, left):
            raise _too_late(deadline_ms)
        return Answers(place.answer.result(), (perf_counter() - began) * 1000)

    def aside(self, call: Callable[[], T], *, turn: Hashable = None) -> Future[T]:
        """Make a call that asks, beside what the caller goes on to do.

        Calls of several generations run at the same time, so that what they ask can share calls of the backend. At most
        :data:`~dnp_guard.vlm.waiting.MOST_WAITING` of a turn do.

        Args:
            call: made on a thread of its own, in the caller's context variables.
            turn: who asks.

        Returns:
            What the call returns or raises; a :class:`~dnp_guard.errors.VlmError` where it is refused.
        """
        with self._arrived:
            refusal = _closed() if self._closed else crowded() if self._beside[turn] >= MOST_WAITING else None
            if refusal is None:
                self._beside[turn] += 1
        if refusal is not None:
            refused: Future[T] = Future()
            refused.set_exception(refusal)
            return refused

        def made() -> T:
            try:
                return beside(call)
            finally:
                with self._arrived:
                    self._beside[turn] -= 1

        return apart(made)

    def close(self) -> None:
        """Leave the desk; the last of its users closes it: it asks no more, and its threads end.

        What waits is still answered. The backend stays open: it belongs to whoever made it.
        """
        with _opening:
            self.users -= 1
            if self.users > 0:
                return
            if _desks.get(_key(self.backend)) is self:
                del _desks[_key(self.backend)]
        with self._arrived:
            self._closed = True
            late = any(call.late_ms for call in self._calls)
            threads = [] if late else [call.thread for call in self._calls if call.thread.name == NAME]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_S)

    @property
    def closed(self) -> bool:
        """Whether it asks no more."""
        return self._closed

    def _enter(self, place: Pending, left: float | None) -> BackendCall | None:
        """FairQueue a question; or the call that the caller makes itself, where nobody else is there."""
        with self._arrived:
            if self._closed:
                raise _closed()
            self._calls = [call for call in self._calls if call.thread.is_alive()]  # no thread survives a fork
            most = self.backend.at_once
            if left is not None and sum(call.outlives(left) for call in self._calls) >= most:
                raise VlmBusy(
                    "the vision-language model is still computing an answer that came too late",
                    hint="Raise queries.deadline_ms, or ask fewer questions.",
                )
            free = len(self._calls) < most
            if left is None and free and not self._line and not self._company:
                call = BackendCall(threading.current_thread(), [place], monotonic())
                self._calls.append(call)
                return call
            self._line.add(place)
            if free:
                self._staff()
            self._arrived.notify_all()
            return None

    def _wait(self, place: Pending, left: float | None) -> bool:
        """Wait for an answer; whether it came."""
        try:
            wait([place.answer], None if left is None else left / 1000)
        finally:
            with self._arrived:
                answered = place.answer.done()
                if not answered and not self._line.remove(place):  # the call that runs is left to itself
                    place.gone = True
                    for call in self._calls:
                        if place in call.places:
                            call.late_ms = max(call.late_ms, left or 0.0)
        return answered

    def _staff(self) -> None:
        """Give the line one thread more; the lock is held."""
        call = BackendCall(threading.current_thread())  # until it has one of its own
        call.thread = start(partial(self._serve, call))
        self._calls.append(call)

    def _serve(self, call: BackendCall) -> None:
        while self._next(call):
            call.make(self.backend)

    def _next(self, call: BackendCall) -> bool:
        """Take the next questions from the line; whether there were any."""
        with self._arrived:
            call.places, call.late_ms = (), 0.0  # images must not live until the next call
            if self._company and len(self._line) == 1:
                self._arrived.wait_for(lambda: len(self._line) > 1, WINDOW_S)
            call.places, call.since = self._line.take(share=self.backend.batches), monotonic()
            if not call.places:
                self._calls.remove(call)
                return False
            self._company = len(call.places) > 1
            return True

    def _return(self, own: BackendCall) -> None:
        """End a call that a caller made itself, and have served who came meanwhile."""
        with self._arrived:
            self._calls.remove(own)
            if self._line and len(self._calls) < self.backend.at_once:
                self._staff()


_opening = threading.RLock()  # a guard that is collected meanwhile, on this very thread, closes its desk
_desks: WeakValueDictionary[int, Desk] = WeakValueDictionary()
"""The desk of each backend, by the identity of the object: a desk that is held keeps its backend, and so its key."""


def desk_of(backend: Asked) -> Desk:
    """The one desk of a backend in this process; each who takes it closes it once.

    Raises:
        VlmUnavailable: the backend cannot be asked.
    """
    with _opening:
        desk = _desks.get(_key(backend))
        if desk is not None:
            desk.users += 1
            if not desk.closed:
                return desk
        desk = _desks[_key(backend)] = Desk(backend)
        return desk


def _key(backend: Asked) -> int:
    return id(backend.wrapped if type(backend) is Wrapped else backend)


def _too_late(deadline_ms: int | None) -> VlmTimeout:
    return VlmTimeout(
        f"the vision-language model did not answer within {deadline_ms} ms",
        hint="Raise queries.deadline_ms, ask fewer questions, or use a faster model.",
    )


def _closed() -> VlmError:
    return VlmError("the guard is closed and asks no more", hint="Make a new Guard, or ask before close().")
