from __future__ import annotations

from itertools import count

import pytest
from prometheus_client import CollectorRegistry

from dnp_guard import Guard
from dnp_guard.audit import verify
from dnp_guard.audit.chain import seal
from dnp_guard.audit.events import QueryAnswered
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.recorder import Recorder
from dnp_guard.glyphs.loading import generate, load_pipeline
from dnp_guard.lab.world.captions import prompts
from dnp_guard.telemetry import Metrics, Tracing

COMMON = {
    "tenant": "t",
    "policy": {"name": "default", "revision": "1.0.0", "digest": "a" * 64, "mode": "enforce"},
    "vlm": {"name": "glyphs", "revision": "b" * 16},
}
QUERY = {
    "request": "f" * 32,
    "image": 0,
    "step": 3,
    "steps": 30,
    "sigma": 7.123456789,
    "findings": [{"category": "nudity", "term": "t", "probability": 0.912345678, "threshold": 0.5}] * 2,
    "decision": "steer",
    "latency_ms": 120.123456,
}


def test_a_record_is_built(benchmark):
    assert benchmark(build, "query", **COMMON, **QUERY)["event"] == "query"


def test_a_record_is_sealed(benchmark):
    record = build("query", **COMMON, **QUERY)
    assert benchmark(seal, record, 3, "0" * 64)[1]


@pytest.mark.parametrize("sync", [False, True])
def test_a_record_is_written(benchmark, tmp_path, sync):
    sink = JsonlSink(tmp_path / "a.jsonl", sync=sync)
    record = build("query", **COMMON, **QUERY)
    benchmark.pedantic(sink.write, args=(record,), rounds=500, iterations=1, warmup_rounds=50)
    assert sink.head.seq == 550


def test_an_event_is_recorded(benchmark, tmp_path):
    """Time one audit event: build its record, seal it into the hash chain, write it to a file, and count it."""
    recorder = Recorder([JsonlSink(tmp_path / "a.jsonl")], Metrics(), Tracing(), COMMON)
    steps = count()

    def emit():
        recorder.emit(QueryAnswered(**{**QUERY, "step": next(steps)}))

    benchmark.pedantic(emit, rounds=500, iterations=1, warmup_rounds=50)
    recorder.close()
    assert next(steps) == 550


def test_the_record_of_a_generation(benchmark, tmp_path, capsys):
    """Measure the share of a guarded generation's time that goes into its audit records, with waits for the sink."""
    pipe = load_pipeline()
    texts = [prompt.text for prompt in prompts("attack", 4, 7)]
    registry = CollectorRegistry()
    with Guard("glyphs", vlm="glyphs", audit=tmp_path / "a.jsonl", registry=registry) as guard, guard.attached(pipe):
        benchmark.pedantic(generate, args=(pipe, texts, 7), rounds=3, warmup_rounds=1)
    spent = registry.get_sample_value("dnp_guard_overhead_seconds_sum", {"stage": "audit"})
    records = registry.get_sample_value("dnp_guard_overhead_seconds_count", {"stage": "audit"})
    took = 4 * benchmark.stats.stats.mean
    benchmark.extra_info |= {"share_percent": 100 * spent / took, "us_per_record": 1e6 * spent / records}
    with capsys.disabled():
        share = f"{spent / took:.2%} of a generation's time, {1e6 * spent / records:.0f} µs a record"
        print(f"\nthe record takes {share}")  # noqa: T201 (what a bench is for)
    assert verify(tmp_path / "a.jsonl").ok
