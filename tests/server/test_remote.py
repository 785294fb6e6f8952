from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from PIL import Image

from dnp_guard.hosts.connection import Connection
from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service, ServiceError
from dnp_guard.server import tokens
from tests.answers import HIDDEN, UNANSWERED, Answers
from tests.waiting import wait_until

HOST = Host(name="tests")
RED = Image.new("RGB", (16, 16), "red")


def test_a_generation_is_steered_and_judged(service):
    client = service("[{a star: 0.9}, {a star: 0.0}]")
    with client.open(["a lake"], images=1, steps=25, host=HOST) as session:
        steered = [session.query(step, [RED])[0].negative for step in range(25) if session.due(step)]
        (verdict,) = session.final([RED])
    assert steered[0] == "star"
    assert steered[-1] is None
    assert verdict.decision == "steered"
    assert verdict.action == "pass"


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
    client, sent, send = service(), [], Connection.send

    def noted(self, path, asked, answer, **more):
        sent.append(asked)
        return send(self, path, asked, answer, **more)

    monkeypatch.setattr(Connection, "send", noted)
    client.open(images=1, steps=4, host=HOST).abandon()
    monkeypatch.setattr(client, "features", lambda: ("other",))
    client.open(images=1, steps=4, host=HOST).abandon()
    assert [asked.can for asked in sent] == [["unasked"], None]


def test_a_client_learns_the_features_of_a_service_that_is_not_ready(service, tmp_path):
    client = service(store=f"sqlite:{tmp_path / 'sessions'}")
    with closing(sqlite3.connect(tmp_path / "sessions", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_until(lambda: not client.ready())
        assert "ended" in client.features()


def test_a_client_learns_the_features_later_of_a_service_that_lists_none_at_first(service):
    with Answers(503, b"<p>no backend is up</p>") as proxy, Service(proxy.url) as client:
        assert not client.knows("ended")
        client.connection = service().connection
        assert client.knows("ended")


@pytest.mark.parametrize(("status", "body"), UNANSWERED)
def test_a_session_that_wants_features_is_not_opened_where_a_problem_lists_none(status, body):
    with Answers(status, body) as proxy, pytest.raises(ServiceError, match=str(status)):
        Service(proxy.url).open(images=1, steps=4, host=HOST, inputs=True)
    assert [path for path, *_ in proxy.asked] == ["/readyz"]


@pytest.mark.parametrize(("status", "body"), HIDDEN)
def test_a_service_whose_list_of_features_a_proxy_hides_has_none(status, body):
    with Answers(status, body) as proxy, Service(proxy.url) as client:
        assert client.features() == ()
