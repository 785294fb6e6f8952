"""Run an HTTP server that gives the same answer to every request, in place of the guard service or of a proxy."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HIDDEN = [
    *[(status, b"<p>Log in</p>") for status in (200, 302, 400, 401, 403, 405, 429, 500)],
    (401, b'{"type": "about:blank", "title": "Log in"}'),
    (404, b"{}"),
]
"""Statuses and bodies by which a proxy answers in place of the service, whose features stay unknown."""

UNANSWERED = [(status, b"<p>no backend is up</p>") for status in (502, 503, 504)] + [
    (401, b'{"type": "urn:dnp-guard:problem:token", "title": "No valid token"}'),
    (429, b'{"type": "urn:dnp-guard:problem:rate", "title": "Too many requests"}'),
]
"""Statuses and bodies that mean that the service itself did not list its features: it was down, or it refused."""


class Answers:
    """An HTTP server on loopback that answers every request with the same status and body.

    Attributes:
        asked: path, headers and JSON body of every request, in order of arrival.
        url: address of the server.
    """

    def __init__(self, status, body) -> None:
        self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 (two selves)
                sent = handler.rfile.read(int(handler.headers["Content-Length"] or 0)) or b"{}"
                self.asked.append((handler.path, dict(handler.headers), json.loads(sent)))
                handler.send_response(status)
                if status in {301, 302, 307}:
                    handler.send_header("Location", "http://127.0.0.1:9/")
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            do_GET = do_POST  # noqa: N815 (the server's)

            def log_message(handler, *_) -> None: ...  # noqa: N805

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
