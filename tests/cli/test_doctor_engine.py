"""``dnp-guard doctor --engine URL`` tells whether an engine is guarded."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dnp_guard.cli.check_engine import asked
from dnp_guard.hosts.engines.attestation import Attestation


@pytest.fixture
def engine():
    """Run an HTTP server in place of a serving engine; it gives the same answer to every request."""
    servers = []

    def serve(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def worker(serving, *, without="", **more):
    attestation = Attestation("vllm-omni", serving, os.getpid(), policy="glyphs", **more)
    return {name: getattr(attestation, name) for name in attestation.__dataclass_fields__ if name != without}


def test_an_engine_whose_workers_are_guarded_is_as_it_should_be(engine):
    check = asked(engine(200, {"guarded": True, "workers": [worker("guarded")]}))
    assert check.status == "ok"
    assert "glyphs" in check.found


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, {"detail": "Not Found"}, "engine-unattested"),
        (200, "an engine of its own", "engine-unattested"),
        (503, {"guarded": False, "workers": []}, "engine-unattested"),
        (503, {"guarded": False, "workers": [worker("refusing", reason="no policy")]}, "engine-unguarded"),
        (200, {"guarded": True, "workers": [worker("guarded"), worker("unguarded")]}, "engine-unguarded"),
        (200, {"guarded": True, "workers": [worker("guarded", version=2, without="digest")]}, "engine-newer"),
        (200, {"guarded": True, "workers": [worker("guarded", version="2")]}, "engine-unattested"),
    ],
)
def test_an_engine_that_does_not_show_that_it_is_guarded_fails(engine, status, body, code):
    check = asked(engine(status, body))
    assert [problem.code for problem in check.problems] == [code]


def test_an_engine_that_does_not_answer_fails():
    assert [problem.code for problem in asked("http://127.0.0.1:9").problems] == ["engine-unreachable"]
