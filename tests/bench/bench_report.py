from __future__ import annotations

import os
import resource
from datetime import UTC, datetime, timedelta

import pytest

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.summary import summarise
from dnp_guard.audit.record import build
from dnp_guard.audit.write.sinks import MemorySink

RECORDS = int(os.environ.get("DNP_GUARD_BENCH_RECORDS", "1000000"))
BATCH = 10_000
COMMON = {
    "policy": {"name": "default", "revision": "1.0.0", "digest": "a" * 64, "mode": "enforce"},
    "vlm": {"name": "glyphs", "revision": "b" * 16},
}
FINDING = {"category": "nudity", "term": "t", "probability": 0.912345, "threshold": 0.5}


def generation(number):
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    fields = {**COMMON, "at": at, "request": f"{number:032x}"}
    yield build("request.started", **fields, prompt={"hmac": "c" * 64})
    for step in range(7):
        yield build("query", **fields, image=0, step=step, steps=30, sigma=7.25, findings=[FINDING], latency_ms=120.5)
    yield build("negative.injected", **fields, image=0, step=1, findings=[FINDING], negative={"text": "nudity"})
    yield build("request.finished", **fields, image=0, decision="steered")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Write an audit log of a million records, by repeating the records of a thousand generations."""
    sink = MemorySink()
    for number in range(BATCH // 10):
        for record in generation(number):
            sink.write(record)
    block = b"".join(line + b"\n" for line in sink.lines)
    path = tmp_path_factory.mktemp("bench") / "audit.jsonl"
    with path.open("wb") as file:
        for _ in range(RECORDS // BATCH):
            file.write(block)
    yield path
    path.unlink()


def test_a_million_records_are_summed_up(benchmark, log):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = benchmark.pedantic(lambda: summarise(Log(log)), rounds=1)
    benchmark.extra_info["grown_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert summary.records == RECORDS
    assert summary.injections == RECORDS // 10
    assert benchmark.extra_info["grown_mib"] < 100
