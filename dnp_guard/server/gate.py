"""What stands before every request to ``/v1``: address, token and size, before anything of it is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from dnp_guard.server import problems
from dnp_guard.server.problems import Problem

if TYPE_CHECKING:
    from starlette.datastructures import State
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})


class Gate:
    """Lets a request through with the grant of its token as ``dnp_guard.grant``.

    Args:
        app: what it stands before.
        state: of the application, with its ``tokens``.
        body: bytes that a request may have.
    """

    def __init__(self, app: ASGIApp, state: State, body: int) -> None:
        self._app, self._state, self._body = app, state, body

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
            await self._app(scope, self._limited(receive), timed)
        except Problem as problem:
            await problems.response(problem)(scope, receive, send)

    async def _granted(self, headers: Headers) -> Any:
        tokens = self._state.tokens
        grant = tokens.grant(headers.get("authorization"))
        if grant is None:
            raise Problem("token", "Send Authorization: Bearer with a token of the token file.")
        if tokens.open and (_name(headers.get("host", "")) not in _NAMES or "origin" in headers):
            # A web page would otherwise speak with the user's own service, be it under a name made to point here.
            raise Problem("address", "Without a token file, the service is asked as localhost, and by no web page.")
        if int(headers.get("content-length") or 0) > self._body:
            raise Problem("body", f"{self._body} bytes are taken.")
        return grant

    def _limited(self, receive: Receive) -> Receive:
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._body:
                raise HTTPException(413, f"{self._body} bytes are taken.")
            return message

        return limited


def _name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host
