from __future__ import annotations

import threading

import pytest
import uvicorn
from PIL import Image

from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service, ServiceError
from dnp_guard.server import tokens
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.server.conftest import SERVED

HOST = Host(name="tests")
RED = Image.new("RGB", (16, 16), "red")


@pytest.fixture
def served(tmp_path):
    """Serves a script on loopback; its base URL."""
    running = []

    def serve(script, **settings):
        looks = tmp_path / "looks.yaml"
        looks.write_text(script)
        app = create(Settings(policy=str(SERVED), vlm=f"scripted:{looks}", **settings))
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
    """Connects to a script."""
    opened = []

    def connect(script="{a star: 0.0}", token=None, **settings):
        opened.append(Service(served(script, **settings), token))
        while not opened[-1].ready():
            pass
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def test_a_generation_is_steered_and_judged(service):
    client = service("[{a star: 0.9}, {a star: 0.0}]")
    with client.open(["a lake"], images=1, steps=25, host=HOST) as session:
        steered = [session.query(step, [RED])[0].negative for step in range(25) if session.due(step)]
        (verdict,) = session.final([RED])
    assert steered[0] == "star"
    assert steered[-1] is None
    assert (verdict.decision, verdict.action) == ("steered", "pass")


def test_an_unanswered_look_is_due_again(service):
    client = service("[{error: timeout}, {a star: 0.9}]")
    with client.open(images=1, steps=25, host=HOST) as session:
        session.query(2, [RED])
        assert session.due(3)
        session.query(3, [RED])
        assert not session.due(3)


def test_without_steps_the_progress_says_when_to_ask(service):
    with service().open(images=1, host=HOST) as session:
        assert not session.due(0, 0.01)
        assert session.due(1, 0.1)
        session.query(1, [RED], progress=0.1)
        assert not session.due(2, 0.12)


def test_a_session_that_was_left_is_ended(service):
    client = service()
    with client.open(images=1, steps=25, host=HOST) as session:
        pass
    with pytest.raises(ServiceError) as caught:
        session.query(2, [RED])
    assert caught.value.type == "urn:dnp-guard:problem:over"


def test_a_token_is_shown(service, tmp_path):
    file = tmp_path / "tokens.json"
    client = service(token=tokens.add(file, tenant="acme"), token_file=file)
    with client.open(images=1, steps=25, host=HOST) as session:
        assert session.opened.policy == "glyphs"


def test_no_service_permits_nothing():
    with Service("http://127.0.0.1:1") as client, pytest.raises(ServiceError, match="reachable"):
        client.open(images=1, steps=25, host=HOST)


@pytest.mark.parametrize("url", ["http://example.com", "ftp://127.0.0.1", "127.0.0.1:8777"])
def test_images_go_nowhere_unencrypted(url):
    with pytest.raises(ServiceError):
        Service(url)


def test_a_client_offers_what_it_knows_to_a_service_that_lists_it_and_to_no_other(service, monkeypatch):
    client, sent, send = service(), [], Service.send

    def noted(self, path, asked, answer, **more):
        sent.append(asked)
        return send(self, path, asked, answer, **more)

    monkeypatch.setattr(Service, "send", noted)
    client.open(images=1, steps=4, host=HOST).abandon()
    monkeypatch.setattr(client, "features", lambda: ("other",))
    client.open(images=1, steps=4, host=HOST).abandon()
    assert [asked.can for asked in sent] == [["unasked"], None]
