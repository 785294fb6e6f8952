from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dnp_guard.errors import VlmBadAnswer, VlmBusy, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.testing import BackendContract
from dnp_guard.vlm import ScriptedBackend

if TYPE_CHECKING:
    from pathlib import Path


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self) -> ScriptedBackend:
        return ScriptedBackend({"star": 0.9, "skull": 0.2})


class TestContractOfAFunction(BackendContract):
    @pytest.fixture
    def backend(self) -> ScriptedBackend:
        return ScriptedBackend(lambda images, questions: [[len(q) / 100 for q in questions] for _ in images])


def picture() -> Image.Image:
    return Image.new("RGB", (4, 4))


def one(backend: ScriptedBackend, question: str) -> float:
    return backend.ask([picture()], [question])[0][0]


def test_looks_are_answered_in_turn_and_the_last_repeats() -> None:
    backend = ScriptedBackend([{"star": 0.1}, {"star": 0.9}, {"star": 0.3}])
    assert [one(backend, "a star?") for _ in range(5)] == [0.1, 0.9, 0.3, 0.3, 0.3]


def test_a_look_may_differ_by_image() -> None:
    backend = ScriptedBackend([[{"star": 0.9}, {"bolt": 0.8}]])
    assert backend.ask([picture(), picture()], ["a star?", "a bolt?"]) == [[0.9, 0.0], [0.0, 0.8]]


def test_an_image_that_the_look_lacks_is_an_error() -> None:
    with pytest.raises(VlmBadAnswer, match="has 1 images"):
        ScriptedBackend([[{"star": 0.9}]]).ask([picture(), picture()], ["a star?"])


def test_new_questions_about_some_pictures_of_a_look_belong_to_that_look() -> None:
    backend = ScriptedBackend([[{"star": 0.1}, {"star": 0.9, "drawing": 0.7}], {"star": 0.4}])
    first, second = picture(), picture()
    backend.ask([first, second], ["a star?"])
    assert backend.ask([second], ["Is this a drawing?"]) == [[0.7]]
    assert backend.ask([first], ["Is this a drawing?"]) == [[0.0]]
    assert backend.ask([first, second], ["a star?"]) == [[0.4], [0.4]]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Is there a star in this image?", 0.1),
        ("Is there a star sign in this image?", 0.2),
        ("Is there a red star sign in this image?", 0.3),
        ("Is there a starfish in this image?", 0.0),
        ("Is there a Star in this image?", 0.1),
        ("Is there a star? (Not a red star sign.)", 0.1),
        ("Is there C++ in this image?", 0.6),
        ("Is there anything else?", 0.0),
    ],
)
def test_a_question_is_known_by_the_words_it_holds(question: str, expected: float) -> None:
    assert (
        one(ScriptedBackend({"sign": 0.5, "star": 0.1, "star sign": 0.2, "red star sign": 0.3, "C++": 0.6}), question)
        == expected
    )


@given(st.permutations(["gun", "toy gun", "a toy gun", "gun shop"]))
def test_the_order_of_terms_does_not_matter(terms: list[str]) -> None:
    values = {"gun": 0.1, "toy gun": 0.2, "a toy gun": 0.3, "gun shop": 0.4}
    backend = ScriptedBackend({term: values[term] for term in terms})
    asked = ["the gun?", "the toy gun?", "Is there a toy gun?", "the gun shop?"]
    assert backend.ask([picture()], asked) == [[0.1, 0.2, 0.3, 0.4]]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timeout", VlmTimeout),
        ("busy", VlmBusy),
        ("bad_answer", VlmBadAnswer),
        ("unavailable", VlmUnavailable),
        ("error", VlmError),
    ],
)
def test_a_look_may_fail_and_the_next_one_answer(kind: str, error: type[VlmError]) -> None:
    backend = ScriptedBackend([{"error": kind}, {"star": 0.5}])
    with pytest.raises(VlmError) as caught:
        one(backend, "a star?")
    assert type(caught.value) is error
    assert one(backend, "a star?") == 0.5


def test_a_look_may_be_an_exception_to_raise() -> None:
    error = RuntimeError("CUDA error")
    with pytest.raises(RuntimeError) as caught:
        one(ScriptedBackend([error]), "a star?")
    assert caught.value is error


def test_a_term_may_be_called_error() -> None:
    assert one(ScriptedBackend({"error": 0.5}), "an error message?") == 0.5


SCRIPT: list[Any] = [{"star": 0.1}, [{"star": 0.9}], {"error": "timeout"}]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_script_is_read_from_yaml_or_json(tmp_path: Path, suffix: str) -> None:
    text = json.dumps(SCRIPT) if suffix == "json" else "- {star: 0.1}\n- [{star: 0.9}]\n- error: timeout\n"
    path = tmp_path / f"script.{suffix}"
    path.write_text(text)
    backend = ScriptedBackend(path)
    assert [one(backend, "a star?") for _ in range(2)] == [0.1, 0.9]
    with pytest.raises(VlmTimeout):
        one(backend, "a star?")


def test_the_revision_follows_the_content() -> None:
    first, again, other = (ScriptedBackend({"star": p}).revision for p in (0.1, 0.1, 0.2))
    assert first == again != other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list of looks"),
        ("[]", "list of looks"),
        ("hello", "list of looks"),
        ("- hello", "look 0: 'hello' is not a look"),
        ("- {star: 0.5}\n- {star: 1.5}", "look 1"),
        ("- {star: true}", "'star': True"),
        ("- {star: '0.5'}", "'star': '0.5'"),
        ("- {3: 0.5}", "3: 0.5"),
        ("- [{star: 0.5}, 3]", "look 0, image 1"),
        ("- {error: sometimes}", "unknown error 'sometimes'"),
        ("- {error: timeout, star: 0.5}", "unknown error"),
        ("- {star: 0.5", "script.yaml:1:"),
        ("- {star: 0.5, star: 0.6}", "script.yaml:1:"),
    ],
)
def test_a_file_that_is_no_script_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(VlmUnavailable) as caught:
        ScriptedBackend(path)
    assert message in caught.value.message


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(VlmUnavailable, match=r"none\.yaml"):
        ScriptedBackend(tmp_path / "none.yaml")
