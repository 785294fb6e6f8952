"""A serving engine tells its clients which guard and policy are in force."""

import os

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dnp_guard.hosts.engines.attestation import Attestation, reports, say
from dnp_guard.hosts.engines.middleware import Attested

GUARDED = Attestation("vllm-omni", "guarded", os.getpid(), policy="glyphs", digest="abc", mode="enforce")


@pytest.fixture
def client():
    app = FastAPI()
    app.add_middleware(Attested)
    app.get("/health")(lambda: "well")
    app.post("/v1/images/generations")(lambda: "a picture")
    return TestClient(app)


def test_a_response_says_which_guard_and_policy_were_in_force(configured, client):
    say(configured(), GUARDED)
    answer = client.post("/v1/images/generations")
    assert answer.status_code == 200
    assert answer.headers["dnp-guard"].startswith("guarded; guard=")
    assert answer.headers["dnp-guard"].endswith("policy=glyphs@abc")


def test_nothing_is_generated_while_no_worker_says_that_it_is_guarded(configured, client):
    configured()
    answer = client.post("/v1/images/generations")
    assert answer.status_code == 503
    assert answer.headers["dnp-guard"] == "unattested"


def test_one_worker_that_refuses_stops_all(configured, client):
    state = configured()
    say(state, GUARDED)
    say(state, Attestation("vllm-omni", "refusing", os.getppid(), reason="no policy"))
    answer = client.post("/v1/images/generations")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "no policy"


def test_an_open_server_generates_and_says_that_it_is_not_guarded(configured, client):
    say(configured(on_failure="open"), Attestation("vllm-omni", "unguarded", os.getpid(), reason="no policy"))
    answer = client.post("/v1/images/generations")
    assert answer.status_code == 200
    assert answer.headers["dnp-guard"].startswith("unguarded;")


def test_requests_for_the_servers_health_pass(configured, client):
    configured()
    assert client.get("/health").json() == "well"


def test_the_workers_are_listed_for_a_probe(configured, client):
    state = configured()
    assert client.get("/dnp-guard").status_code == 503
    say(state, GUARDED)
    answer = client.get("/dnp-guard")
    assert answer.status_code == 200
    assert answer.json()["workers"][0]["policy"] == "glyphs"


def test_a_worker_that_has_ended_says_nothing(configured):
    state = configured()
    say(state, Attestation("vllm-omni", "guarded", 2**22 + 1))  # above the highest process id of Linux
    assert reports(state) == []


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"engine": "e", "serving": "guarded", "pid": 1, "later": 0}'])
def test_a_worker_whose_report_cannot_be_read_stops_all(configured, client, text):
    state = configured()
    say(state, GUARDED)
    (state / f"{os.getppid()}.json").write_text(text)
    answer = client.post("/v1/images/generations")
    assert answer.status_code == 503
    assert f"{os.getppid()}.json" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["notes.json", f"{10**30}.json", f"{2**22 + 1}.json"])
def test_a_file_of_no_running_worker_is_no_report(configured, name):
    state = configured()
    state.mkdir()
    (state / name).write_text("{}")
    assert reports(state) == []
