"""The service lets a host steer in attention space if the host says that it can, and records how it was steered."""

from __future__ import annotations

import pytest
from PIL import Image

from dnp_guard.hosts.protocol import Host, Run
from dnp_guard.hosts.remote import Service
from tests.policies import bolt, star, written
from tests.server.conftest import ask, begin, data_url, finish

STAR, BOTH, CLEAN = {"a star": 0.9}, {"a star": 0.9, "a bolt": 0.9}, {"a star": 0.0}
HOW = {"phi": 8.0, "tau": 3.0, "alpha": 0.6, "mask": 0.5}
AUTO = {"mode": "auto", "scale": 6, "strength": "constant", "hold": 9, "attention": HOW}
ATTENTION = {**AUTO, "mode": "attention", "scale": None}
PICTURES = [Image.new("RGB", (16, 16), "red")]
REACHES, SHOWN = ["attention"], ["attention", "attention_shown"]


@pytest.fixture
def policy(tmp_path):
    """Return a function that writes a policy with the given ``guidance``, and returns its file."""
    return lambda guidance: written(tmp_path, categories=[star(), bolt(negative=["bolt"])], guidance=guidance)


def steered(serve, policy, looks=STAR, **asked):
    """Open a session and send its first query; return the opened session, the answer on the image, and the client."""
    client = serve([looks], policy=policy)
    opened = begin(client, steps=10, **asked).json()
    return opened, ask(client, opened["session"], 2).json()["images"][0], client


@pytest.mark.parametrize(
    ("can", "mode"), [(None, "separate"), ([], "separate"), (REACHES, "separate"), (SHOWN, "attention")]
)
def test_auto_is_attention_for_a_host_that_reaches_it_where_it_was_shown_to_work(serve, policy, can, mode):
    opened, answer, _ = steered(serve, policy(AUTO), **({} if can is None else {"can": can}))
    assert opened["guidance"] == mode
    assert answer["mode"] == mode


def test_attention_is_told_with_its_parameters_and_a_negative_for_each_category(serve, policy):
    _, answer, _ = steered(serve, policy(ATTENTION), BOTH, can=REACHES)
    assert answer["attention"] == {**HOW, "parts": ["star", "bolt"]}


def test_attention_that_is_told_is_recorded(serve, policy):
    steered(serve, policy(AUTO), can=SHOWN)
    serve.stop()
    (injected,) = serve.recorded("negative.injected")
    assert injected["negative"]["mode"] == "attention"
    assert injected["negative"]["attention"] == HOW


def test_a_policy_that_steers_in_attention_is_refused_to_a_host_that_does_not_reach_it(serve, policy):
    client = serve([STAR], policy=policy(ATTENTION))
    assert begin(client, steps=10).json()["type"].endswith(":policy")


@pytest.mark.parametrize(("scale", "beside"), [(7.5, 6), (None, 6), (1, None)])
def test_a_host_without_guidance_gets_no_separate_term_beside_attention(serve, policy, scale, beside):
    run = {} if scale is None else {"run": {"guidance_scale": scale}}
    _, answer, _ = steered(serve, policy({**AUTO, "escalate": 1}), BOTH, can=SHOWN, **run)
    assert answer["scale"] == beside


def lost(serve, policy, **asked):
    """Have a host tell how it steered, with a query at a step that is not due.

    Returns:
        The client, the session's id, and the answer on the image.
    """
    opened, _, client = steered(serve, policy, can=SHOWN)
    session = opened["session"]
    return client, session, ask(client, session, 3, **asked).json()["images"][0]


@pytest.mark.parametrize(("guidance", "scale"), [(AUTO, 6), (ATTENTION, 15)])
def test_a_host_that_could_not_steer_in_attention_goes_on_by_separate(serve, policy, guidance, scale):
    _, _, answer = lost(serve, policy(guidance), used="separate")
    assert answer["mode"] == "separate"
    assert answer["scale"] == scale
    assert answer["attention"] is None


def test_a_host_that_did_as_it_was_told_goes_on_so(serve, policy):
    assert lost(serve, policy(AUTO), used="attention")[2]["mode"] == "attention"


def test_the_record_says_that_a_host_fell_back_and_what_it_is_steered_by_then(serve, policy):
    client, session, _ = lost(serve, policy(AUTO), used="separate")
    ask(client, session, 4, used="separate")
    finish(client, session)
    serve.stop()
    reasons = [record["reason"].partition(":")[0] for record in serve.recorded("degraded")]
    assert reasons.count("attention_lost") == 1
    injected = [record["negative"]["mode"] for record in serve.recorded("negative.injected")]
    assert injected == ["attention", "separate"]


def test_another_worker_goes_on_with_attention_and_with_what_was_lost(tmp_path, serve, policy):
    shared = {"policy": policy(AUTO), "store": f"sqlite:{tmp_path / 'sessions.sqlite'}"}
    one, other = serve([STAR], **shared), serve([STAR], **shared)
    session = begin(one, steps=10, can=SHOWN).json()["session"]
    ask(one, session, 2)
    assert ask(other, session, 4).json()["images"][0]["mode"] == "attention"
    ask(one, session, 6, used="separate")
    assert ask(other, session, 8).json()["images"][0]["mode"] == "separate"


def test_a_fallback_at_the_end_is_recorded(serve, policy):
    opened, _, client = steered(serve, policy(AUTO), can=SHOWN)
    body = {"images": [{"index": 0, "data": data_url()}], "used": "separate"}
    client.post(f"/v1/sessions/{opened['session']}/final", json=body)
    serve.stop()
    assert "attention_lost" in [record["reason"].partition(":")[0] for record in serve.recorded("degraded")]


def test_the_client_in_python_says_what_its_host_reaches_and_what_it_used(service, policy):
    client = service("[{a star: 0.9}]", policy=policy(AUTO))
    able = {"attention": True, "run": Run(guidance_scale=7)}
    with client.open(images=1, steps=10, host=Host(name="tests"), **able) as session:
        (answer,) = session.query(2, PICTURES)
        assert answer.attention is not None
        assert session.query(3, PICTURES, used="separate")[0].mode == "separate"


def test_the_client_offers_attention_to_no_service_that_does_not_list_it(service, policy, monkeypatch):
    client = service("[{a star: 0.9}]", policy=policy(AUTO))
    monkeypatch.setattr(Service, "features", lambda _: ("retry",))
    with client.open(images=1, steps=10, host=Host(name="tests"), attention=True) as session:
        assert session.query(2, PICTURES)[0].mode == "separate"
