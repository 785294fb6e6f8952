from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from dnp_guard.errors import VlmBadAnswer, VlmError, VlmUnavailable
from dnp_guard.testing import BackendContract
from dnp_guard.vlm.remote.decisions import DecisionsBackend, SystemOneBackend
from tests.vlm import fault_server as faults

KINDS = {"systemone": SystemOneBackend, "decisions": DecisionsBackend}


@pytest.fixture
def server():
    with faults.running() as started:
        yield started


@pytest.fixture(params=KINDS)
def backend(request, server):
    made = KINDS[request.param]("m", [server.url])
    server.requests.clear()
    yield made
    made.close()


@pytest.fixture
def picture():
    return Image.new("RGB", (40, 20), (200, 30, 30))


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self, backend):
        return backend


def test_every_picture_is_a_request_of_its_own(server, backend, picture):
    assert backend.ask([picture] * 3, ["a?", "b?"]) == [[0.25, 0.25]] * 3
    assert len(server.requests) == 3


def test_many_questions_are_asked_in_parts(server, backend, picture):
    assert backend.ask([picture], [f"{i}?" for i in range(100)]) == [[0.25] * 100]
    assert len(server.requests) == 2


def test_a_picture_goes_as_a_jpeg_in_a_data_url(server, backend, picture):
    backend.ask([picture], ["a?"])
    (request,) = map(json.loads, server.requests)
    if "assets" in request:
        ((name, asset),) = request["assets"].items()
        assert request["state"] == name
        url = asset["data_base64"]
    else:
        url = request["input"][0]["content"][0]["image_url"]
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 20)


def test_a_question_cannot_name_the_picture(server, picture):
    backend = SystemOneBackend("m", [server.url])
    backend.ask([picture], ["what is <picture-0>?"])
    backend.close()
    assert json.loads(server.requests[-1])["state"] == "<picture-1>"


@pytest.mark.parametrize(
    "name", [name for name, (_, reason) in faults.FAULTS.items() if reason in {"vlm_bad_answer", "vlm_error"}]
)
def test_a_fault_is_an_error_of_ours(server, picture, name):
    backend = SystemOneBackend("m", [server.url])
    server.fault, reason = faults.FAULTS[name]
    with pytest.raises(VlmError) as raised:
        _checked(backend.ask([picture], ["a?", "b?"]))
    backend.close()
    assert raised.value.reason == reason


def _checked(answer):
    from dnp_guard.vlm.answers import probabilities

    return probabilities(answer, 1, 2)


def test_a_refusal_to_answer_is_no_answer(server, picture):
    backend = DecisionsBackend("m", [server.url])
    server.fault = faults.changed(lambda right: right | {"answers": [{"type": "refusal", "name": "q0"}]})
    with pytest.raises(VlmBadAnswer, match="refusal"):
        backend.ask([picture], ["a?"])
    backend.close()


def test_answers_in_another_order_are_not_taken_for_each_other(server, picture):
    backend = DecisionsBackend("m", [server.url])
    server.fault = faults.changed(lambda right: right | {"answers": right["answers"][::-1]})
    with pytest.raises(VlmBadAnswer, match="another question"):
        backend.ask([picture], ["a?", "b?"])
    backend.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_cannot_answer_is_found_out_at_construction(server, kind):
    server.fault = faults.status("404 Not Found")
    with pytest.raises(VlmUnavailable, match="404"):
        KINDS[kind]("m", [server.url])


@pytest.mark.parametrize("kind", KINDS)
def test_why_a_server_refuses_the_trial_is_told_in_its_words(server, kind):
    content = json.dumps({"error": {"message": "questions must be at most 4\x1b[2J"}}).encode()
    server.fault = faults.status("400 Bad Request", content=content)
    with pytest.raises(VlmUnavailable, match=r'HTTP 400 Bad Request: "questions must be at most 4\[2J"'):
        KINDS[kind]("m", [server.url])


@pytest.mark.parametrize("kind", KINDS)
def test_why_a_server_refuses_a_policys_question_is_not_quoted(server, kind, picture):
    backend = KINDS[kind]("m", [server.url])
    content = json.dumps({"error": {"message": "cannot answer: is there a star?"}}).encode()
    server.fault = faults.status("400 Bad Request", content=content)
    with pytest.raises(VlmError) as raised:
        backend.ask([picture], ["is there a star?"])
    backend.close()
    assert "star" not in f"{raised.value} {raised.value.hint}"


def test_the_model_that_answered_is_the_revision(server, backend, picture):
    server.fault = faults.changed(lambda right: right | {"model": "m@abc"})
    backend.ask([picture], ["a?"])
    assert backend.revision == "m@abc"
