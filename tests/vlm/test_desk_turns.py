"""Tenants take turns at a desk, the queue of queries to a vision-language model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from PIL import Image

from dnp_guard.errors import VlmBusy, VlmTimeout
from dnp_guard.vlm import Backend, Desk
from tests.waiting import wait_until


class Letting(Backend):
    """A model that waits until the test releases it, and notes the widths of every call's pictures."""

    def __init__(self):
        self.calls, self.began, self.go = [], Event(), Event()

    def ask(self, images, questions):
        self.calls.append([image.width for image in images])
        self.began.set()
        assert self.go.wait(60)
        return [[0.5] * len(questions) for _ in images]


GREEDY, MODEST = 1, 2
"""Maps tenants to the width of their pictures."""


def crowd(desk, pool, *tenants, **query):
    """Send one query per listed tenant to a desk, so that they wait in this order; return their futures."""
    asked = []
    for tenant in tenants:
        before = desk.waiting
        asked.append(pool.submit(desk.ask, [Image.new("L", (tenant, 1))], ["q"], turn=tenant, **query))
        wait_until(lambda before=before: desk.waiting > before or asked[-1].done())
    return asked


@pytest.mark.parametrize("deadline_ms", [None, 60_000])
def test_one_question_is_next_though_another_tenant_has_many_in_line(deadline_ms):
    backend = Letting()
    desk = Desk(backend)
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(desk.ask, [Image.new("L", (GREEDY, 1))], ["q"], turn=GREEDY, deadline_ms=deadline_ms)
        assert backend.began.wait(60)
        asked = crowd(desk, pool, *[GREEDY] * 8, MODEST, deadline_ms=deadline_ms)
        backend.go.set()
        for answer in (first, *asked):
            answer.result(60)
    assert backend.calls.index([MODEST]) == 2  # it follows the running call, and one call of the greedy tenant


def test_a_tenant_whose_line_is_full_is_refused_and_another_is_not(monkeypatch):
    monkeypatch.setattr("dnp_guard.vlm.waiting.MOST_WAITING", 3)
    backend = Letting()
    desk = Desk(backend)
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(desk.ask, [Image.new("L", (GREEDY, 1))], ["q"], turn=GREEDY)
        assert backend.began.wait(60)
        asked = crowd(desk, pool, *[GREEDY] * 3)
        with pytest.raises(VlmBusy, match="wait for the vision-language model"):
            desk.ask([Image.new("L", (GREEDY, 1))], ["q"], turn=GREEDY)
        asked += crowd(desk, pool, MODEST)
        backend.go.set()
        assert all(answer.result(60).probabilities == ((0.5,),) for answer in (first, *asked))


def test_tenants_that_ask_the_same_share_a_call():
    backend = Letting()
    backend.batches = True
    desk = Desk(backend)
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(desk.ask, [Image.new("L", (GREEDY, 1))], ["q"], turn=GREEDY)
        assert backend.began.wait(60)
        asked = crowd(desk, pool, GREEDY, GREEDY, MODEST)
        backend.go.set()
        for answer in (first, *asked):
            answer.result(60)
    assert [sorted(call) for call in backend.calls] == [[GREEDY], [GREEDY, GREEDY, MODEST]]


def test_who_has_gone_is_not_asked_for_again_when_a_shared_call_fails():
    gone = Event()

    class Failing(Letting):
        batches = True

        def ask(self, images, questions):
            answers = super().ask(images, questions)
            if len(images) > 1:
                assert gone.wait(60)
                raise RuntimeError("too many")
            return answers

    backend = Failing()
    desk = Desk(backend)
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(desk.ask, [Image.new("L", (GREEDY, 1))], ["q"], turn=GREEDY)
        assert backend.began.wait(60)
        (patient,) = crowd(desk, pool, GREEDY)
        (hasty,) = crowd(desk, pool, MODEST, deadline_ms=1000)
        backend.go.set()
        with pytest.raises(VlmTimeout):
            hasty.result(60)
        gone.set()
        assert first.result(60).probabilities == patient.result(60).probabilities == ((0.5,),)
    assert backend.calls == [[GREEDY], [GREEDY, MODEST], [GREEDY]]
