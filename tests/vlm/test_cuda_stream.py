import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from PIL import Image

from dnp_guard.errors import VlmBusy, VlmError
from dnp_guard.vlm.cuda_stream import beside, own_stream
from dnp_guard.vlm.desk import Desk
from dnp_guard.vlm.scripted import ScriptedBackend
from dnp_guard.vlm.waiting import MOST_WAITING


@pytest.fixture
def streams(monkeypatch):
    """Replace torch by a stand-in with CUDA, and return the list of CUDA streams that the code enters."""
    entered = []

    @contextmanager
    def stream(which):
        entered.append(which)
        yield

    cuda = SimpleNamespace(is_available=lambda: True, Stream=object, stream=stream)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    return entered


def asks(call):
    with own_stream():
        return call()


def test_a_call_beside_a_generation_has_a_stream_of_its_own(streams):
    assert beside(lambda: asks(lambda: "answer")) == "answer"
    assert len(streams) == 1


def test_a_call_that_is_waited_for_stays_on_the_callers_stream(streams):
    asks(lambda: "answer")
    assert streams == []


def test_after_a_call_beside_it_the_next_is_not(streams):
    beside(lambda: None)
    asks(lambda: "answer")
    assert streams == []


@pytest.mark.parametrize("deadline_ms", [None, 60_000])
def test_the_backend_is_called_beside_whatever_thread_it_runs_on(streams, deadline_ms):
    desk = Desk(ScriptedBackend([{"star": 0.9}]))
    pictures = [Image.new("RGB", (8, 8))]
    answers = desk.aside(lambda: desk.ask(pictures, ["is there a star?"], deadline_ms=deadline_ms)).result(timeout=60)
    desk.close()
    assert answers.probabilities == ((0.9,),)
    assert len(streams) == 1


def test_calls_beside_of_several_generations_run_at_once_and_their_threads_end():
    desk, meeting, threads = Desk(ScriptedBackend([{}])), threading.Barrier(3), set()

    def call():
        threads.add(threading.current_thread())
        meeting.wait(60)  # raises unless all three are made at once

    for pending in [desk.aside(call) for _ in range(3)]:
        pending.result(timeout=60)
    desk.close()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_of_one_turn_so_many_calls_run_beside_and_no_more():
    desk, done = Desk(ScriptedBackend([{}])), threading.Event()
    calls = [desk.aside(lambda: done.wait(60), turn="greedy") for _ in range(MOST_WAITING)]
    with pytest.raises(VlmBusy):
        desk.aside(lambda: None, turn="greedy").result(timeout=5)
    assert desk.aside(lambda: "answer", turn="modest").result(timeout=60) == "answer"
    done.set()
    for pending in calls:
        pending.result(timeout=60)
    assert desk.aside(lambda: "answer", turn="greedy").result(timeout=60) == "answer"
    desk.close()


def test_a_call_beside_a_closed_guard_is_refused_and_not_waited_for():
    desk = Desk(ScriptedBackend([{}]))
    desk.close()
    with pytest.raises(VlmError, match="closed"):
        desk.aside(lambda: None).result(timeout=5)
