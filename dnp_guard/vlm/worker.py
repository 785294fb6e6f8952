"""One daemon thread that runs calls in turn, so that a caller may stop waiting for one."""

from __future__ import annotations

import contextvars
import threading
import weakref
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_Job = tuple["Future[Any]", "Callable[[], Any]"]

_JOIN_S = 1.0


class Worker:
    """Runs calls one at a time, in the order in which they came.

    ``ThreadPoolExecutor`` will not do: the interpreter joins its threads at exit, and a call that hangs would hang it.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # The thread holds the queue alone, so a worker that is dropped without close() ends its thread too.
        self._stop = weakref.finalize(self, self._jobs.put, None)

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls."""
        return not self._stop.alive

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call, to run in the caller's context variables; the thread starts with the first one."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._starting:
            # A thread does not survive a fork; the child starts its own.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=_run, args=(self._jobs,), name="dnp-guard-ask", daemon=True)
                self._thread.start()
        self._jobs.put((future, lambda: context.run(call)))
        return future

    def close(self, *, wait: bool = True) -> None:
        """Take no more calls and end the thread, once the running call, if any, returns.

        Args:
            wait: give the thread a moment to end.
        """
        self._stop()
        if wait and self._thread is not None:
            self._thread.join(_JOIN_S)


def _run(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, call = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 (the caller gets it; the thread must live on)
                future.set_exception(error)
        # Images and answers must not live until the next call.
        del job, future, call
