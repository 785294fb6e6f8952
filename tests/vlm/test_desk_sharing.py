from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, current_thread

import pytest
from PIL import Image

from dnp_guard.errors import VlmError, VlmTimeout
from dnp_guard.vlm import Desk
from tests.waiting import wait_until


class Gated:
    """A model that answers with the brightness of every image; its first call waits until it is released."""

    batches = True

    def __init__(self, spoilt=None):
        self.calls, self.threads = [], []
        self.began, self.go = Event(), Event()
        self.spoilt = spoilt

    def ask(self, images, questions):
        self.calls.append((len(images), tuple(questions)))
        self.threads.append(current_thread())
        self.began.set()
        if len(self.calls) == 1:
            assert self.go.wait(10)
        values = [image.getpixel((0, 0)) for image in images]
        if self.spoilt in values:
            raise VlmError("a picture that cannot be read")
        return [[value / 255] * len(questions) for value in values]


def grey(value):
    return Image.new("L", (4, 4), value)


def together(backend, jobs, deadline_ms=5000):
    """Send the first query to a desk, and all others while it is being answered; return answers or errors in order.

    Args:
        backend: the model.
        jobs: per query, the brightness of its picture and its questions.
        deadline_ms: deadline of the queries.
    """
    desk = Desk(backend)

    def ask(job):
        value, questions = job
        try:
            return desk.ask([grey(value)], questions, deadline_ms=deadline_ms).probabilities
        except VlmError as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        first = pool.submit(ask, jobs[0])
        assert backend.began.wait(10)
        others = [pool.submit(ask, job) for job in jobs[1:]]
        wait_until(lambda: desk.waiting == len(others))
        backend.go.set()
        answers = [answer.result(10) for answer in (first, *others)]
    desk.close()
    return answers


def test_what_arrives_while_a_call_runs_is_answered_by_one_more():
    backend = Gated()
    answers = together(backend, [(value, ("q",)) for value in (0, 51, 102, 153, 204)])
    assert [count for count, _ in backend.calls] == [1, 4]
    assert [answer[0][0] for answer in answers] == [0, 0.2, 0.4, 0.6, 0.8]


def test_other_questions_are_not_put_about_another_generations_picture():
    backend = Gated()
    together(backend, [(0, ("q",)), (1, ("a",)), (2, ("b",)), (3, ("a",))])
    assert sorted(backend.calls[1:]) == [(1, ("b",)), (2, ("a",))]


def test_first_come_is_first_served():
    backend = Gated()
    together(backend, [(0, ("q",)), (1, ("a",)), (2, ("b",)), (3, ("c",))])
    assert sorted(questions for _, questions in backend.calls[1:]) == [("a",), ("b",), ("c",)]
    assert len(backend.calls) == 4


def test_one_picture_that_cannot_be_read_fails_its_own_question_only():
    backend = Gated(spoilt=51)
    _, bad, good = together(backend, [(0, ("q",)), (51, ("q",)), (102, ("q",))])
    assert isinstance(bad, VlmError)
    assert good == ((0.4,),)


def test_a_generation_alone_makes_its_calls_itself_and_waits_for_no_company():
    backend = Gated()
    backend.go.set()
    desk = Desk(backend)
    for value in (0, 51):
        desk.ask([grey(value)], ["q"])
    desk.close()
    assert backend.threads == [current_thread()] * 2


def test_a_deadline_bounds_a_wait_in_line():
    backend = Gated()
    desk = Desk(backend)
    with pytest.raises(VlmTimeout):
        desk.ask([grey(0)], ["q"], deadline_ms=30)
    backend.go.set()
    desk.close()


def test_many_generations_get_their_own_answers():
    backend = Gated()
    backend.go.set()
    desk, start = Desk(backend), Barrier(8)

    def generation(value):
        start.wait(10)
        return [desk.ask([grey(value)], ["q"]).probabilities[0][0] for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(generation, range(0, 240, 30)))
    desk.close()
    assert answers == [[value / 255] * 20 for value in range(0, 240, 30)]
    assert sum(count for count, _ in backend.calls) == 160
