"""Provide a web console over a log with several kinds of records, and clients that are signed in to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from starlette.testclient import TestClient

from dnp_guard.audit import previews
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.server import tokens
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
POLICY = {"name": "default", "revision": "1", "digest": "d" * 64, "mode": "enforce"}
BLOCKED, STEERED, CLEAN, HOSTILE = (digit * 32 for digit in "1234")


def write(log: Path, request: str, decision: str, *, probability: float | None = None, **more: object) -> None:
    """Append the records of one generation of one image to a log.

    Args:
        log: path of the log.
        request: id of the generation.
        decision: outcome of the image.
        probability: probability of the finding during denoising; None for no finding.
        more: values in place of the default category, term, tenant, policy, and key for the picture.
    """
    sink = JsonlSink(log)
    words = {"category": "nudity", "term": "breasts", "tenant": "acme", "policy": POLICY, "key": None, **more}
    of = {"request": request, "policy": words["policy"], "tenant": words["tenant"]}
    finding = {"category": words["category"], "term": words["term"], "probability": probability, "threshold": 0.5}
    findings = {"findings": [finding]} if probability is not None else {}
    picture = previews.keep(previews.folder(log), request, 0, 5, Image.new("RGB", (64, 64), "red"), words["key"])
    sink.write(build("request.started", **of, host={"name": "a1111"}, run={"seed": 1}))
    sink.write(build("query", **of, image=0, step=5, steps=25, decision="steer", **findings, preview=picture))
    final = findings if decision == "blocked" else {}
    sink.write(build("query", **of, image=0, decision="none", **final))
    sink.write(build("request.finished", **of, image=0, decision=decision))
    sink.close()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "audit.jsonl"
    loaded = {"author": "ann", "approver": "bob", "reason": "fewer false alarms"}
    JsonlSink(path).write(build("policy.loaded", policy=POLICY, loaded=loaded))
    write(path, BLOCKED, "blocked", probability=0.93)
    write(path, STEERED, "steered", probability=0.55, tenant="globex")
    write(path, CLEAN, "clean")
    hostile = {**POLICY, "name": EVIL}
    write(path, HOSTILE, "blocked", probability=0.9, category=EVIL, term=EVIL, tenant=EVIL, policy=hostile)
    return path


class People:
    """A callable that creates a token with a role, and returns a client that is signed in to the console with it."""

    def __init__(self, app, file) -> None:
        self.app, self._file = app, file

    def __call__(self, role: str | None, **granted) -> TestClient:
        token = tokens.add(self._file, name=role or "host", role=role, **granted)
        client = TestClient(self.app, base_url="http://localhost", follow_redirects=False)
        client.token = token
        if role is not None:
            assert client.post("/console/sign-in", data={"token": token}).status_code == 303
        return client


@pytest.fixture
def people(log, tmp_path):
    (tmp_path / "looks.json").write_text("{}")
    file = tmp_path / "tokens.json"
    tokens.add(file, name="first", role="auditor")
    app = create(
        Settings(
            policy="glyphs",
            vlm=f"scripted:{tmp_path / 'looks.json'}",
            audit=(str(log),),
            token_file=file,
            console=True,
        )
    )
    app.state.console.refresh()
    yield People(app, file)
    app.state.service.close(keep=False)


def form_of(page) -> str:
    return re.search(r'name="form" value="([0-9a-f]+)"', page.text)[1]


def judge(client, request, verdict="right", **more):
    path = f"/console/image/{request}/0"
    return client.post(f"{path}/verdict", data={"verdict": verdict, "form": form_of(client.get(path)), **more})


def appeal_link(client, request) -> str:
    return re.search(r'href="(/appeal/[^"]+)"', client.get(f"/console/image/{request}/0").text)[1]
