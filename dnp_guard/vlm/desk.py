"""The desk in front of a backend: it shares calls, bounds waits, and serves callers in fair turns."""

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
from dnp_guard.vlm.backend_call import BackendCall
from dnp_guard.vlm.base import Query, Wrapped, as_backend
from dnp_guard.vlm.cuda_stream import beside
from dnp_guard.vlm.waiting import MOST_WAITING, FairQueue, Pending, crowded
from dnp_guard.vlm.worker import NAME, apart, start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    from PIL.Image import Image

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Asked, BackendInfo

T = TypeVar("T")

WINDOW_S = 0.004
"""How long a call waits for others to join it, after a call that was shared."""
_JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a backend.

    Attributes:
        probabilities: probability of "yes", shape [images, questions].
        latency_ms: how long the caller waited.
    """

    probabilities: Probabilities
    latency_ms: float


class Desk:
    """Passes queries to one backend, for all guards and tenants that use it.

    **Threads.** A backend gets as many concurrent calls as its ``at_once`` allows, one by default. A query without a
    deadline runs in the caller's own thread if the backend takes another call and no query waits; any other waits in
    line for a thread of the desk, which ends when the line is empty. After a shared call, every query waits in line.

    **Sharing.** When the backend sets ``batches = True``, callers that ask the same questions at the same time share a
    call. Queries that arrive while a call runs are answered by the next one. A generation alone never waits: only
    after a shared call does the next one wait for others to join, :data:`WINDOW_S` at most. When a shared call fails,
    the query of every caller that still waits is sent once more by itself, so that one caller's picture cannot fail
    another's query.

    **Fair turns.** The queue serves the askers (``turn``) in rotation, and at most
    :data:`~dnp_guard.vlm.waiting.MOST_WAITING` queries per asker may wait; see
    :class:`~dnp_guard.vlm.waiting.FairQueue`.

    **Late answers.** A running forward pass cannot be cancelled, so a deadline bounds the *waiting*: after it the call
    runs on unattended. Until it returns, a query whose deadline is no longer than the time already taken is refused at
    once. A query with a longer deadline waits in line, so that one tenant's short deadline has no effect on others.

    Args:
        backend: a backend, or any object with ``ask(images, questions)``.

    Attributes:
        users: number of users that have not closed the desk yet.
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
        """Identity of the backend."""
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
        """Ask every question about every image; return the answers, or raise an error, within the deadline.

        Without images or without questions, the backend is not called.

        Args:
            images: RGB pictures.
            questions: rendered from the policy.
            deadline_ms: how long the answer may take; None to wait without a limit.
            spent_ms: how much of the deadline the same query has already used.
            loosening: positions of the questions whose "yes" makes a verdict milder.
            final: whether the images are finished.
            turn: who asks, such as a tenant; askers take turns.

        Returns:
            The checked answers.

        Raises:
            VlmTimeout: no answer arrived within the deadline.
            VlmBusy: too many queries wait, or a late call has already taken as long as this query would wait.
            VlmBadAnswer: the answer has another shape, or holds a value that is not a probability.
            VlmError: the backend raised another error, which is chained; only this package's own messages are quoted.
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
        """Run a function in a thread of its own, to query the backend while the caller continues.

        Functions of several generations run at the same time, so that their queries can share calls of the backend.
        At most :data:`~dnp_guard.vlm.waiting.MOST_WAITING` functions per asker run at once.

        Args:
            call: the function, which sees the caller's context variables.
            turn: who asks, such as a tenant.

        Returns:
            A future of the function's result or error. If the desk refuses to run it, the error is a
            :class:`~dnp_guard.errors.VlmError`.
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
        """Stop using the desk. Once its last user has done so, the desk takes no more queries, and its threads end.

        Waiting queries are still answered. The backend stays open: its maker has to close it.
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
        """Whether the desk takes no more queries."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Number of queries in line."""
        return len(self._line)

    def _enter(self, place: Pending, left: float | None) -> BackendCall | None:
        """Put a query in line and return None, or return the call that the caller makes itself."""
        with self._arrived:
            if self._closed:
                raise _closed()
            self._calls = [call for call in self._calls if call.thread.is_alive()]  # no thread survives a fork
            most = self.backend.at_once
            if left is not None and sum(call.outlives(left) for call in self._calls) >= most:
                raise VlmBusy(
                    "the vision-language model is still computing an answer that missed its deadline",
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
        """Wait for an answer; return whether it came."""
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
        """Start one more thread to serve the line; the caller must hold the lock."""
        call = BackendCall(threading.current_thread())  # replaced by the new thread on the next line
        call.thread = start(partial(self._serve, call))
        self._calls.append(call)

    def _serve(self, call: BackendCall) -> None:
        while self._next(call):
            call.make(self.backend)

    def _next(self, call: BackendCall) -> bool:
        """Move the next queries from the line to a call; return whether there were any."""
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
        """End a call that a caller made itself, and start a thread for callers that arrived meanwhile."""
        with self._arrived:
            self._calls.remove(own)
            if self._line and len(self._calls) < self.backend.at_once:
                self._staff()


_opening = threading.RLock()  # garbage collection on this thread may close another guard's desk
_desks: WeakValueDictionary[int, Desk] = WeakValueDictionary()
"""The desk of each backend, by the object's identity: a live desk keeps its backend alive, and so its key valid."""


def desk_of(backend: Asked) -> Desk:
    """Return the desk of a backend, which all its users in this process share; every user has to close it once.

    Raises:
        VlmUnavailable: the backend has no ``ask`` method.
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
    return VlmError("the guard is closed", hint="Make a new Guard, or query before close().")
