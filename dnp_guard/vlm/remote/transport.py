"""JSON over HTTP to a backend's endpoints: within a deadline, with little trust, and with at most one retry.

No redirect is followed, no proxy or certificate is taken from the environment, an answer is read up to a size limit,
and the key goes into one header and nowhere else. Requests run on an event loop in a thread of their own, because only
there can a whole exchange be cancelled at any moment, even in a name look-up, a slow header or an endless body.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2

from dnp_guard.errors import DnpGuardError, VlmBadAnswer, VlmCircuitOpen, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.secret import plain
from dnp_guard.vlm.deadline import remaining
from dnp_guard.vlm.remote.address import address
from dnp_guard.vlm.remote.breaker import Breaker
from dnp_guard.vlm.remote.connections import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dnp_guard.vlm.remote.breaker import State

KEY = "DNP_GUARD_VLM_KEY"
"""Name of the environment variable that holds the key, which is sent as ``Authorization: Bearer``."""
PLAIN_HTTP = "DNP_GUARD_VLM_PLAIN_HTTP"
"""Name of the environment variable that, set to 1, lets images go to another machine unencrypted."""

MAX_BYTES = 1 << 20
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which a retry may succeed."""
_BAD_REQUEST = 400
_LONGEST_SAID = 200
_TICK = 0.05
"""How early a timer may fire, in seconds."""


class Refused(VlmError):
    """The server understood the request and refuses it; its health is fine.

    Attributes:
        status: HTTP status.
        words: the server's own words: one line of printable ASCII, which never contains the API key. It is not part of
            the error's message, because a server may quote the request.
    """

    def __init__(self, message: str, *, status: int, hint: str = "", words: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.words = status, words


class _Again(Exception):
    """A failure of the endpoint that a retry may overcome."""

    def __init__(self, error: VlmError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class Transport:
    """Posts JSON to the first healthy one of several base URLs.

    Args:
        urls: base URLs of servers of one model, the preferred one first; ``/v1`` is added to a URL without a path.
        timeout_s: time limit per call of :meth:`post`, when the caller sets no deadline.
        concurrency: number of concurrent requests.
        max_bytes: largest answer.
        plain_http: allow ``http://`` to another machine; by default :data:`PLAIN_HTTP` decides.

    Attributes:
        addresses: the base URLs.
        local: whether all of them are on this machine.

    Raises:
        VlmUnavailable: images may not be sent to an address, or the API key does not fit into a header.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float = 30.0,
        concurrency: int = 8,
        max_bytes: int = MAX_BYTES,
        plain_http: bool | None = None,
    ) -> None:
        self._endpoints = [base if base.path else replace(base, path="/v1") for base in map(address, urls)]
        if not self._endpoints:
            raise VlmUnavailable("no base URL is given", hint="Write KIND:MODEL@http://127.0.0.1:8000/v1.")
        plain = os.environ.get(PLAIN_HTTP) == "1" if plain_http is None else plain_http
        for endpoint in self._endpoints:
            if endpoint.scheme == "http" and not endpoint.loopback and not plain:
                raise VlmUnavailable(
                    f"{endpoint.url}: images would go to another machine unencrypted",
                    hint=f"Use https://, or set {PLAIN_HTTP}=1 if the network in between is private.",
                )
        _key()
        self.addresses = tuple(endpoint.url for endpoint in self._endpoints)
        self.local = all(endpoint.loopback for endpoint in self._endpoints)
        self._timeout = timeout_s
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._health = {url: Breaker() for url in self.addresses}
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._closed = False

    def post(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Post every body, several at once, and read the answers as JSON.

        A request is retried at most once, and only while there is time. The first failure cancels the others.

        Args:
            path: path below the base URL, beginning with a slash.
            bodies: bodies of the requests.

        Returns:
            The answers, in the order of the bodies.

        Raises:
            VlmTimeout: not all answers arrived in time.
            VlmCircuitOpen: every endpoint has failed too often, and is paused.
            VlmBadAnswer: an answer is too large or is not JSON.
            VlmError: anything else went wrong.
        """
        contents = [json.dumps(body, allow_nan=False).encode() for body in bodies]
        running = self._running()  # reading the certificates takes a moment the first time
        seconds = remaining(self._timeout)
        if seconds <= 0:
            raise self._late(seconds)
        try:
            answers: list[Any] = running.run(lambda loop: self._all(loop, path, contents, seconds), seconds)
        except ExceptionGroup as group:
            error = _first(group)
            raise self._late(seconds) if isinstance(error, TimeoutError) else error from None
        except TimeoutError:
            raise self._late(seconds) from None
        except CancelledError:
            raise VlmError("the backend was closed during a query", hint="Query before close().") from None
        return answers

    def states(self) -> dict[str, State]:
        """Return the state of each base URL's circuit breaker."""
        now = time.monotonic()
        with self._lock:
            return {url: breaker.state(now) for url, breaker in self._health.items()}

    def close(self) -> None:
        """Cancel running requests, close the connections and end the thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _running(self) -> Loop:
        with self._lock:
            if self._closed:
                raise VlmError("the backend is closed", hint="Make a new one.")
            # A thread does not survive a fork; the child starts its own.
            if self._loop is None or not self._loop.alive:
                self._loop = Loop(self._concurrency)
            return self._loop

    async def _all(self, loop: Loop, path: str, contents: Sequence[bytes], seconds: float) -> list[Any]:
        ends = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(loop, path, content, ends)) for content in contents]
        return [task.result() for task in tasks]

    async def _one(self, loop: Loop, path: str, content: bytes, ends: float) -> Any:
        async with asyncio.timeout(ends - time.monotonic()), loop.slots:
            url = self._pick()
            try:
                return await self._try(loop, url, path, content, ends)
            except _Again as again:
                first = again
            other = self._other(url, first, ends)
            if other == url:
                await asyncio.sleep(first.wait)
            try:
                return await self._try(loop, other, path, content, ends)
            except _Again as second:
                raise second.error from None

    def _pick(self) -> str:
        """Return the first endpoint that admits a call."""
        now = time.monotonic()
        with self._lock:
            for url, breaker in self._health.items():
                if breaker.admits(now):
                    self._health[url] = breaker.begun(now)
                    return url
        raise VlmCircuitOpen(
            f"{', '.join(self.addresses)}: failed too often, and is paused",
            hint="Check the server; it is retried automatically.",
        )

    def _other(self, url: str, failed: _Again, ends: float) -> str:
        """Return where to retry a failed request: another endpoint, or the same one after its requested pause."""
        now = time.monotonic()
        with self._lock:
            for other, breaker in self._health.items():
                if other != url and breaker.admits(now):
                    self._health[other] = breaker.begun(now)
                    return other
            if now + failed.wait < ends and (failed.wait or self._health[url].admits(now)):
                return url
        raise failed.error

    async def _try(self, loop: Loop, url: str, path: str, content: bytes, ends: float) -> Any:
        began = time.monotonic()
        try:
            answer = await self._exchange(loop, url, path, content)
        except Refused:
            self._note(url, Breaker.succeeded)
            raise
        except (_Again, VlmError) as error:
            wait = error.wait if isinstance(error, _Again) else 0.0
            self._note(url, lambda breaker: breaker.failed(time.monotonic(), began=began, wait=wait))
            raise
        except asyncio.CancelledError:
            # A call cancelled at its deadline blames the endpoint; one cancelled earlier only because another failed.
            now = time.monotonic()
            self._note(url, lambda b: b.failed(now, began=began) if now >= ends - _TICK else b.released())
            raise
        self._note(url, Breaker.succeeded)
        return answer

    def _note(self, url: str, change: Callable[[Breaker], Breaker]) -> None:
        with self._lock:
            self._health[url] = change(self._health[url])

    async def _exchange(self, loop: Loop, url: str, path: str, content: bytes) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if key := _key():
            headers["Authorization"] = f"Bearer {key}"
        try:
            async with loop.client.stream("POST", url + path, content=content, headers=headers) as response:
                return await self._read(url, response)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _Again(VlmError(f"{url}: {described(error)}", hint="Is the server running, and reachable?")) from None

    async def _read(self, url: str, response: httpx2.Response) -> Any:
        status = response.status_code
        if status in _BUSY:
            wait = _retry_after(response.headers.get("Retry-After"))
            raise _Again(VlmError(f"{url}: {_spoken(status)}", hint="Try again later."), wait)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise VlmBadAnswer(f"{url}: the answer is compressed, which was not requested", hint=_NOT_ONE)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise VlmBadAnswer(f"{url}: an answer of more than {self._max_bytes} bytes", hint=_NOT_ONE)
        if status >= _BAD_REQUEST:
            raise Refused(
                f"{url}: {_spoken(status)}",
                status=status,
                words=_words(bytes(body)),
                hint=f"Check the model's name and the key in {KEY}, and that the server takes images.",
            )
        if not response.is_success:
            raise VlmBadAnswer(f"{url}: HTTP {status}, which is not followed", hint=_NOT_ONE)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise VlmBadAnswer(f"{url}: the answer is not JSON", hint=_NOT_ONE) from error

    def _late(self, seconds: float) -> VlmTimeout:
        return VlmTimeout(
            f"{', '.join(self.addresses)}: no answer within {max(seconds, 0) * 1000:.0f} ms",
            hint="Raise queries.deadline_ms, ask fewer questions, or use a faster server.",
        )


_NOT_ONE = "This is not the answer of a model server; check the base URL."


def _key() -> str:
    """Return the API key from the environment variable :data:`KEY`; empty if it is not set."""
    key = os.environ.get(KEY)
    try:
        return plain(key, KEY) if key else ""
    except DnpGuardError as error:
        raise VlmUnavailable(error.message, hint=error.hint) from None


def described(error: Exception) -> str:
    """Describe a connection error: by its class and message if it comes from the operating system, else by its class.

    The messages of other errors may quote a header of the request or of the response.
    """
    system = isinstance(error, httpx2.ConnectError | httpx2.TimeoutException | OSError)
    return f"{type(error).__name__}: {error}".removesuffix(": ") if system else type(error).__name__


def _words(body: bytes) -> str:
    """Return the message in an error response like OpenAI's; empty if it has none, or if the message holds the key."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for key in ("error", "message"):
        document = document.get(key, document) if isinstance(document, dict) else document
    key = os.environ.get(KEY, "").strip()
    if not isinstance(document, str) or (key and key in document):
        return ""
    return "".join(sign for sign in document[:_LONGEST_SAID] if sign.isascii() and sign.isprintable())


def _spoken(status: int) -> str:
    """Describe an HTTP status by its standard phrase, because the server's own phrase may contain anything."""
    with suppress(ValueError):
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    return f"HTTP {status}"


def _first(group: ExceptionGroup) -> Exception:
    """Return the most informative of several errors: a timeout only if there is no other."""
    errors = [error for error in group.exceptions if not isinstance(error, TimeoutError)] or list(group.exceptions)
    return errors[0]


def _retry_after(value: str | None) -> float:
    """Return the seconds in a ``Retry-After`` header, given as a number or a date; 0 if missing or unreadable."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0
