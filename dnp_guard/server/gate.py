"""Check every request to ``/v1`` before it is parsed: address, token, rate and size."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from dnp_guard.server import problems
from dnp_guard.server.in_flight import Flight
from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.datastructures import State
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_MOST_SIGNS = {b'"': 20_000, b"{": 20_000, b"[": 20_000, b",": 200_000}
"""Most of these characters in a body, so that few bytes cannot become many values. Pictures in base64 hold none."""

_BODIES = 16
"""How many bodies of the largest size may be held at once."""


class Gate:
    """ASGI middleware that admits or refuses a request, by its token, rate and size.

    It adds the grant (the permissions) of the token to the ASGI scope as ``dnp_guard.grant``.

    Args:
        app: the application behind it.
        state: state of the application, with its ``tokens``.
        body: most bytes of a request.
        rate: most requests per minute and token. They are counted here per worker, before parsing; the service counts
            them again for all workers together.

    Attributes:
        flight: counts the bytes of all request bodies in memory.
    """

    def __init__(self, app: ASGIApp, state: State, body: int, rate: int) -> None:
        self._app, self._state, self._body, self._rate = app, state, body, rate
        self._minute, self._counts = 0, Counter[str]()
        self.flight = Flight(_BODIES * body, "bytes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI requires."""
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
            with self.flight.request() as take:
                body = await self._body_of(receive, take)
                if body is not None:
                    await self._app(scope, _once(body, receive), timed)
        except Refusal as problem:
            await problems.response(problem)(scope, receive, send)

    async def _granted(self, headers: Headers) -> Any:
        tokens = self._state.tokens
        grant = tokens.grant(headers.get("authorization"))
        if grant is None or grant.role is not None:  # a person's token opens the console, but no session
            raise Refusal("token", "Send Authorization: Bearer with a token of the token file.")
        if tokens.open and (_name(headers.get("host", "")) not in _NAMES or "origin" in headers):
            # Otherwise a web page could talk to the user's own service, even by a name that resolves to this machine.
            raise Refusal(
                "address",
                "Without a token file, the service takes requests to localhost only, and none from web pages.",
            )
        self._count(grant.sha256)
        if int(headers.get("content-length") or 0) > self._body:
            raise Refusal("body", f"At most {self._body} bytes are allowed.")
        return grant

    def _count(self, token: str) -> None:
        now = int(time.time())
        if now // 60 != self._minute:
            self._minute, self._counts = now // 60, Counter()
        self._counts[token] += 1
        if self._counts[token] > self._rate:
            raise Refusal("rate", f"At most {self._rate} requests per minute are allowed.", wait=60 - now % 60)

    async def _body_of(self, receive: Receive, take: Callable[[int], None]) -> bytes | None:
        """Read the body within its limits; None if the client has disconnected."""
        chunks, read = [], 0
        signs = dict.fromkeys(_MOST_SIGNS, 0)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            read += len(chunk)
            if read > self._body:
                raise Refusal("body", f"At most {self._body} bytes are allowed.")
            take(len(chunk))
            for sign, most in _MOST_SIGNS.items():
                signs[sign] += chunk.count(sign)
                if signs[sign] > most:
                    raise Refusal("body", f"At most {most} {sign.decode()} are allowed.")
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)


def _once(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI receive function that first returns a body that was read already, and then calls ``receive``."""
    left = [body]

    async def received() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return received


def _name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host
