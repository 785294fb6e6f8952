"""One daemon thread that runs calls in turn, so that a caller may stop waiting for one."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_Job = tuple["Future[Any]", "Callable[[], Any]"]

_JOIN_S = 1.0


class Worker:
    """Runs calls one at a time, in the order in which they came.

    ``ThreadPoolExecutor`` will not do: the interpreter joins its threads at exit, and a call that hangs would hang it.
    The thread ends with the last call that is waiting, and the next call starts another. A thread that has run torch on
    the processor keeps a team of OpenMP threads for as long as it lives; with a second team beside the host's there are
    more threads than cores, libgomp lets none of them spin, and every operation of the host takes longer: twice, for
    the embedded model.
    """

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.closed = False
        """Whether it takes no more calls."""

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call, to run in the caller's context variables."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._lock:
            self._jobs.append((future, lambda: context.run(call)))
            # A thread does not survive a fork; the child starts its own.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="dnp-guard-ask", daemon=True)
                self._thread.start()
        return future

    def close(self, *, wait: bool = True) -> None:
        """Take no more calls; the thread ends with the last one that was taken.

        Args:
            wait: give the thread a moment to end.
        """
        self.closed = True
        thread = self._thread
        if wait and thread is not None:
            thread.join(_JOIN_S)

    def _next(self) -> _Job | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._thread = None
            return None

    def _run(self) -> None:
        while (job := self._next()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 (the caller gets it; the thread must live on)
                    future.set_exception(error)
            # Images and answers must not live until the next call.
            del job, future, call
