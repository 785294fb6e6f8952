"""Audit records have a bounded size, and the service's answers do not grow during a session."""

from __future__ import annotations

import json
import logging
from asyncio import CancelledError

import pytest

from dnp_guard.audit.chain import LONGEST_LINE
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import MOST, build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.outlet import Outlet
from dnp_guard.audit.write.spool import Spool
from tests.server.conftest import ask, begin, finish

NOTHING = {"a star": 0.0}
POLICY = """
format: 1
name: redacting
queries: {steps: [0.1], final: true}
categories: [{id: star, title: Star, definition: A star., look_for: [a star], negative: [star], threshold: 0.5}]
audit: {prompt: redacted, required: true}
"""


@pytest.mark.parametrize("sign", ["a", "é", "鑫", "😀", '"', "\\"])
@pytest.mark.parametrize("count", [1, 120, 1000, 100_000])
def test_a_record_fits_into_a_line_whatever_the_prompts(tmp_path, count, sign):
    text = sign * (10_000 if count < 100_000 else 100)
    sink = JsonlSink(tmp_path / "audit.jsonl")
    sink.write(build("request.started", request="r", host={"name": "tests"}, prompt={"redacted": [text] * count}))
    sink.close()
    assert (tmp_path / "audit.jsonl").stat().st_size < LONGEST_LINE
    assert verify(tmp_path / "audit.jsonl").ok


def test_a_list_says_how_much_was_left_out():
    record = build("request.started", prompt={"hmac": ["0" * 64] * (MOST + 5)})
    assert len(record["prompt"]["hmac"]) == MOST
    assert record["prompt"]["hmac"][-1] == "… and 6 more"


def test_a_few_long_prompts_are_written_whole():
    prompts = ["a" * 10_000] * 20
    assert build("request.started", prompt={"plain": prompts})["prompt"]["plain"] == prompts


def test_120_prompts_of_10000_characters_block_no_log(serve, tmp_path):
    policy = tmp_path / "redacting.yaml"
    policy.write_text(POLICY)
    client = serve(NOTHING, policy=policy, limits={"images": 120})
    session = begin(client, images=120, prompts=["word " * 2000] * 120).json()["session"]
    ask(client, session, 3, count=120)
    assert {image["decision"] for image in finish(client, session, count=120).json()["images"]} == {"clean"}
    session = begin(client).json()["session"]
    ask(client, session, 3)
    assert finish(client, session).json()["images"][0]["decision"] == "clean"
    assert client.get("/readyz").is_success
    serve.stop()
    assert verify(tmp_path / "audit.jsonl").ok


def test_a_record_that_no_log_takes_is_counted_and_what_follows_is_written(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    counted = []
    log = tmp_path / "audit.jsonl"
    outlet = Outlet(
        JsonlSink(log), Spool(None, "s"), counted.append, lambda _, reason: build("degraded", reason=reason)
    )
    giant = build("query") | {"reason": "x" * LONGEST_LINE}
    held = [outlet.wait(outlet.put(record), 30) for record in (build("query", step=1), giant, build("query", step=2))]
    outlet.close(30)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert held == [True, False, True]
    assert counted == ["audit_dropped"]
    assert [record.get("reason", record.get("step")) for record in records] == [1, "audit_dropped", 2]
    assert verify(log).ok


def test_a_spooled_record_that_no_log_takes_does_not_block_the_spool(tmp_path):
    counted = []
    spool = Spool(None, "s")
    spool.add(build("query") | {"reason": "x" * LONGEST_LINE})
    log = tmp_path / "audit.jsonl"
    outlet = Outlet(JsonlSink(log), spool, counted.append, lambda _, reason: build("degraded", reason=reason))
    assert outlet.wait(outlet.put(build("query", step=2)), 30)
    outlet.close(30)
    assert counted == ["audit_dropped"]
    assert verify(log).ok


def test_answers_do_not_grow_with_a_session(serve):
    client = serve(NOTHING)
    session = begin(client, steps=1000).json()["session"]
    store = client.app.state.service.store
    sizes = []
    for step in range(300):
        assert ask(client, session, step, progress=step / 1000).is_success
        sizes.append(len(store.load(session).answers))
    assert max(sizes) < 4 * sizes[8] // 3


def test_a_repeated_step_is_answered_the_same_among_the_last_eight(serve):
    client = serve(NOTHING)
    session = begin(client, steps=1000).json()["session"]
    answers = [ask(client, session, step).json() for step in range(20)]
    assert [ask(client, session, step).json() for step in range(12, 20)] == answers[12:]
    assert ask(client, session, 11).status_code == 409


class Raising:
    """A sink that raises an error for its first record, and keeps all later ones."""

    def __init__(self, error):
        self.error, self.held = error, []

    def write(self, record):
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.held.append(record["step"] if "step" in record else record["reason"])

    def close(self):
        pass


@pytest.mark.parametrize(
    "error", [SystemExit(1), CancelledError(), KeyboardInterrupt(), BaseException("panic")], ids=repr
)
def test_nothing_that_a_sink_raises_ends_the_thread_that_writes(error):
    counted, sink = [], Raising(error)
    outlet = Outlet(sink, Spool(None, "s"), counted.append, lambda _, reason: build("degraded", reason=reason))
    held = [outlet.wait(outlet.put(build("query", step=step)), 30) for step in (1, 2)]
    outlet.close(30)
    assert held == [False, True]
    assert counted == ["audit_sink"]
    assert sink.held == [1, "audit_sink", 2]
