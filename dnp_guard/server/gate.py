"""What stands before every request to ``/v1``: address, token, rate and size, before anything of it is parsed."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from dnp_guard.server import problems
from dnp_guard.server.flight import Flight
from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.datastructures import State
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_MOST_SIGNS = {b'"': 20_000, b"{": 20_000, b"[": 20_000, b",": 200_000}
"""What a body may hold of each, so that no few bytes are parsed into many values. Of pictures, base64 holds none."""

_BODIES = 16
"""How many bodies of the largest size are held at once."""


class Gate:
    """Lets a request through with the grant of its token as ``dnp_guard.grant``.

    Args:
        app: what it stands before.
        state: of the application, with its ``tokens``.
        body: bytes that a request may have.
        rate: requests a minute, a token. They are counted here, in this worker, before anything is parsed; and once
            more, for all workers, by who answers them.
    """

    def __init__(self, app: ASGIApp, state: State, body: int, rate: int) -> None:
        self._app, self._state, self._body, self._rate = app, state, body, rate
        self._minute, self._counts = 0, Counter[str]()
        self._flight = Flight(_BODIES * body, "bytes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = (time.perf_counter() - began) * 1000
                waited = scope.get("dnp_guard.waited_ms", 0.0)
                value = f"vlm;dur={waited:.2f}, total;dur={took:.2f}"
                message["headers"] = [*message["headers"], (b"server-timing", value.encode())]
            await send(message)

        try:
            scope["dnp_guard.grant"] = await self._granted(Headers(scope=scope))
            with self._flight.request() as take:
                body = await self._body_of(receive, take)
                if body is not None:
                    await self._app(scope, _once(body, receive), timed)
        except Refusal as problem:
            await problems.response(problem)(scope, receive, send)

    async def _granted(self, headers: Headers) -> Any:
        tokens = self._state.tokens
        grant = tokens.grant(headers.get("authorization"))
        if grant is None or grant.role is not None:  # a person's token opens the console, and no session
            raise Refusal("token", "Send Authorization: Bearer with a token of the token file.")
        if tokens.open and (_name(headers.get("host", "")) not in _NAMES or "origin" in headers):
            # A web page would otherwise speak with the user's own service, be it under a name made to point here.
            raise Refusal("address", "Without a token file, the service is asked as localhost, and by no web page.")
        self._count(grant.sha256)
        if int(headers.get("content-length") or 0) > self._body:
            raise Refusal("body", f"{self._body} bytes are taken.")
        return grant

    def _count(self, token: str) -> None:
        now = int(time.time())
        if now // 60 != self._minute:
            self._minute, self._counts = now // 60, Counter()
        self._counts[token] += 1
        if self._counts[token] > self._rate:
            raise Refusal("rate", f"{self._rate} requests a minute are taken.", wait=60 - now % 60)

    async def _body_of(self, receive: Receive, take: Callable[[int], None]) -> bytes | None:
        """The body, whole and within its bounds; None where the client has gone."""
        chunks, read = [], 0
        signs = dict.fromkeys(_MOST_SIGNS, 0)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            read += len(chunk)
            if read > self._body:
                raise Refusal("body", f"{self._body} bytes are taken.")
            take(len(chunk))
            for sign, most in _MOST_SIGNS.items():
                signs[sign] += chunk.count(sign)
                if signs[sign] > most:
                    raise Refusal("body", f"{most} {sign.decode()} are taken.")
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)


def _once(body: bytes, receive: Receive) -> Receive:
    """What the application receives of a request whose body has come."""
    left = [body]

    async def received() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return received


def _name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host
