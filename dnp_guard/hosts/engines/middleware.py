"""An ASGI middleware for an engine's HTTP server: it refuses unguarded requests, and reports the policies in force."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.engines import attestation
from dnp_guard.hosts.engines.settings import opened, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Attested:
    """Answers ``/dnp-guard``, adds the header ``dnp-guard``, and refuses requests while a worker is not guarded.

    A request that can start a generation (any method but GET, HEAD and OPTIONS; any WebSocket) gets status 503 unless
    every worker reports that it is guarded. With the setting ``on_failure: open``, the request is served nevertheless,
    and the header tells whether the workers are guarded.

    Args:
        app: the engine's application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._folder = state_of(os.environ)
        self._open = opened(os.environ)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, refuse it, or pass it on to the engine's application."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        workers = attestation.reports(self._folder)
        ready = attestation.guarded(workers)
        asks = scope["type"] == "websocket" or scope["method"] not in {"GET", "HEAD", "OPTIONS"}
        if scope["type"] == "http" and scope["path"] == attestation.PATH:
            shown = {"guarded": ready, "workers": [asdict(worker) for worker in workers]}
            await _answer(send, 200 if ready else 503, shown, "application/json")
        elif asks and not ready and not self._open:
            await self._refuse(scope, receive, send, workers)
        else:
            await self._app(scope, receive, _saying(send, attestation.header(workers)))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, workers: list[attestation.Attestation]) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1013, "reason": "not guarded"})
            return
        reasons = sorted({worker.reason for worker in workers if worker.reason})
        detail = "; ".join(reasons) or "no worker says that it is guarded"
        problem = {"type": "about:blank", "title": "not guarded", "status": 503, "detail": detail}
        await _answer(_saying(send, attestation.header(workers)), 503, problem, "application/problem+json")


def _saying(send: Send, value: str) -> Send:
    async def saying(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = (attestation.HEADER.encode(), value.encode("latin-1", "replace"))
            message = {**message, "headers": [*message.get("headers", ()), own]}
        await send(message)

    return saying


async def _answer(send: Send, status: int, body: dict[str, Any], kind: str) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
