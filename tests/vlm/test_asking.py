from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dnp_guard.errors import VlmBadAnswer, VlmBusy, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.vlm import Asker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGES = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "red")]
QUESTIONS = ["Is there a star?", "Is there a bolt?"]
PATIENT = 60_000
"""A deadline that no test comes near."""


class Steady:
    """Answers a half to everything, and remembers the thread it was asked on."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        self.threads.append(threading.current_thread())
        return [[0.5] * len(questions) for _ in images]


class Stuck(Steady):
    """Answers only when released; ``entered`` says that it is computing."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released, self.returned = threading.Event(), threading.Event(), threading.Event()

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        self.entered.set()
        assert self.released.wait(60)
        try:
            return super().ask(images, questions)
        finally:
            self.returned.set()


class Raising:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        raise self.error


class Returning:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> object:
        return self.answer


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    backend = Stuck()
    yield backend
    backend.released.set()


both = pytest.mark.parametrize("deadline_ms", [None, PATIENT], ids=["inline", "deadline"])


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dnp-guard-ask"]


@both
def test_answers_come_with_the_time_they_took(deadline_ms: int | None) -> None:
    answers = Asker(Steady(), deadline_ms).ask(IMAGES, QUESTIONS)
    assert answers.probabilities == ((0.5, 0.5), (0.5, 0.5))
    assert answers.latency_ms > 0


def test_without_a_deadline_the_backend_runs_in_the_callers_thread() -> None:
    backend = Steady()
    Asker(backend).ask(IMAGES, QUESTIONS)
    assert backend.threads == [threading.current_thread()]


def test_with_a_deadline_a_call_runs_on_a_daemon_thread_that_ends_with_it() -> None:
    backend = Steady()
    asker = Asker(backend, PATIENT)
    asker.ask(IMAGES, QUESTIONS)
    asker.ask(IMAGES, QUESTIONS)
    for thread in backend.threads:
        assert thread.daemon
        assert thread is not threading.current_thread()
        thread.join(PATIENT / 1000)
        assert not thread.is_alive()


@pytest.mark.parametrize(("images", "questions", "expected"), [([], QUESTIONS, ()), (IMAGES, [], ((), ()))])
def test_with_nothing_to_ask_the_backend_is_not_called(
    images: list[Image.Image], questions: list[str], expected: tuple[tuple[float, ...], ...]
) -> None:
    assert Asker(Raising(AssertionError("called"))).ask(images, questions).probabilities == expected


@both
def test_a_bad_answer_is_an_error_of_its_own(deadline_ms: int | None) -> None:
    with pytest.raises(VlmBadAnswer):
        Asker(Returning([[0.5]]), deadline_ms).ask(IMAGES, QUESTIONS)  # type: ignore[arg-type]


@both
def test_what_a_backend_raises_becomes_a_vlm_error_with_its_message_and_cause(deadline_ms: int | None) -> None:
    cause = RuntimeError("out of memory on device 0")
    with pytest.raises(VlmError, match="out of memory on device 0") as caught:
        Asker(Raising(cause), deadline_ms).ask(IMAGES, QUESTIONS)
    assert caught.value.__cause__ is cause
    assert caught.value.reason == "vlm_error"


@both
def test_a_vlm_error_of_the_backend_passes_as_it_is(deadline_ms: int | None) -> None:
    error = VlmUnavailable("the endpoint is down")
    with pytest.raises(VlmUnavailable) as caught:
        Asker(Raising(error), deadline_ms).ask(IMAGES, QUESTIONS)
    assert caught.value is error


@both
def test_a_timeout_of_the_backends_own_is_a_timeout(deadline_ms: int | None) -> None:
    asker = Asker(Raising(TimeoutError("read timed out")), deadline_ms)
    for _ in range(2):  # and leaves nothing running that a second question would find
        with pytest.raises(VlmTimeout, match="read timed out"):
            asker.ask(IMAGES, QUESTIONS)


def test_past_the_deadline_the_caller_is_told_so(stuck: Stuck) -> None:
    with pytest.raises(VlmTimeout, match="20 ms"):
        Asker(stuck, 20).ask(IMAGES, QUESTIONS)


def test_until_a_late_call_returns_further_questions_are_refused(stuck: Stuck) -> None:
    asker = Asker(stuck, 20)
    with pytest.raises(VlmTimeout):
        asker.ask(IMAGES, QUESTIONS)
    with pytest.raises(VlmBusy):
        asker.ask(IMAGES, QUESTIONS)
    assert stuck.threads == []


def test_once_a_late_call_has_returned_questions_are_answered_again(stuck: Stuck) -> None:
    asker = Asker(stuck, 20)
    with pytest.raises(VlmTimeout):
        asker.ask(IMAGES, QUESTIONS)
    stuck.released.set()
    assert asker._late is not None
    asker._late.result(60)
    asker.deadline_ms = PATIENT
    assert asker.ask(IMAGES, QUESTIONS).probabilities == ((0.5, 0.5), (0.5, 0.5))


def test_a_call_that_waits_behind_another_is_taken_back_at_its_deadline(stuck: Stuck) -> None:
    asker = Asker(stuck, PATIENT)
    first = threading.Thread(target=asker.ask, args=(IMAGES, QUESTIONS))
    first.start()
    assert stuck.entered.wait(60)
    asker.deadline_ms = 20
    with pytest.raises(VlmTimeout):
        asker.ask(IMAGES, QUESTIONS)
    stuck.released.set()
    first.join(60)
    asker.deadline_ms = PATIENT
    asker.ask(IMAGES, QUESTIONS)
    assert len(stuck.threads) == 2  # the first call and the last; never the one taken back


def test_many_threads_get_their_own_answers() -> None:
    class Widths:
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            return [[1 / image.width] * len(questions) for image in images]

    asker = Asker(Widths(), PATIENT)
    found: dict[int, float] = {}

    def ask(width: int) -> None:
        found[width] = asker.ask([Image.new("RGB", (width, 1))], ["?"]).probabilities[0][0]

    threads = [threading.Thread(target=ask, args=(width,)) for width in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {width: 1 / width for width in range(1, 17)}


def test_the_backend_sees_the_callers_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default=0.0)

    class Reading:
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            return [[variable.get()]]

    variable.set(0.75)
    assert Asker(Reading(), PATIENT).ask(IMAGES[:1], QUESTIONS[:1]).probabilities == ((0.75,),)


def test_an_asker_that_was_never_asked_has_no_thread() -> None:
    before = workers()
    asker = Asker(Steady(), PATIENT)
    assert [thread for thread in workers() if thread not in before] == []
    asker.close()


def test_closing_does_not_wait_for_a_late_call_which_ends_the_thread_itself(stuck: Stuck) -> None:
    asker = Asker(stuck, 20)
    with pytest.raises(VlmTimeout):
        asker.ask(IMAGES, QUESTIONS)
    asker.close()
    assert not stuck.returned.is_set()
    stuck.released.set()
    assert stuck.returned.wait(60)
    stuck.threads[0].join(60)
    assert not stuck.threads[0].is_alive()


@both
def test_a_closed_asker_asks_no_more(deadline_ms: int | None) -> None:
    asker = Asker(Steady(), deadline_ms)
    asker.close()
    asker.close()
    with pytest.raises(VlmError, match="closed"):
        asker.ask(IMAGES, QUESTIONS)
