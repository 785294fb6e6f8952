"""Daemon threads for calls that a caller may stop waiting for."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

NAME = "dnp-guard-ask"
"""Name of every such thread."""


def start(run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread that runs a function and ends with it.

    ``ThreadPoolExecutor`` does not fit: the interpreter joins its threads at exit, so a call that hangs would hang it.
    Nor is a thread kept for the next call. A thread that has run torch on the CPU keeps a team of OpenMP threads as
    long as it lives. With a second team beside the host's there are more threads than cores, libgomp lets none of
    them spin, and every operation of the host takes longer: twice as long, for the embedded model.
    """
    thread = threading.Thread(target=run, name=NAME, daemon=True)
    thread.start()
    return thread


def apart(call: Callable[[], T]) -> Future[T]:
    """Run a function in a new daemon thread, with the caller's context variables; return a future of its result."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001 (whoever takes the result gets it)
            future.set_exception(error)

    start(run)
    return future
