from __future__ import annotations

import json
import math

import pytest
from PIL import Image

from dnp_guard.errors import VlmBadAnswer, VlmChanged, VlmError, VlmUnavailable
from dnp_guard.testing import BackendContract
from dnp_guard.vlm.canary import watched
from dnp_guard.vlm.remote.chat import ChatBackend, Noise, from_json, from_logprobs, from_text
from tests.vlm import fault_server as faults


@pytest.fixture
def server():
    with faults.running() as started:
        yield started


@pytest.fixture
def picture():
    return Image.new("RGB", (40, 20), (200, 30, 30))


def saying(text: str, logprobs: object = None):
    choice = {"message": {"content": text}, "logprobs": logprobs}
    return faults.replied(json.dumps({"choices": [choice]}).encode())


def only_when(key: str, then, otherwise):
    """Return a fault that answers with ``then`` if the request has a key, and with ``otherwise`` if not."""

    def fault(server, connection, body):
        (then if key in json.loads(body) else otherwise)(server, connection, body)

    return fault


@pytest.fixture
def backend(server):
    made = ChatBackend("m", [server.url])
    yield made
    made.close()


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self, backend):
        return backend


def test_log_probabilities_are_used_where_the_server_gives_them(server, backend, picture):
    assert backend.mode == "logprobs"
    assert backend.answers == "probabilities"
    assert backend.ask([picture], ["a?"])[0][0] == pytest.approx(0.25)


def test_a_schema_is_used_where_the_server_honours_it(server, picture):
    server.fault = only_when("response_format", saying('{"answer": "yes"}'), saying("Yes."))
    backend = ChatBackend("m", [server.url])
    assert backend.mode == "structured"
    assert backend.answers == "text"
    assert backend.ask([picture], ["a?"]) == [[1.0]]
    backend.close()


def test_text_is_read_where_the_server_does_neither(server, picture):
    server.fault = saying("No, there is none.")
    backend = ChatBackend("m", [server.url])
    assert backend.mode == "text"
    assert backend.answers == "text"
    assert backend.ask([picture], ["a?"]) == [[0.0]]
    backend.close()


def test_a_server_that_refuses_an_option_is_asked_without_it(server):
    server.fault = only_when("logprobs", faults.status("400 Bad Request"), saying("yes"))
    backend = ChatBackend("m", [server.url])
    assert backend.mode == "text"
    backend.close()


def test_a_server_that_says_neither_is_unavailable(server):
    server.fault = saying("I cannot help with that.")
    with pytest.raises(VlmUnavailable, match="neither"):
        ChatBackend("m", [server.url])


def test_every_question_about_every_picture_is_a_request_of_its_own(server, backend, picture):
    server.requests.clear()
    backend.ask([picture] * 2, ["a?", "b?", "c?"])
    asked = [json.loads(request)["messages"][0]["content"] for request in server.requests]
    assert [[part["type"] for part in content] for content in asked] == [["image_url", "text"]] * 6
    assert all(content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,") for content in asked)


def tops(**words):
    listed = [{"token": token, "logprob": math.log(p)} for token, p in words.items()]
    return {"logprobs": {"content": [{"top_logprobs": listed}]}}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"Yes": 0.6, " no": 0.2}, 0.75),
        ({"\u2581Yes": 0.9, "\u2581No": 0.09, "No": 0.001}, 0.9 / 0.991),
        ({"\u0120yes": 0.5, "\u010ano": 0.25, '"No"': 0.25}, 0.5),
        ({"yes": 0.2, " Yes": 0.2, "YES": 0.2, "No": 0.2, "maybe": 0.2}, 0.75),
        ({"yes": 0.6}, 1.0),
        ({"no": 0.6, "nobody": 0.4}, 0.0),
    ],
)
def test_every_spelling_of_the_two_words_counts(words, expected):
    assert from_logprobs(tops(**words)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"logprobs": None},
        {"logprobs": {"content": []}},
        tops(maybe=0.9),
        {"logprobs": {"content": [{"top_logprobs": [{"token": "yes", "logprob": float("nan")}]}]}},
        {"logprobs": {"content": [{"top_logprobs": [{"token": "yes", "logprob": 0.7}]}]}},
        {"logprobs": {"content": [{"top_logprobs": [{"token": "yes", "logprob": "0"}]}]}},
    ],
)
def test_log_probabilities_that_are_none_are_no_answer(choice):
    with pytest.raises(VlmBadAnswer):
        from_logprobs(choice)


def message(content: object) -> dict:
    return {"message": {"content": content}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("yes", 1.0), ("Yes.", 1.0), (" **No**", 0.0), ("no no no no", 0.0), ("No, it is a ring", 0.0)],
)
def test_a_text_that_begins_with_one_of_the_words_is_read(text, expected):
    assert from_text(message(text)) == expected


@pytest.mark.parametrize("text", ["", "maybe", "yes and no", "Answer: yes", "nothing", None, 3, ["yes"]])
def test_any_other_text_is_no_answer(text):
    with pytest.raises(VlmBadAnswer):
        from_text(message(text))


@pytest.mark.parametrize("text", ["yes", '{"answer": "maybe"}', '{"answer": true}', "[]", '{"answer": ["yes"]}'])
def test_a_json_of_another_schema_is_no_answer(text):
    with pytest.raises(VlmBadAnswer):
        from_json(message(text))


@pytest.mark.parametrize(
    "name", ["500", "404", "200 with HTML", "wrong JSON", "another JSON", "truncated", "50 MB body"]
)
def test_a_fault_is_an_error_of_ours(server, backend, picture, name):
    server.fault, reason = faults.FAULTS[name]
    with pytest.raises(VlmError) as raised:
        backend.ask([picture], ["a?"])
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    "words", [{"<think>": 0.99, "yes": 1e-7, "no": 3e-7}, {"I": 0.99, "yes": 2e-6}, {"yes": 0.3, "no": 0.2}]
)
def test_probabilities_made_of_noise_are_no_answer(words):
    with pytest.raises(Noise, match="of the probability"):
        from_logprobs(tops(**words))


def saying_first(**words):
    return faults.replied(json.dumps({"choices": [tops(**words) | {"message": {"content": "I think"}}]}).encode())


def test_a_thinking_model_is_asked_without_thinking_where_the_server_allows_it(server, picture):
    thinking, answering = saying_first(**{"<think>": 0.99, "yes": 1e-7, "no": 3e-7}), saying_first(yes=0.9, no=0.1)
    server.fault = only_when("chat_template_kwargs", answering, thinking)
    backend = ChatBackend("m", [server.url])
    assert backend.mode == "logprobs"
    assert backend.ask([picture], ["a?"])[0][0] == pytest.approx(0.9)
    assert json.loads(server.requests[-1])["chat_template_kwargs"] == {"enable_thinking": False}
    backend.close()


def test_a_thinking_model_that_cannot_do_without_is_refused_with_what_to_set(server):
    server.fault = saying_first(**{"<think>": 0.99, "yes": 1e-7, "no": 3e-7})
    with pytest.raises(VlmUnavailable, match="4e-07 of the probability") as raised:
        ChatBackend("m", [server.url])
    assert "enable_thinking: false" in raised.value.hint


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "top_logprobs must be at most 5\x1b[2J", "type": "invalid"}},
        {"error": "top_logprobs must be at most 5[2J"},
        {"message": "top_logprobs must be at most 5[2J"},
    ],
)
def test_why_a_server_refuses_the_trial_is_told_in_its_words(server, document):
    content = json.dumps(document).encode()
    head = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
    server.fault = lambda _, connection, __: connection.sendall(head + content)
    with pytest.raises(VlmUnavailable, match=r'HTTP 400 Bad Request: "top_logprobs must be at most 5\[2J"'):
        ChatBackend("m", [server.url])


def test_a_server_that_quotes_the_key_is_not_quoted(server, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_VLM_KEY", "hunter2")
    content = b'{"error": {"message": "Incorrect API key: hunter2"}}'
    head = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
    server.fault = lambda _, connection, __: connection.sendall(head + content)
    with pytest.raises(VlmUnavailable, match="HTTP 401 Unauthorized") as raised:
        ChatBackend("m", [server.url])
    assert "hunter2" not in str(raised.value)


def answer_with(**of_model):
    """Return a fault that adds fields about the server's model, such as its fingerprint, to the correct answer."""

    def fault(server, connection, body):
        faults.replied(json.dumps({**faults.answer_of(body), **of_model}).encode())(server, connection, body)

    return fault


@pytest.mark.parametrize("first", [{"system_fingerprint": "fp_1", "model": "m-1"}, {"model": "m-1"}])
@pytest.mark.parametrize("then", [{"system_fingerprint": None, "model": "m-1"}, {"model": "m-1"}, {"model": None}])
def test_what_a_server_leaves_out_at_times_is_not_another_model(server, picture, first, then):
    server.fault = answer_with(**first)
    backend = watched(ChatBackend("m", [server.url]))
    revision = backend.info.revision
    server.fault = answer_with(**then)
    backend.ask([picture], ["a?"])
    server.fault = answer_with(**first)
    backend.ask([picture], ["a?"])
    assert backend.info.revision == revision == next(iter(first.values()))
    backend.close()


def test_another_fingerprint_is_another_model(server, picture):
    server.fault = answer_with(system_fingerprint="fp_1")
    backend = watched(ChatBackend("m", [server.url]))
    server.fault = answer_with(system_fingerprint="fp_2")
    with pytest.raises(VlmChanged, match="fp_2"):
        backend.ask([picture], ["a?"])
    backend.close()
