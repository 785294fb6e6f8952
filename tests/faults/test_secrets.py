"""Badly copied keys and tokens are refused, and messages quote no secrets and no text of others."""

from __future__ import annotations

import logging
import traceback
from concurrent.futures import CancelledError
from contextlib import suppress

import pytest
from starlette.testclient import TestClient

from dnp_guard.cli import checks
from dnp_guard.errors import VlmBadAnswer, VlmError, VlmUnavailable
from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service, ServiceError
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from dnp_guard.vlm.remote.transport import KEY, Transport
from tests.server.conftest import HERE, ask, begin, finish
from tests.vlm import fault_server as faults

AROUND = ["{}\n", "{}\r\n", "{} ", "\t{}", "{}\n\n"]
WITHIN = ["{0}\n{0}", "{0}\r\nX-Other: {0}", "{0} {0}", "{0}\0", "{0}\x7f", "ключ{0}", "{0}\udcff", "\u2028{0}é"]
SECRET = "hunter2"
BODY = {"questions": {"q0": {}}}


def everything(error):
    return "".join(traceback.format_exception(error))


@pytest.fixture
def server():
    with faults.running() as started:
        yield started


@pytest.mark.parametrize("form", AROUND)
def test_white_space_around_a_key_is_not_sent(server, monkeypatch, form):
    monkeypatch.setenv(KEY, form.format(SECRET))
    transport = Transport([server.url])
    transport.post("/x", [BODY])
    transport.close()
    assert "authorization: bearer hunter2\r\n" in server.headers[0] + "\r\n"


@pytest.mark.parametrize("form", WITHIN)
def test_a_key_that_no_header_carries_is_refused_at_start_by_its_name_alone(server, monkeypatch, form):
    monkeypatch.setattr("os.environ", {KEY: form.format(SECRET)})  # a real environment holds no zero byte
    with pytest.raises(VlmUnavailable, match=KEY) as raised:
        Transport([server.url])
    assert SECRET not in everything(raised.value)
    assert server.connections == 0


@pytest.mark.parametrize("form", WITHIN)
def test_a_key_that_turns_bad_while_it_runs_is_quoted_nowhere(server, monkeypatch, caplog, form):
    caplog.set_level(logging.DEBUG)
    transport = Transport([server.url])
    monkeypatch.setattr("os.environ", {KEY: form.format(SECRET)})
    with pytest.raises(VlmError, match=KEY) as raised:
        transport.post("/x", [BODY])
    transport.close()
    assert SECRET not in everything(raised.value) + caplog.text


@pytest.mark.parametrize("form", [form for form in WITHIN if "\0" not in form])
def test_doctor_names_the_variable_and_not_the_key(server, monkeypatch, form):
    monkeypatch.setenv(KEY, form.format(SECRET))
    (problem,) = checks.vlm(f"openai:m@{server.url}").problems
    assert KEY in str(problem)
    assert SECRET not in str(problem)


@pytest.mark.parametrize("form", WITHIN)
def test_a_token_that_no_header_carries_is_refused_without_being_quoted(form):
    with pytest.raises(ServiceError, match="token") as raised:
        Service("http://127.0.0.1:1", form.format(SECRET))
    assert SECRET not in everything(raised.value)


@pytest.mark.parametrize("form", AROUND)
def test_white_space_around_a_token_is_not_sent(server, form):
    with Service(server.url.removesuffix("/v1"), form.format(SECRET)) as service, suppress(ServiceError):
        service.open(images=1, host=Host(name="tests"))  # the server is not ours, and its answer is no session
    assert {"authorization: bearer hunter2\r\n" in head + "\r\n" for head in server.headers} == {True}


HOSTILE = [
    b"HTTP/1.1 500 hunter2\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 418 hunter2\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 299 hunter2\r\ncontent-length: 8\r\n\r\nhunter2!",
    b"HTTP/1.1 200 OK\r\nhunter2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: hunter2\r\n\r\n",
    b"hunter2\r\n\r\n",
]


@pytest.mark.parametrize("reply", HOSTILE)
def test_nothing_that_a_server_says_is_quoted(server, caplog, reply):
    server.fault = lambda _, connection, __: connection.sendall(reply)
    transport = Transport([server.url])
    with pytest.raises(VlmError) as raised:
        transport.post("/x", [BODY])
    transport.close()
    assert "hunter2" not in everything(raised.value) + caplog.text


TERM = "a hidden star"
POLICY = f"""
format: 1
name: sensitive
queries: {{steps: [0.1], final: true}}
categories:
  - {{id: hidden, title: Hidden, definition: Hidden., look_for: [{TERM}], threshold: 0.5, action: block,
     severity: critical, sensitive: true}}
"""


class Talkative:
    """A backend that fails with an error that quotes the question."""

    def __init__(self, kind):
        self.kind = kind

    def ask(self, images, questions):
        raise self.kind(f"cannot answer {questions}")


class Odd(VlmBadAnswer):
    """An error class that only a backend knows."""


@pytest.mark.parametrize("kind", [ValueError, VlmError, Odd, TimeoutError, SystemExit, CancelledError])
def test_a_backend_that_quotes_the_question_is_quoted_in_no_record(tmp_path, caplog, kind):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    audit = (str(tmp_path / "audit.jsonl"), f"sqlite:{tmp_path / 'audit.sqlite'}")
    app = create(Settings(policy=str(policy), vlm="", audit=audit), Talkative(kind))
    with TestClient(app, base_url=HERE) as client:
        session = begin(client).json()["session"]
        answers = [ask(client, session, 3), finish(client, session)]
    policy.unlink()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert answers[1].json()["images"][0]["decision"] == "failed_closed"
    assert b"raised " + kind.__name__.encode() in written
    assert TERM not in written.decode(errors="replace") + caplog.text + "".join(answer.text for answer in answers)
