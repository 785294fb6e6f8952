"""Audit records, metrics, tracing spans and reports give the same numbers for the same generations."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from dnp_guard import Guard
from dnp_guard.audit import verify
from dnp_guard.audit.read.show import Log
from dnp_guard.cli import run
from dnp_guard.glyphs.loading import generate, load_pipeline
from dnp_guard.lab.world.captions import prompts

pytestmark = pytest.mark.models

BATCHES, SIZE = 2, 6


class GuardedRun:
    """The audit logs, metrics, spans and reports of the same guarded generations."""

    def __init__(self, folder, monkeypatch):
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
        self.logs = [folder / "audit.jsonl", folder / "audit.db"]
        self.registry = CollectorRegistry()
        self.reports = []
        specs = [f"jsonl:{self.logs[0]}?rotate_bytes=20000", f"sqlite:{self.logs[1]}"]
        pipe = load_pipeline()
        texts = [prompt.text for prompt in prompts("attack", BATCHES * SIZE, 7)]
        with Guard("glyphs", vlm="glyphs", audit=specs, registry=self.registry) as guard, guard.attached(pipe):
            for batch in range(BATCHES):
                generate(pipe, texts[batch * SIZE : (batch + 1) * SIZE], seed=batch * SIZE)
                self.reports.append(guard.last)
        self.events = [event for span in exporter.get_finished_spans() for event in span.events]
        self.spans = [span.name for span in exporter.get_finished_spans()]
        queries = [span for span in exporter.get_finished_spans() if span.name == "dnp_guard.query"]
        self.images = sum(span.attributes["dnp_guard.images"] for span in queries)
        self.records = list(Log(self.logs[0]))

    def metric(self, name, **labels):
        samples = [sample for family in self.registry.collect() for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def count(self, event):
        return sum(record["event"] == event for record in self.records)


@pytest.fixture(scope="module")
def guarded_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield GuardedRun(tmp_path_factory.mktemp("told"), monkeypatch)


def summed_up(log, capsys):
    assert run(["audit", "report", str(log), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("log", [0, 1])
def test_injected_negatives_are_as_many_everywhere(guarded_run, log, capsys):
    report = summed_up(guarded_run.logs[log], capsys)
    records = guarded_run.count("negative.injected")
    events = [event for event in guarded_run.events if event.name == "dnp_guard.negative_injected"]
    reported = sum(len(image.negatives) for report in guarded_run.reports for image in report.images)
    assert records > 0
    assert (
        records
        == guarded_run.metric("dnp_guard_negatives_injected_total")
        == len(events)
        == report["injections"]
        == sum(report["injections_by_category"].values())
        == reported
    )


def test_by_category_the_report_and_the_metric_differ_only_by_what_was_held(guarded_run, capsys):
    by_category = summed_up(guarded_run.logs[0], capsys)["injections_by_category"]
    held = by_category.pop("held", 0)
    more = [
        guarded_run.metric("dnp_guard_negatives_injected_total", category=name) - n for name, n in by_category.items()
    ]
    assert sum(more) == held
    assert min(more) >= 0


def test_queries_are_as_many_everywhere(guarded_run, capsys):
    report = summed_up(guarded_run.logs[0], capsys)
    assert (
        report["queries"]
        == guarded_run.count("query")
        == guarded_run.metric("dnp_guard_queries_total", outcome="answered")
    )
    looked = guarded_run.images
    skipped = guarded_run.metric("dnp_guard_queries_total", outcome="skipped")
    assert looked == report["queries"]
    assert skipped == report["skipped"]


def test_images_by_outcome_are_as_many_everywhere(guarded_run, capsys):
    report = summed_up(guarded_run.logs[0], capsys)
    decided = [str(image.decision) for report in guarded_run.reports for image in report.images]
    counted = {name: guarded_run.metric("dnp_guard_generations_total", decision=name) for name in set(decided)}
    assert report["decisions"] == {name: decided.count(name) for name in set(decided)} == counted


def test_generations_are_as_many_everywhere(guarded_run, capsys):
    report = summed_up(guarded_run.logs[0], capsys)
    spans = guarded_run.spans.count("dnp_guard.generation")
    sessions = guarded_run.metric("dnp_guard_sessions_total", result="finished")
    assert report["generations"] == spans == sessions == BATCHES


def test_every_log_verifies_and_holds_the_same_events(guarded_run):
    assert [verify(log).problems for log in guarded_run.logs] == [(), ()]
    events = [
        [(record["event"], record.get("image"), record.get("step")) for record in Log(log)] for log in guarded_run.logs
    ]
    assert events[0] == events[1]
