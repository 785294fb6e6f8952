"""Limit the cost of connections that have not shown a token yet: their header bytes, their time and their number."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.server import ServerState

HEAD_BYTES: Final = 64 << 10
"""Most consecutive bytes of a request outside its body: request line, headers or trailers."""

FIELDS: Final = 100
"""Most headers of a request, trailers included."""

HEAD_S: Final = 10.0
"""Seconds from a request's first byte, or from the connection, to the end of its headers."""

_SPARE: Final = 128
"""File descriptors for everything but connections."""

_OVER, _LATE = 431, 408


class Bounded(HttpToolsProtocol):
    """An HTTP connection with limits on its headers, its time and the number of connections.

    When there are too many connections, the one that has been sending its request for the longest is dropped, or else
    the one that has been idle for the longest. A new connection is always admitted, so that nobody can keep others out
    by holding connections.

    Args:
        most: most connections of this worker.
        request_s: seconds from the end of a request's headers to the end of its body.
        options: passed to uvicorn's own protocol.
    """

    def __init__(self, *, most: int, request_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._most, self._request_s = most, request_s
        self._bare = self._fields = 0
        self._complete, self._over = True, False
        self._timer: asyncio.TimerHandle | None = None
        self._sending, self._idle = _queues.setdefault(self.server_state, ({}, {}))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Admit the connection; drop another one if there are too many."""
        super().connection_made(transport)
        self._expect(HEAD_S)
        if len(self.connections) > self._most:
            oldest = next(iter(self._sending))
            (next(iter(self._idle), oldest) if oldest is self else oldest).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._settled()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes in pieces, so that an oversized request head is refused before it is all parsed."""
        if self._idle.pop(self, self) is None:
            self._expect(HEAD_S)
        for start in range(0, len(data), HEAD_BYTES):
            piece = data[start : start + HEAD_BYTES]
            self._bare += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._bare > HEAD_BYTES:
                self._over = True
                self.send_400_response("")
                return

    def on_message_begin(self) -> None:
        """Reset the counts of header bytes and header fields for a new request."""
        super().on_message_begin()
        self._bare = self._fields = 0
        self._complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, and stop the parser if the request has too many."""
        self._fields += 1
        if self._fields > FIELDS:
            self._over = True
            raise ValueError("too many headers")  # makes the parser stop
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the time limit for the body."""
        self._expect(self._request_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body, and restart the count of bytes outside the body."""
        self._bare = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the time limits: the request is complete."""
        self._complete, self._bare = True, 0
        super().on_message_complete()
        self._settled()
        if self.cycle.response_complete:  # a refusal was sent before the whole request had arrived
            self._rest()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Mark the connection as idle if its request has arrived completely and no other request waits."""
        super().on_response_complete()
        if self._complete and not self.pipeline:
            self._rest()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is malformed or exceeds the limits."""
        if self._over:
            self._refuse(_OVER, f"At most {HEAD_BYTES} bytes and {FIELDS} headers are allowed.")
        else:
            super().send_400_response(msg)

    def drop(self) -> None:
        """Close the connection, even if its request has not arrived completely."""
        self._settled()
        self._idle.pop(self, None)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: anyone could fill the log with it."""

    def _rest(self) -> None:
        if not self.transport.is_closing():
            self._idle[self] = None

    def _expect(self, seconds: float) -> None:
        self._settled()
        self._sending[self] = None
        self._timer = self.loop.call_later(seconds, self._late)

    def _settled(self) -> None:
        self._sending.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        begun = not self._complete and (self.cycle is None or not self.cycle.response_started)
        if begun and not self.transport.is_closing():
            self._refuse(_LATE, "The request took too long to arrive.")
        self.drop()

    def _refuse(self, status: int, detail: str) -> None:
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(detail) + detail.encode())
        self.transport.close()


_queues: WeakKeyDictionary[ServerState, tuple[dict[Bounded, None], dict[Bounded, None]]] = WeakKeyDictionary()
"""Per server, the connections that are sending a request and those that are idle, the longest first."""


def affordable(connections: int) -> int:
    """Raise this process's limit on file descriptors if needed; return how many of ``connections`` it then allows."""
    if sys.platform == "win32":
        return connections
    import resource  # noqa: PLC0415 (there is none on Windows)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - _SPARE))
