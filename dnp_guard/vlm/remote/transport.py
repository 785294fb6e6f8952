"""JSON over HTTP to the endpoints of one backend: within a deadline, with little trust, and never twice by chance.

No redirect is followed, no proxy or certificate is taken from the environment, an answer is read up to a size, and the
key goes into one header and nowhere else. Requests run on an event loop in a thread of their own, because only there
can a whole exchange be called off at a moment, be it stuck in a name look-up, a header that drips or an endless body.
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
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2

from dnp_guard.errors import DnpGuardError, VlmBadAnswer, VlmCircuitOpen, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.secret import plain
from dnp_guard.vlm.deadline import remaining
from dnp_guard.vlm.remote.address import Address, address
from dnp_guard.vlm.remote.breaker import Breaker
from dnp_guard.vlm.remote.connections import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dnp_guard.vlm.remote.breaker import State

KEY = "DNP_GUARD_VLM_KEY"
"""The environment variable of the key, sent as ``Authorization: Bearer``."""
PLAIN_HTTP = "DNP_GUARD_VLM_PLAIN_HTTP"
"""The environment variable that, set to 1, lets images go to another machine unencrypted."""

MAX_BYTES = 1 << 20
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which another try may succeed."""
_BAD_REQUEST = 400
_LONGEST_SAID = 200
_TICK = 0.05
"""How early a clock may ring, in seconds."""


class Refused(VlmError):
    """The server understood the request and refuses it: nothing is wrong with its health.

    Attributes:
        status: of HTTP.
        said: why, in the server's words: printable ASCII, a line of it, and never the key. Not in the message, because
            a server may quote what it was asked.
    """

    def __init__(self, message: str, *, status: int, hint: str = "", said: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.said = status, said


class _Again(Exception):
    """A failure of the endpoint that another try may mend."""

    def __init__(self, error: VlmError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class Transport:
    """Posts JSON to the first healthy one of several base URLs.

    Args:
        urls: base URLs of equal servers, the preferred one first; ``/v1`` is added where there is no path.
        timeout_s: for one call of :meth:`post`, where the caller sets no deadline.
        concurrency: requests at once.
        max_bytes: of one answer.
        plain_http: allow ``http://`` to another machine; otherwise as :data:`PLAIN_HTTP` says.

    Attributes:
        addresses: the base URLs.
        local: whether all of them are on this machine.

    Raises:
        VlmUnavailable: an address that images may not be sent to, or a key that no header carries.
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
        found = [address(url) for url in urls]
        self._endpoints = [each if each.path else Address(each.scheme, each.host, each.port, "/v1") for each in found]
        if not self._endpoints:
            raise VlmUnavailable("no base URL is given", hint="Write KIND:MODEL@http://127.0.0.1:8000/v1.")
        plain = os.environ.get(PLAIN_HTTP) == "1" if plain_http is None else plain_http
        for each in self._endpoints:
            if each.scheme == "http" and not each.loopback and not plain:
                raise VlmUnavailable(
                    f"{each.url}: images would go to another machine unencrypted",
                    hint=f"Use https://, or set {PLAIN_HTTP}=1 where the network between is yours.",
                )
        _key()
        self.addresses = tuple(each.url for each in self._endpoints)
        self.local = all(each.loopback for each in self._endpoints)
        self._timeout = timeout_s
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._health = {url: Breaker() for url in self.addresses}
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._closed = False

    def post(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Post each body, several at once, and read each answer as JSON.

        Each is tried once more at most, and only while there is time. The first failure calls the others off.

        Args:
            path: below the base URL, beginning with a slash.
            bodies: of the requests.

        Returns:
            The answers, in the order of the bodies.

        Raises:
            VlmTimeout: not all answers came in time.
            VlmCircuitOpen: every endpoint has failed too often, and rests.
            VlmBadAnswer: an answer that is too large or is no JSON.
            VlmError: anything else that went wrong.
        """
        contents = [json.dumps(body, allow_nan=False).encode() for body in bodies]
        running = self._running()  # the first time, reading the certificates takes a moment
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
            raise VlmError("the backend was closed while it was asked", hint="Ask before close().") from None
        return answers

    def states(self) -> dict[str, State]:
        """Each base URL with the state of its breaker."""
        now = time.monotonic()
        with self._lock:
            return {url: breaker.state(now) for url, breaker in self._health.items()}

    def close(self) -> None:
        """Call off what is running, close the connections and end the thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _running(self) -> Loop:
        with self._lock:
            if self._closed:
                raise VlmError("the backend is closed and asks no more", hint="Make a new one.")
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
        """The first endpoint that may be called."""
        now = time.monotonic()
        with self._lock:
            for url, breaker in self._health.items():
                if breaker.admits(now):
                    self._health[url] = breaker.begun(now)
                    return url
        raise VlmCircuitOpen(
            f"{', '.join(self.addresses)}: failed too often, and is left alone for a while",
            hint="Look after the server; it is tried again by itself.",
        )

    def _other(self, url: str, failed: _Again, ends: float) -> str:
        """Where a request that failed is tried once more: elsewhere, or in the same place after the wanted pause."""
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
            # Called off when time is up, the endpoint was slow; before that, because another request failed.
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
            raise _Again(VlmError(f"{url}: {_spoken(status)}", hint="It may pass."), wait)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise VlmBadAnswer(f"{url}: a compressed answer, which nobody asked for", hint=_NOT_ONE)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise VlmBadAnswer(f"{url}: an answer of more than {self._max_bytes} bytes", hint=_NOT_ONE)
        if status >= _BAD_REQUEST:
            raise Refused(
                f"{url}: {_spoken(status)}",
                status=status,
                said=_said(bytes(body)),
                hint=f"Check the model's name and the key in {KEY}, and that the server takes images.",
            )
        if not response.is_success:
            raise VlmBadAnswer(f"{url}: HTTP {status}, which is not followed", hint=_NOT_ONE)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise VlmBadAnswer(f"{url}: the answer is no JSON", hint=_NOT_ONE) from error

    def _late(self, seconds: float) -> VlmTimeout:
        return VlmTimeout(
            f"{', '.join(self.addresses)}: no answer within {max(seconds, 0) * 1000:.0f} ms",
            hint="Raise queries.deadline_ms, ask fewer questions, or use a faster server.",
        )


_NOT_ONE = "This is not the answer of a model server; check the base URL."


def _key() -> str:
    """The key of the environment; empty where there is none."""
    key = os.environ.get(KEY)
    try:
        return plain(key, KEY) if key else ""
    except DnpGuardError as error:
        raise VlmUnavailable(error.message, hint=error.hint) from None


def described(error: Exception) -> str:
    """An error of a connection: in its own words where they are the system's, and else by its kind alone.

    Other errors may quote a header, ours or the server's.
    """
    system = isinstance(error, httpx2.ConnectError | httpx2.TimeoutException | OSError)
    return f"{type(error).__name__}: {error}".removesuffix(": ") if system else type(error).__name__


def _said(body: bytes) -> str:
    """The message of an error document, as OpenAI's and its like are; empty where there is none that can be shown."""
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
    """A status in the standard's words: a server's own may be anything."""
    with suppress(ValueError):
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    return f"HTTP {status}"


def _first(group: ExceptionGroup) -> Exception:
    """The most telling of several errors: one that says something, before one of a time that is up."""
    errors = [each for each in group.exceptions if not isinstance(each, TimeoutError)] or list(group.exceptions)
    return errors[0]


def _retry_after(value: str | None) -> float:
    """Seconds of a ``Retry-After`` header, which holds a number or a date; 0 where there is none to be read."""
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
