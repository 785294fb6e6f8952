import sys
import threading
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from PIL import Image

from dnp_guard.errors import VlmError
from dnp_guard.vlm.aside import beside, own_stream
from dnp_guard.vlm.opinions import Opinions
from dnp_guard.vlm.scripted import ScriptedBackend


@pytest.fixture
def streams(monkeypatch):
    """The CUDA streams that were entered, on a machine that has CUDA."""
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
    opinions = Opinions(ScriptedBackend([{"star": 0.9}]), deadline_ms=deadline_ms)
    pictures = [Image.new("RGB", (8, 8))]
    answers = opinions.aside(lambda: opinions.ask(pictures, ["is there a star?"])).result(timeout=60)
    opinions.close()
    assert answers.probabilities == ((0.9,),)
    assert len(streams) == 1


def test_calls_beside_are_made_one_after_the_other_and_the_thread_ends():
    opinions, order, threads = Opinions(ScriptedBackend([{}])), [], set()

    def call(number):
        threads.add(threading.current_thread())
        order.append(number)

    calls = [opinions.aside(partial(call, number)) for number in range(3)]
    for each in calls:
        each.result(timeout=60)
    opinions.close()
    assert order == [0, 1, 2]
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_call_beside_a_closed_guard_is_refused_and_not_waited_for():
    opinions = Opinions(ScriptedBackend([{}]))
    opinions.close()
    with pytest.raises(VlmError, match="closed"):
        opinions.aside(lambda: None).result(timeout=5)
