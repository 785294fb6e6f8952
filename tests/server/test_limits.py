"""The service limits who may call it, and how much data and how many requests it accepts."""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from starlette.testclient import TestClient

from dnp_guard.errors import DnpGuardError
from dnp_guard.server import tokens
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.server.conftest import HERE, ask, begin, finish, images
from tests.waiting import wait_until

NOTHING = {"a star": 0.0}


def kind(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return answer.json()["type"].rpartition(":")[2]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.json"


def opened(client, token, **asked):
    body = {"protocol": 1, "host": {"name": "a1111"}, "images": 1, "steps": 25, **asked}
    return client.post("/v1/sessions", json=body, headers=bearer(token))


@pytest.mark.parametrize("header", [{}, bearer("wrong"), {"Authorization": "Basic eDp5"}, bearer("")])
def test_without_a_token_nothing_is_told(serve, file, header):
    tokens.add(file)
    answer = serve(NOTHING, token_file=file).post("/v1/sessions", json={}, headers=header)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert kind(answer) == "token"


def test_health_needs_no_token(serve, file):
    tokens.add(file)
    client = serve(NOTHING, token_file=file)
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 200]


def test_a_token_file_holds_no_token(file):
    token = tokens.add(file, tenant="acme")
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_a_token_that_was_taken_back_is_refused_at_once(serve, file):
    token = tokens.add(file)
    client = serve(NOTHING, token_file=file)
    assert opened(client, token).status_code == 201
    file.write_text(json.dumps({"format": 1, "tokens": []}))
    assert opened(client, token).status_code == 401


def test_a_broken_token_file_lets_nobody_in(serve, file):
    token = tokens.add(file)
    client = serve(NOTHING, token_file=file)
    file.write_text("nonsense")
    assert opened(client, token).status_code == 401


def test_a_token_ends(file):
    token = tokens.add(file, expires=datetime(2026, 1, 1, tzinfo=UTC))
    before, after = (
        tokens.Tokens(file, clock=lambda at=at: datetime(2026, 1, 1, tzinfo=UTC) + at)
        for at in (timedelta(seconds=-1), timedelta())
    )
    assert before.grant(f"Bearer {token}") is not None
    assert after.grant(f"Bearer {token}") is None


def test_a_token_file_of_another_form_is_refused(file):
    file.write_text(json.dumps({"format": 2, "tokens": []}))
    with pytest.raises(DnpGuardError, match="is not a token file: format"):
        tokens.Tokens(file)


def test_a_token_file_that_is_no_json_is_refused_plainly(file):
    file.write_bytes(b"\x89PNG")
    with pytest.raises(DnpGuardError, match="is not a token file: Invalid JSON"):
        tokens.Tokens(file)


def test_a_token_is_for_its_hosts(serve, file):
    token = tokens.add(file, hosts=("comfyui",))
    client = serve(NOTHING, token_file=file)
    assert kind(opened(client, token)) == "host"
    assert opened(client, token, host={"name": "comfyui"}).status_code == 201


def test_a_session_belongs_to_its_token(serve, file):
    mine, other = tokens.add(file), tokens.add(file)
    client = serve(NOTHING, token_file=file)
    session = opened(client, mine).json()["session"]
    assert client.delete(f"/v1/sessions/{session}", headers=bearer(other)).status_code == 404
    assert client.delete(f"/v1/sessions/{session}", headers=bearer(mine)).status_code == 204


def test_records_carry_the_tenant_of_the_token(serve, file):
    token = tokens.add(file, tenant="acme")
    opened(serve(NOTHING, token_file=file), token)
    started = [record for record in serve.records if record["event"] == "request.started"]
    assert [record["tenant"] for record in started] == ["acme"]


STRICT = """
format: 1
name: stricter
on_failure: closed
categories:
  - {id: star, title: Star, definition: A star., look_for: [a star], negative: [star], threshold: 0.1}
"""


def test_a_policy_of_the_token_makes_a_session_stricter(serve, file):
    (file.parent / "stricter.yaml").write_text(STRICT)
    token = tokens.add(file, policies=("stricter.yaml",))
    client = serve({"a star": 0.3}, token_file=file)
    plain, strict = opened(client, token).json(), opened(client, token, policy="stricter").json()
    assert plain["digest"] != strict["digest"]
    seen = [
        client.post(
            f"/v1/sessions/{host['session']}/queries", json={"step": 2, "images": images()}, headers=bearer(token)
        ).json()["images"][0]["action"]
        for host in (plain, strict)
    ]
    assert seen == ["none", "steer"]


def test_a_policy_that_is_not_the_tokens_is_refused(serve, file):
    token = tokens.add(file)
    client = serve(NOTHING, token_file=file)
    assert kind(opened(client, token, policy="strict")) == "policy"
    assert opened(client, token, policy="glyphs").status_code == 201


def test_a_misspelt_request_to_be_stricter_is_not_lost(serve):
    answer = begin(serve(NOTHING), polcy="strict")
    assert kind(answer) == "request"
    assert answer.json()["errors"][0]["pointer"] == "/polcy"


@pytest.mark.parametrize("header", [{"host": "evil.example:8777"}, {"origin": "http://evil.example"}])
def test_without_a_token_file_no_web_page_is_heard(serve, header):
    assert kind(serve(NOTHING).post("/v1/sessions", json={}, headers=header)) == "address"


def test_a_token_selects_the_policy_of_its_tenant(serve, file):
    store = file.parent / "policies"
    store.mkdir()
    for name in ("acme", "zenith"):
        (store / f"{name}.yaml").write_text(
            STRICT.replace("stricter", name) + f"select: {{tenants: [{name}]}}\n", encoding="utf-8"
        )
    secrets = {name: tokens.add(file, tenant=name) for name in ("acme", "zenith")}
    client = serve(NOTHING, token_file=file, policy=store)
    assert {name: opened(client, token).json()["policy"] for name, token in secrets.items()} == {
        "acme": "acme",
        "zenith": "zenith",
    }


def test_a_tenant_without_a_policy_is_told_so(serve, file):
    store = file.parent / "policies"
    store.mkdir()
    (store / "acme.yaml").write_text(STRICT + "select: {tenants: [acme]}\n")
    tokens.add(file, tenant="acme")
    client = serve(NOTHING, token_file=file, policy=store)
    stranger = tokens.add(file, tenant="stranger")
    answer = opened(client, stranger)
    assert answer.status_code == 503
    assert kind(answer) == "unready"


def test_the_command_grants_what_it_is_told(serve, file, capsys):
    from dnp_guard.cli import run

    options = ["--name", "studio 3", "--tenant", "acme", "--host", "a1111", "--policy", "strict"]
    assert run(["token", "add", str(file), *options, "--expires", "2099-01-01"]) == 0
    grant = tokens.Tokens(file).grant(f"Bearer {capsys.readouterr().out.strip()}")
    assert grant.name == "studio 3"
    assert grant.tenant == "acme"
    assert grant.hosts == ("a1111",)
    assert grant.policies == ("strict",)
    assert grant.expires == datetime(2099, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("how", ["said", "chunked"])
def test_a_body_over_the_limit_is_refused(serve, how):
    client = serve(NOTHING, limits={"body": 100})
    content = b"x" * 101 if how == "said" else iter([b"x" * 60, b"x" * 60])
    assert kind(client.post("/v1/sessions", content=content)) == "body"


def bomb(side):
    """Return a PNG of a few bytes as a data URL, whose header claims a width and height of ``side``."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    "data",
    [
        bomb(5000),
        bomb(30_000),
        bomb(16),
        "data:image/png;base64,iVBORw0KGgo=",
        "data:image/png;base64,?",
        "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
        "file:///etc/passwd",
        "https://example.com/a.png",
        "",
    ],
    ids=["large", "huge", "torn", "empty", "no base64", "gif", "file", "link", "nothing"],
)
def test_an_image_that_cannot_be_taken_was_not_looked_at(serve, data):
    client = serve(NOTHING)
    session = begin(client).json()["session"]
    answer = ask(client, session, 22, images=[{"index": 0, "data": data}])
    assert kind(answer) == "picture"
    assert answer.json()["index"] == 0
    assert finish(client, session).json()["images"][0]["decision"] == "failed_closed"
    assert any(record["event"] == "degraded" for record in serve.records)


def unfinished(folder):
    """Write a policy that lets images pass after failures, and has no final look; return its file."""
    policy = folder / "open.yaml"
    policy.write_text(
        "format: 1\nname: open\non_failure: open\nqueries: {steps: [0.5], final: false}\ncategories: [{id: star, "
        "title: Star, definition: A star., look_for: [a star], negative: [star], threshold: 0.5}]\n"
    )
    return policy


def test_a_failure_that_the_request_caused_is_closed_under_any_policy(serve, tmp_path):
    client = serve(NOTHING, policy=unfinished(tmp_path))
    session = begin(client).json()["session"]
    ask(client, session, 13)
    torn = {"images": [{"index": 0, "data": "data:image/png;base64,AAAA"}]}
    assert kind(client.post(f"/v1/sessions/{session}/final", json=torn)) == "picture"
    assert finish(client, session).json()["images"][0]["decision"] == "failed_closed"


def test_a_later_answer_clears_what_the_request_caused(serve, tmp_path):
    client = serve(NOTHING, policy=unfinished(tmp_path))
    session = begin(client).json()["session"]
    ask(client, session, 13, images=[{"index": 0, "data": "data:image/png;base64,AAAA"}])
    ask(client, session, 14)
    assert finish(client, session).json()["images"][0]["decision"] == "clean"


@pytest.mark.parametrize("indexes", [[], [1], [0, 0], [0, 1, 2]])
def test_every_image_of_the_session_is_sent_once(serve, indexes):
    client = serve(NOTHING)
    session = begin(client, images=2).json()["session"]
    sent = [{**images()[0], "index": index} for index in indexes]
    assert kind(ask(client, session, 2, images=sent)) == "images"


def test_too_many_images_are_refused(serve):
    assert kind(begin(serve(NOTHING, limits={"images": 2}), images=3)) == "refused"


def test_too_many_questions_are_refused(serve):
    assert kind(begin(serve(NOTHING, limits={"questions": 10}))) == "refused"


def test_a_policy_that_hosts_of_the_service_cannot_steer_by_is_refused(serve, tmp_path):
    policy = tmp_path / "masked.yaml"
    policy.write_text(
        "format: 1\nname: masked\nguidance: {mask: 0.5}\n"
        "categories: [{id: star, title: Star, definition: A star., negative: [star]}]\n"
    )
    assert kind(begin(serve(NOTHING, policy=policy))) == "policy"


def test_a_request_that_the_policy_refuses_is_recorded(serve, tmp_path):
    policy = tmp_path / "few.yaml"
    policy.write_text(
        "format: 1\nname: few\nqueries: {max_questions: 5}\ncategories: [{id: star, title: Star, definition: A star., "
        "look_for: [a star], negative: [star], threshold: 0.5}]\n"
    )
    assert kind(begin(serve(NOTHING, policy=policy))) == "refused"
    assert serve.records[-1]["decision"] == "failed_closed"


def test_open_sessions_are_counted(serve):
    client = serve(NOTHING, limits={"sessions": 1})
    first = begin(client).json()["session"]
    assert kind(begin(client)) == "sessions"
    client.delete(f"/v1/sessions/{first}")
    assert begin(client).status_code == 201


def test_requests_are_counted(serve):
    client = serve(NOTHING, limits={"rate": 2}, clock=lambda: 60.0)
    assert [begin(client).status_code for _ in range(3)] == [201, 201, 429]


def test_a_request_of_another_form_says_where(serve):
    answer = serve(NOTHING).post("/v1/sessions", json={"protocol": 2, "host": {}, "images": 0})
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/protocol", "/host/name", "/images"}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/sessions"), ("GET", "/v1/nothing"), ("GET", "/nothing")])
def test_other_errors_are_problems_too(serve, method, path):
    answer = serve(NOTHING).request(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


SENSITIVE = """
format: 1
name: sensitive
categories:
  - {id: star, title: Star, definition: A star., look_for: [a star], threshold: 0.5, action: block, severity: critical,
     sensitive: true}
"""


def test_findings_of_a_sensitive_category_stay_in_memory(serve, tmp_path):
    policy = tmp_path / "sensitive.yaml"
    policy.write_text(SENSITIVE)
    with pytest.raises(DnpGuardError, match="'star' is sensitive"):
        serve(NOTHING, policy=policy, store=f"sqlite:{tmp_path / 'sessions'}")
    assert begin(serve(NOTHING, policy=policy)).status_code == 201


def test_nothing_unfinished_is_shown_under_a_sensitive_category(serve, tmp_path):
    policy = tmp_path / "sensitive.yaml"
    policy.write_text(SENSITIVE + "preview: {user_previews: allow}\n")
    assert begin(serve(NOTHING, policy=policy)).json()["user_previews"] == "withhold"


class Resting:
    """A stand-in for a backend whose only server is not called for a while, because it has failed."""

    name = "resting"

    def __init__(self):
        self.state = "open"

    def ask(self, images, questions):
        return [[0.0] * len(questions) for _ in images]

    def states(self):
        return {"http://127.0.0.1:1/v1": self.state}


def test_it_is_not_ready_while_the_model_is_left_alone():
    backend = Resting()
    with TestClient(create(Settings(policy="glyphs", vlm=""), backend), base_url=HERE) as client:
        refusal = client.get("/readyz")
        assert refusal.status_code == 503
        assert "inputs" in refusal.json()["features"]
        backend.state = "half-open"
        assert client.get("/readyz").status_code == 200


class Batching:
    """A backend that can answer queries of several generations in one call, and waits until the test releases it."""

    name, batches = "batching", True

    def __init__(self):
        import threading

        self.first, self.go, self.sizes = threading.Event(), threading.Event(), []

    def ask(self, images, questions):
        self.sizes.append(len(images))
        self.first.set()
        self.go.wait(60)
        return [[0.0] * len(questions) for _ in images]


def test_sessions_that_ask_at_once_share_a_call():
    from concurrent.futures import ThreadPoolExecutor

    backend = Batching()
    with (
        TestClient(create(Settings(policy="glyphs", vlm=""), backend), base_url=HERE) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        sessions = [begin(client).json()["session"] for _ in range(5)]
        first = pool.submit(ask, client, sessions[0], 2)
        backend.first.wait(60)
        others = [pool.submit(ask, client, session, 2) for session in sessions[1:]]
        desk = client.app.state.service.guards.of(None).desk
        wait_until(lambda: desk.waiting == 4)
        backend.go.set()
        assert all(answer.result(60).json()["answered"] for answer in [first, *others])
    assert backend.sizes == [1, 4]


@pytest.fixture
def switching():
    """Set Python's thread switch interval to its default during a test, and yield it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield sys.getswitchinterval()
    sys.setswitchinterval(interval)


def test_threads_give_way_sooner_while_it_serves_and_not_after(switching):
    with TestClient(create(Settings(policy="glyphs", vlm=""), Resting()), base_url=HERE):
        assert sys.getswitchinterval() < switching
    assert sys.getswitchinterval() == switching
