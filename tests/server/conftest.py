"""Provide a guard service in this process, requests to it, and pictures to send."""

from __future__ import annotations

import base64
import io
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from dnp_guard.hosts.remote import Service
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.waiting import wait_until

HERE = "http://localhost"
SERVED = Path(__file__).parent / "served.yaml"
"""Path of the policy that the tests use; they rely on its due steps, and on how long it holds negatives."""

HOST = {"name": "tests", "version": "1"}


def data_url(colour="red", size=(16, 16), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def images(count=1, **kwargs):
    return [{"index": index, "data": data_url(**kwargs)} for index in range(count)]


class Script:
    """A callable that starts a service with scripted answers in this process, and returns a client of it."""

    def __init__(self, folder, stack):
        self.folder, self._stack = folder, stack

    def __call__(self, looks, *, policy=SERVED, clock=time.time, **settings):
        import json

        file = self.folder / "looks.json"
        file.write_text(json.dumps(looks))
        audit = self.folder / "audit.jsonl"
        made = Settings(policy=str(policy), vlm=f"scripted:{file}", audit=(str(audit),), **settings)
        return self._stack.enter_context(TestClient(create(made, clock=clock), base_url=HERE))

    def stop(self):
        self._stack.close()

    @property
    def records(self):
        import json

        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    def recorded(self, event):
        return [record for record in self.records if record["event"] == event]


@pytest.fixture
def serve(tmp_path):
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield Script(tmp_path, stack)


def begin(client, **asked):
    return client.post("/v1/sessions", json={"protocol": 1, "host": HOST, "images": 1, "steps": 25, **asked})


def ask(client, session, step, count=1, **asked):
    body = {"step": step, "progress": step / 25, "images": images(count), **asked}
    return client.post(f"/v1/sessions/{session}/queries", json=body)


def finish(client, session, count=1):
    return client.post(f"/v1/sessions/{session}/final", json={"images": images(count)})


@pytest.fixture
def served(tmp_path):
    """Return a function that serves scripted answers over HTTP on loopback, and returns the service's base URL."""
    running = []

    def serve(script, *, policy=SERVED, **settings):
        looks = tmp_path / "looks.yaml"
        looks.write_text(script)
        app = create(Settings(policy=str(policy), vlm=f"scripted:{looks}", **settings))
        config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)
        socket = config.bind_socket()
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        running.append((server, thread, socket))
        return f"http://127.0.0.1:{socket.getsockname()[1]}"

    yield serve
    for server, thread, socket in running:
        server.should_exit = True
        thread.join()
        socket.close()


@pytest.fixture
def service(served):
    """Return a function that starts a service with scripted answers, and returns a connected ``Service`` client."""
    opened = []

    def connect(script="{a star: 0.0}", token=None, **settings):
        opened.append(Service(served(script, **settings), token))
        wait_until(opened[-1].ready)
        return opened[-1]

    yield connect
    for client in opened:
        client.close()
