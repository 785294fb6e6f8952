"""An event loop in its own thread, with the HTTP connections that belong to it."""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_JOIN_S = 1.0


class Loop:
    """Runs coroutines in a thread of its own, for callers in other threads.

    Args:
        concurrency: number of concurrent requests, and of connections kept for reuse.

    Attributes:
        slots: semaphore with one slot per concurrent request.
        client: HTTP client. It follows no redirects, and takes neither proxies nor certificates from the environment.
    """

    def __init__(self, concurrency: int) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self.client = httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=None, limits=limits)
        self._loop = asyncio.new_event_loop()
        # The thread refers only to the loop and the client, so a Loop that is dropped without close() ends it too.
        self._thread = threading.Thread(
            target=_serve, args=(self._loop, self.client), name="dnp-guard-http", daemon=True
        )
        self._stop = weakref.finalize(self, _stop, self._loop)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the loop's thread is running."""
        return self._thread.is_alive()

    def run(self, work: Callable[[Loop], Coroutine[Any, Any, Any]], seconds: float) -> Any:
        """Run a coroutine and wait for its result.

        Args:
            work: makes the coroutine, which has to end by itself within the time limit.
            seconds: the time limit.

        Raises:
            TimeoutError: the coroutine did not end, because the loop is being closed.
        """
        running = asyncio.run_coroutine_threadsafe(work(self), self._loop)
        try:
            return running.result(seconds + _JOIN_S)
        finally:
            running.cancel()

    def close(self) -> None:
        """Cancel running coroutines, close the connections and end the thread."""
        self._stop()
        self._thread.join(_JOIN_S)


def _serve(loop: asyncio.AbstractEventLoop, client: httpx2.AsyncClient) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(client.aclose())
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # the loop has already ended
        loop.call_soon_threadsafe(loop.stop)
