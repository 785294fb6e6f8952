"""The service has its host generate images again after a failed final look."""

from __future__ import annotations

import json
import time

import pytest
from PIL import Image

from dnp_guard.audit.read.verify import verify
from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service, ServiceError
from dnp_guard.server import receipts
from tests.policies import star, written
from tests.server.conftest import ask, begin, data_url, finish, images

CLEAN, STAR = {"a star": 0.0}, {"a star": 0.9}
DUE = (2, 4, 6, 8)
FIRST = [CLEAN] * len(DUE)
"""The number of looks of an attempt before its end."""
SHOWN = [[CLEAN, STAR, CLEAN]]
"""A final look in which the second image of three shows a star."""
GREY = Image.new("RGB", (16, 16), "grey")


@pytest.fixture
def policy(tmp_path):
    """Return a function that writes a policy which retries an image with a star, and returns its file."""
    return lambda **retries: written(tmp_path, categories=[star(still_present="retry")], retries=retries)


def first(client, count=1, *, can=("retry",)):
    """Run the first attempt at some images; return the session's id and the verdicts."""
    session = begin(client, steps=10, images=count, can=list(can)).json()["session"]
    return session, attempt(client, session, range(count))


def attempt(client, session, drawn):
    sent = [{"index": index, "data": data_url()} for index in drawn]
    for step in DUE:
        assert client.post(f"/v1/sessions/{session}/queries", json={"step": step, "images": sent}).is_success
    return client.post(f"/v1/sessions/{session}/final", json={"images": sent}).json()["images"]


def again(client, session, indices, **asked):
    return begin(client, steps=10, retries=session, indices=indices, **asked)


def test_a_generation_goes_on_until_an_attempt_stands(service, policy):
    client = service(json.dumps([*FIRST, *SHOWN, CLEAN]), policy=policy())
    with client.open(images=3, steps=10, host=Host(name="tests"), retry=True) as session:
        for step in filter(session.due, range(10)):
            session.query(step, [GREY] * 3)
        actions = [verdict.action for verdict in session.final([GREY] * 3)]
        steered = session.again()
        asked = [step for step in range(10) if session.due(step) and session.query(step, [GREY])]
        (verdict,) = session.final([GREY])
    assert actions == ["pass", "retry", "pass"]
    assert [(steer.index, steer.negative, steer.scale) for steer in steered] == [(1, "star", 9.0)]
    assert asked == list(DUE)
    assert verdict.index == 1
    assert verdict.decision == "steered"
    assert verdict.action == "pass"


def test_a_client_of_a_service_that_cannot_retry_offers_nothing_of_it(service, policy, monkeypatch):
    client = service(json.dumps([*FIRST, STAR]), policy=policy())
    monkeypatch.setattr(client, "features", lambda: ("inputs",))
    with client.open(images=1, steps=10, host=Host(name="tests"), retry=True) as session:
        for step in DUE:
            session.query(step, [GREY])
        (verdict,) = session.final([GREY])
    assert verdict.action == "block"


def test_a_host_that_does_not_say_that_it_can_gets_what_is_done_otherwise(serve, policy):
    client = serve([*FIRST, STAR], policy=policy(otherwise="blur"))
    assert begin(client, steps=10).json()["retries"] == 0
    _, (verdict,) = first(client, can=())
    assert verdict["action"] == "blur"
    assert verdict["otherwise"] is None
    assert serve.recorded("request.finished")[0]["reason"] == "the host cannot draw again"


def test_a_host_that_can_is_told_how_often_it_may_have_to(serve, policy):
    client = serve([CLEAN], policy=policy(most=2))
    assert begin(client, can=["retry"]).json()["retries"] == 2


def test_a_verdict_that_says_retry_says_what_is_done_otherwise_and_has_no_receipt(serve, policy, tmp_path):
    key = tmp_path / "key"
    receipts.new_key(key)
    _, (_, verdict, other) = first(serve([*FIRST, *SHOWN], policy=policy(), receipt_key=key), 3)
    entry = {key: verdict[key] for key in ("action", "otherwise", "decision", "code", "receipt")}
    assert entry == {
        "action": "retry",
        "otherwise": "block",
        "decision": "blocked",
        "code": "blocked",
        "receipt": None,
    }
    assert other["receipt"]


def test_an_image_that_shows_it_in_every_attempt_is_withheld(serve, policy):
    client = serve([*FIRST, STAR], policy=policy(most=2))
    session, _ = first(client)
    for action in ("retry", "block"):
        assert again(client, session, [0]).status_code == 201
        assert [verdict["action"] for verdict in attempt(client, session, [0])] == [action]


def test_the_record_tells_of_each_attempt_and_of_one_end(serve, policy):
    client = serve([*FIRST, *SHOWN, CLEAN], policy=policy())
    session, _ = first(client, 3)
    again(client, session, [1])
    attempt(client, session, [1])
    (retried,) = serve.recorded("request.retried")
    assert retried["image"] == 1
    assert retried["attempt"] == 2
    assert retried["negative"]["text"] == "star"
    ended = serve.recorded("request.finished")
    assert [(record["decision"], record.get("attempts")) for record in ended] == [
        ("clean", None),
        ("steered", 2),
        ("clean", None),
    ]
    counted = client.get("/metrics").text
    assert 'dnp_guard_retries_total{outcome="cleared",policy="test"} 1.0' in counted


def test_a_retry_is_opened_once_by_its_token_and_for_the_images_that_are_due_one(serve, policy):
    client = serve([*FIRST, *SHOWN, CLEAN], policy=policy())
    session, _ = first(client, 3)
    assert again(client, session, [0]).status_code == 422
    assert again(client, "0" * 32, [1]).status_code == 404
    assert [again(client, session, [1]).status_code for _ in range(2)] == [201, 409]


def test_before_a_retry_is_opened_the_final_is_answered_the_same_again_and_no_step_is_taken(serve, policy):
    client = serve([*FIRST, STAR], policy=policy())
    session, verdicts = first(client)
    assert finish(client, session).json()["images"] == verdicts
    assert ask(client, session, 9).status_code == 409


def test_only_the_images_that_are_drawn_again_are_sent(serve, policy):
    client = serve([*FIRST, *SHOWN, CLEAN], policy=policy())
    session, _ = first(client, 3)
    again(client, session, [1])
    refused = client.post(f"/v1/sessions/{session}/queries", json={"step": 2, "images": images(3)})
    assert refused.json()["detail"] == "Send each of the images 1 once."


@pytest.mark.parametrize("opens", [True, False])
def test_a_host_that_gives_up_gets_what_is_done_otherwise(serve, policy, opens):
    client = serve([*FIRST, *SHOWN], policy=policy())
    session, _ = first(client, 3)
    if opens:
        again(client, session, [1])
    assert client.delete(f"/v1/sessions/{session}").status_code == 204
    assert [verdict["action"] for verdict in finish(client, session).json()["images"]] == ["block"]
    ended = serve.recorded("request.finished")
    assert [record["decision"] for record in ended] == ["clean", "blocked", "clean"]
    assert ended[1]["reason"] == "the host did not draw it again"


def test_a_retry_that_expires_is_finished_and_not_abandoned(serve, policy):
    client = serve([*FIRST, STAR], policy=policy(), limits={"idle_s": 0.000001})
    first(client)
    client.app.state.service.sweep()
    assert [record["decision"] for record in serve.recorded("request.finished")] == ["blocked"]
    assert verify(serve.folder / "audit.jsonl").ok


def test_a_retry_whose_looks_the_host_leaves_out_is_withheld_and_the_others_stay(serve, policy):
    client = serve([*FIRST, *SHOWN, CLEAN], policy=policy())
    session, _ = first(client, 3)
    again(client, session, [1])
    (verdict,) = client.post(
        f"/v1/sessions/{session}/final", json={"images": [{"index": 1, "data": data_url()}]}
    ).json()["images"]
    assert verdict["decision"] == "blocked"
    assert verdict["action"] == "block"
    assert [record["decision"] for record in serve.recorded("request.finished")] == ["clean", "blocked", "clean"]


def test_no_retry_is_asked_for_that_would_not_be_over_in_time(serve, policy):
    _, (verdict,) = first(serve([*FIRST, STAR], policy=policy(within_ms=1)))
    assert verdict["action"] == "block"
    assert serve.recorded("request.finished")[0]["reason"] == "there is no time left for it"


def test_a_retry_that_takes_too_long_ends_at_its_next_look(serve, policy, monkeypatch):
    client = serve([*FIRST, STAR, CLEAN], policy=policy(within_ms=3_600_000))
    session, _ = first(client)
    again(client, session, [0])
    now = time.monotonic
    monkeypatch.setattr("dnp_guard.generation.times.monotonic", lambda: now() + 3600)
    answer = ask(client, session, 2)
    assert answer.status_code == 409
    assert answer.json()["detail"] == "No image is drawn again: there is no time left for it."
    assert [verdict["decision"] for verdict in finish(client, session).json()["images"]] == ["blocked"]


def test_another_worker_goes_on_with_a_retry_and_its_time(served, policy, tmp_path):
    script, store = json.dumps([*FIRST, STAR, CLEAN]), f"sqlite:{tmp_path / 'sessions.db'}"
    urls = [served(script, policy=policy(), store=store) for _ in range(2)]
    clients = [Service(url) for url in urls]
    with clients[0].open(images=1, steps=10, host=Host(name="tests"), retry=True) as session:
        for step in DUE:
            session.query(step, [GREY])
        session.final([GREY])
        session.service = clients[1]  # a balancer in between changes them like this
        assert [steer.negative for steer in session.again()] == ["star"]
        with pytest.raises(ServiceError, match="409"):
            session.again()
        session.abandon()
    for client in clients:
        client.close()


@pytest.mark.parametrize("fails", ["unasked", "unanswered", "late"])
def test_an_attempt_that_does_not_stand_gets_the_verdict_of_the_one_before_and_no_receipt(
    serve, policy, tmp_path, monkeypatch, fails
):
    key = tmp_path / "key"
    receipts.new_key(key)
    last = {"error": "timeout"} if fails == "unanswered" else CLEAN
    written = policy(otherwise="monitor", within_ms=3_600_000)
    client = serve([*FIRST, *SHOWN, *FIRST, last], policy=written, receipt_key=key)
    session, (other, *_) = first(client, 3)
    again(client, session, [1])
    sent = [{"index": 1, "data": data_url()}]
    for step in DUE if fails != "unasked" else ():
        client.post(f"/v1/sessions/{session}/queries", json={"step": step, "images": sent})
    if fails == "late":
        now = time.monotonic
        monkeypatch.setattr("dnp_guard.generation.times.monotonic", lambda: now() + 3600)
    (verdict,) = client.post(f"/v1/sessions/{session}/final", json={"images": sent}).json()["images"]
    entry = {key: verdict[key] for key in ("decision", "action", "earlier", "receipt")}
    assert entry == {"decision": "monitored", "action": "pass", "earlier": True, "receipt": None}
    assert other["earlier"] is False
    assert other["receipt"]


def test_an_attempt_that_stands_is_not_earlier_and_has_its_receipt(serve, policy, tmp_path):
    key = tmp_path / "key"
    receipts.new_key(key)
    client = serve([*FIRST, *SHOWN, CLEAN], policy=policy(), receipt_key=key)
    session, _ = first(client, 3)
    again(client, session, [1])
    (verdict,) = attempt(client, session, [1])
    assert verdict["earlier"] is False
    assert verdict["receipt"]


def test_a_client_is_told_that_a_verdict_is_on_the_picture_before(service, policy):
    client = service(json.dumps([*FIRST, *SHOWN, CLEAN]), policy=policy(otherwise="monitor"))
    with client.open(images=3, steps=10, host=Host(name="tests"), retry=True) as session:
        for step in DUE:
            session.query(step, [GREY] * 3)
        assert not any(verdict.earlier for verdict in session.final([GREY] * 3))
        session.again()
        (verdict,) = session.final([GREY])  # the host leaves out its due queries
    assert verdict.action == "pass"
    assert verdict.earlier


def test_a_verdict_that_says_retry_decides_without_what_that_would_inject(serve, policy):
    _, (_, verdict, _) = first(serve([*FIRST, *SHOWN], policy=policy(otherwise="monitor")), 3)
    assert verdict["decision"] == "monitored"
    assert verdict["otherwise"] == "pass"
