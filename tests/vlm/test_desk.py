from __future__ import annotations

import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dnp_guard import Guard
from dnp_guard.errors import VlmBadAnswer, VlmBusy, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.vlm import Desk, ScriptedBackend, desk_of
from dnp_guard.vlm.worker import NAME
from tests.policies import policy
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dnp_guard.vlm import Asked

IMAGES = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "red")]
QUESTIONS = ["Is there a star?", "Is there a bolt?"]
PATIENT = 60_000
"""A deadline that no test reaches."""


class Steady:
    """A model that answers a probability of one half to everything, and notes the threads of its calls."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        self.threads.append(threading.current_thread())
        return [[0.5] * len(questions) for _ in images]


class Stuck(Steady):
    """A model that answers only after the test has released it; ``entered`` is set when a call begins."""

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
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@both
def test_answers_come_with_the_time_they_took(deadline_ms: int | None) -> None:
    answers = Desk(Steady()).ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)
    assert answers.probabilities == ((0.5, 0.5), (0.5, 0.5))
    assert answers.latency_ms > 0


def test_without_a_deadline_the_backend_runs_in_the_callers_thread() -> None:
    backend = Steady()
    Desk(backend).ask(IMAGES, QUESTIONS)
    assert backend.threads == [threading.current_thread()]


def test_with_a_deadline_a_call_runs_on_a_daemon_thread_that_ends_with_it() -> None:
    backend = Steady()
    desk = Desk(backend)
    desk.ask(IMAGES, QUESTIONS, deadline_ms=PATIENT)
    desk.ask(IMAGES, QUESTIONS, deadline_ms=PATIENT)
    for thread in backend.threads:
        assert thread.daemon
        assert thread is not threading.current_thread()
        thread.join(PATIENT / 1000)
        assert not thread.is_alive()


@pytest.mark.parametrize(("images", "questions", "expected"), [([], QUESTIONS, ()), (IMAGES, [], ((), ()))])
def test_with_nothing_to_ask_the_backend_is_not_called(
    images: list[Image.Image], questions: list[str], expected: tuple[tuple[float, ...], ...]
) -> None:
    assert Desk(Raising(AssertionError("called"))).ask(images, questions).probabilities == expected


@both
def test_a_bad_answer_is_an_error_of_its_own(deadline_ms: int | None) -> None:
    with pytest.raises(VlmBadAnswer):
        Desk(Returning([[0.5]])).ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)  # type: ignore[arg-type]


@both
def test_what_a_backend_raises_becomes_a_vlm_error_with_its_kind_and_cause(deadline_ms: int | None) -> None:
    cause = RuntimeError("out of memory on device 0")
    with pytest.raises(VlmError, match="the backend Raising raised RuntimeError") as caught:
        Desk(Raising(cause)).ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)
    assert caught.value.__cause__ is cause
    assert caught.value.reason == "vlm_error"


@both
def test_a_vlm_error_of_a_backend_of_ones_own_keeps_its_kind_and_not_its_message(deadline_ms: int | None) -> None:
    error = VlmUnavailable("cannot answer 'Is there a star?'")
    with pytest.raises(VlmUnavailable, match="the backend Raising raised VlmUnavailable") as caught:
        Desk(Raising(error)).ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)
    assert caught.value.__cause__ is error


@both
def test_a_vlm_error_of_the_package_passes_as_it_is(tmp_path: Path, deadline_ms: int | None) -> None:
    (tmp_path / "looks.json").write_text('[{"error": "timeout"}]')
    with pytest.raises(VlmTimeout) as caught:
        Desk(ScriptedBackend(tmp_path / "looks.json")).ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)
    assert caught.value.__cause__ is None


@both
def test_a_timeout_of_the_backends_own_is_a_timeout(deadline_ms: int | None) -> None:
    desk = Desk(Raising(TimeoutError("read timed out")))
    for _ in range(2):  # nothing is left running that a second question would meet
        with pytest.raises(VlmTimeout, match="raised TimeoutError"):
            desk.ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)


def test_past_the_deadline_the_caller_is_told_so(stuck: Stuck) -> None:
    with pytest.raises(VlmTimeout, match="20 ms"):
        Desk(stuck).ask(IMAGES, QUESTIONS, deadline_ms=20)


def test_until_a_late_call_returns_further_questions_are_refused(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
    with pytest.raises(VlmBusy, match="missed its deadline"):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
    assert stuck.threads == []


def test_once_a_late_call_has_returned_questions_are_answered_again(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
    stuck.released.set()
    for thread in workers():
        thread.join(60)
    assert desk.ask(IMAGES, QUESTIONS, deadline_ms=20_000).probabilities == ((0.5, 0.5), (0.5, 0.5))


def test_a_late_call_does_not_refuse_who_waits_longer(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20, turn="hasty")
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(desk.ask, IMAGES, QUESTIONS, deadline_ms=patience, turn="patient")
            for patience in (None, PATIENT)
        ]
        wait_until(lambda: desk.waiting == 2)
        stuck.released.set()
        assert [answer.result(60).probabilities for answer in asked] == [((0.5, 0.5), (0.5, 0.5))] * 2


def test_who_has_waited_in_vain_behind_a_late_call_is_refused_from_then_on(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=60)
    with pytest.raises(VlmBusy):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=60)


def test_a_call_that_waits_behind_another_is_taken_back_at_its_deadline(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(desk.ask, IMAGES, QUESTIONS, deadline_ms=PATIENT)
        assert stuck.entered.wait(60)
        with pytest.raises(VlmTimeout):
            desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
        stuck.released.set()
        first.result(60)
    desk.ask(IMAGES, QUESTIONS, deadline_ms=PATIENT)
    assert len(stuck.threads) == 2  # the first call and the last, never the cancelled one


def test_a_question_that_finds_another_running_waits_for_its_turn(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(desk.ask, IMAGES, QUESTIONS)
        assert stuck.entered.wait(60)
        second = pool.submit(desk.ask, IMAGES[:1], QUESTIONS)
        wait_until(lambda: desk.waiting == 1)
        stuck.released.set()
        assert first.result(60).probabilities == ((0.5, 0.5), (0.5, 0.5))
        assert second.result(60).probabilities == ((0.5, 0.5),)


def test_a_backend_that_takes_several_calls_at_once_gets_them() -> None:
    together = threading.Barrier(3)

    class Server(Steady):
        at_once = 3

        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            together.wait(60)  # raises unless three are inside
            return super().ask(images, questions)

    desk = Desk(Server())
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(desk.ask, IMAGES, QUESTIONS, deadline_ms=ms) for ms in (None, PATIENT, PATIENT)]
        assert all(answer.result(60).probabilities for answer in asked)


def test_what_a_backend_raises_to_end_the_process_ends_a_question_only() -> None:
    class Exiting(Steady):
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            raise SystemExit(3)

    with pytest.raises(VlmError, match="raised SystemExit"):
        Desk(Exiting()).ask(IMAGES, QUESTIONS, deadline_ms=PATIENT)


def test_many_threads_get_their_own_answers() -> None:
    class Widths:
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            return [[1 / image.width] * len(questions) for image in images]

    desk = Desk(Widths())
    results: dict[int, float] = {}

    def ask(width: int) -> None:
        results[width] = desk.ask([Image.new("RGB", (width, 1))], ["?"], deadline_ms=PATIENT).probabilities[0][0]

    threads = [threading.Thread(target=ask, args=(width,)) for width in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {width: 1 / width for width in range(1, 17)}


def test_the_backend_sees_the_callers_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default=0.0)

    class Reading:
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            return [[variable.get()]]

    variable.set(0.75)
    assert Desk(Reading()).ask(IMAGES[:1], QUESTIONS[:1], deadline_ms=PATIENT).probabilities == ((0.75,),)


def test_a_desk_that_was_never_asked_has_no_thread() -> None:
    before = workers()
    desk = Desk(Steady())
    assert [thread for thread in workers() if thread not in before] == []
    desk.close()


def test_closing_does_not_wait_for_a_late_call_which_ends_the_thread_itself(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
    desk.close()
    assert not stuck.returned.is_set()
    stuck.released.set()
    assert stuck.returned.wait(60)
    stuck.threads[0].join(60)
    assert not stuck.threads[0].is_alive()


@both
def test_a_closed_desk_asks_no_more(deadline_ms: int | None) -> None:
    desk = Desk(Steady())
    desk.close()
    desk.close()
    with pytest.raises(VlmError, match="closed"):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=deadline_ms)


@pytest.mark.parametrize("kind", [Steady, lambda: ScriptedBackend({})], ids=["any object", "a backend"])
def test_a_backend_has_one_desk_until_all_who_took_it_have_closed_it(kind: Callable[[], Asked]) -> None:
    backend = kind()
    first, second = desk_of(backend), desk_of(backend)
    assert first is second
    first.close()
    assert second.ask(IMAGES, QUESTIONS).probabilities
    second.close()
    with pytest.raises(VlmError, match="closed"):
        second.ask(IMAGES, QUESTIONS)
    assert desk_of(backend).ask(IMAGES, QUESTIONS).probabilities


def test_closing_a_desk_of_ones_own_leaves_the_shared_one() -> None:
    backend = Steady()
    shared = desk_of(backend)
    Desk(backend).close()
    assert desk_of(backend) is shared


def test_two_backends_have_two_desks_though_they_are_equal() -> None:
    @dataclass
    class Equal(Steady):
        number: int = 0

        def __post_init__(self) -> None:
            super().__init__()

    assert desk_of(Equal()) is not desk_of(Equal())


def test_guards_of_one_backend_share_its_desk_and_closing_one_leaves_it_to_the_other() -> None:
    backend = Steady()
    hasty = Guard(policy(queries={"deadline_ms": 50}), vlm=backend, tenant="a")
    other = Guard(policy(), vlm=backend, tenant="b")
    assert hasty.desk is other.desk
    hasty.close()
    hasty.close()
    assert other.desk.ask(IMAGES, QUESTIONS).probabilities
    other.close()
    assert other.desk.closed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_asks_with_threads_of_its_own(stuck: Stuck) -> None:
    desk = Desk(stuck)
    with pytest.raises(VlmTimeout):
        desk.ask(IMAGES, QUESTIONS, deadline_ms=20)
    child = os.fork()
    if child == 0:
        stuck.released.set()
        answered = desk.ask(IMAGES, QUESTIONS, deadline_ms=20_000).probabilities == ((0.5, 0.5), (0.5, 0.5))
        os._exit(0 if answered else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_backend_that_draws_on_a_picture_changes_its_own_copy() -> None:
    class Drawing(Steady):
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
            images[0].paste("blue", (0, 0, 4, 4))
            return super().ask(images, questions)

    shown = Image.new("RGB", (4, 4), "red")
    Desk(Drawing()).ask([shown], QUESTIONS)
    assert shown.getpixel((0, 0)) == (255, 0, 0)
