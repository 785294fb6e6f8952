"""A service in this process, and pictures to send it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings

HERE = "http://localhost"
SERVED = Path(__file__).parent / "served.yaml"
"""A policy whose steps and holds the tests rely on."""

HOST = {"name": "tests", "version": "1"}


def data_url(colour="red", size=(16, 16), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def images(count=1, **kwargs):
    return [{"index": index, "data": data_url(**kwargs)} for index in range(count)]


class Script:
    """Writes a script for the backend and serves it."""

    def __init__(self, folder, stack):
        self.folder, self._stack = folder, stack

    def __call__(self, looks, *, policy=SERVED, **settings):
        import json

        file = self.folder / "looks.json"
        file.write_text(json.dumps(looks))
        audit = self.folder / "audit.jsonl"
        made = Settings(policy=str(policy), vlm=f"scripted:{file}", audit=(str(audit),), **settings)
        return self._stack.enter_context(TestClient(create(made), base_url=HERE))

    def stop(self):
        self._stack.close()

    @property
    def records(self):
        import json

        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


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
