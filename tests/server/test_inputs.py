"""A host may show a request's input pictures to the service before the first step."""

from __future__ import annotations

from PIL import Image

from dnp_guard.hosts.protocol import Host
from tests.server.conftest import ask, begin, finish, images

BLOCKING = "inputs: {query: true, action: block}\n"
RISING = "    more_than_input: 0.2\n"
HEAD = "format: 1\nname: edits\nqueries: {steps: [0.2, 0.6]}\n"
STAR = "categories:\n  - id: star\n    look_for: [a star]\n    negative: [star]\n"


def written(folder, more="", *, rising=""):
    file = folder / "edits.yaml"
    file.write_text(f"{HEAD}{more}{STAR}{rising}")
    return file


def opened(client, **asked):
    return begin(client, can=["inputs"], **asked).json()


def bring(client, session, count=1):
    return client.post(f"/v1/sessions/{session}/inputs", json={"images": images(count)})


def test_the_service_says_that_it_takes_inputs(serve):
    assert "inputs" in serve([{}]).get("/readyz").json()["features"]


def test_a_host_that_can_is_told_to_show_them(serve, tmp_path):
    client = serve([{}], policy=written(tmp_path, BLOCKING))
    assert opened(client)["inputs"] is True
    assert begin(client).json()["inputs"] is False


def test_a_policy_that_asks_for_none_is_not_shown_any(serve):
    client = serve([{}])
    session = opened(client)
    assert session["inputs"] is False
    assert bring(client, session["session"]).json() == {"images": [{"index": 0, "action": "pass"}]}


def test_content_of_the_input_is_not_steered_away_from(serve, tmp_path):
    client = serve([{"a star": 0.8}, {"a star": 0.9}], policy=written(tmp_path, rising=RISING))
    session = opened(client)["session"]
    assert bring(client, session).json() == {"images": [{"index": 0, "action": "pass"}]}
    assert ask(client, session, 5).json()["images"][0]["negative"] is None


def test_a_blocked_picture_ends_the_session(serve, tmp_path):
    client = serve([{"a star": 0.9}], policy=written(tmp_path, BLOCKING))
    session = opened(client, images=2)["session"]
    assert bring(client, session).json() == {"images": [{"index": 0, "action": "block"}]}
    assert ask(client, session, 5, 2).status_code == 409
    assert [image["action"] for image in finish(client, session, 2).json()["images"]] == ["block", "block"]
    finished = [record["decision"] for record in serve.records if record["event"] == "request.finished"]
    assert finished == ["blocked", "blocked"]


def test_repeated_pictures_are_answered_the_same(serve, tmp_path):
    client = serve([{"a star": 0.9}, {"a star": 0.0}], policy=written(tmp_path, BLOCKING))
    session = opened(client)["session"]
    assert bring(client, session).json() == bring(client, session).json()


def test_pictures_come_before_the_first_step(serve, tmp_path):
    client = serve([{"a star": 0.0}, {"a star": 0.0}], policy=written(tmp_path, BLOCKING))
    session = opened(client)["session"]
    ask(client, session, 5)
    assert bring(client, session).status_code == 409


def test_a_picture_is_in_the_record_by_its_index(serve, tmp_path):
    client = serve([[{"a star": 0.1}, {"a star": 0.8}]], policy=written(tmp_path, rising=RISING))
    bring(client, opened(client)["session"], 2)
    records = [record for record in serve.records if record["event"] == "query.input"]
    assert [(record["input"], record["action"], record["answered"]) for record in records] == [
        (0, "pass", True),
        (1, "pass", True),
    ]


def test_pictures_are_counted(serve, tmp_path):
    client = serve([{"a star": 0.9}], policy=written(tmp_path, BLOCKING))
    bring(client, opened(client)["session"])
    assert 'dnp_guard_inputs_total{action="block",policy="edits"} 1.0' in client.get("/metrics").text


def test_the_client_shows_them_and_hears_that_the_request_is_over(service, tmp_path):
    client = service("{a star: 0.9}", policy=written(tmp_path, BLOCKING))
    session = client.open(images=1, steps=25, host=Host(name="mine"), inputs=True)
    assert [report.action for report in session.inputs([Image.new("RGB", (16, 16))])] == ["block"]
    assert session.over


def test_the_client_sends_no_newer_key_to_a_service_that_does_not_know_it(service, monkeypatch):
    client, sent = service(), []
    monkeypatch.setattr(client, "features", lambda: ())
    send = client.connection.send
    monkeypatch.setattr(client.connection, "send", lambda *args, **tries: sent.append(args[1]) or send(*args, **tries))
    session = client.open(images=1, steps=25, host=Host(name="mine"), inputs=True)
    assert sent[0].can is None
    assert session.inputs([]) == []
