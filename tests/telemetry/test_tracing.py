from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dnp_guard.errors import VlmTimeout
from dnp_guard.telemetry import Tracing, names


class Spans:
    """The tracing of one generation, with an exporter that keeps the spans in memory; index it by a span's name."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.generation = Tracing(self.provider).generation("r1", "default", "abc", 2)

    def __getitem__(self, name: str) -> ReadableSpan:
        (span,) = (candidate for candidate in self._exporter.get_finished_spans() if candidate.name == name)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


def parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_a_generation_holds_queries_and_they_the_genai_client_span(spans: Spans) -> None:
    with spans.generation.query(3, 2, 7, "smol"):
        pass
    spans.generation.end("steered")
    generation, query, client = spans["dnp_guard.generation"], spans["dnp_guard.query"], spans["chat smol"]
    assert parent_id(generation) is None
    assert parent_id(query) == span_id(generation)
    assert parent_id(client) == span_id(query)


def test_a_generation_span_says_which_policy_and_what_came_of_it(spans: Spans) -> None:
    spans.generation.end("steered")
    assert dict(spans["dnp_guard.generation"].attributes or {}) == {
        "dnp_guard.request": "r1",
        "dnp_guard.policy": "default",
        "dnp_guard.policy.digest": "abc",
        "dnp_guard.images": 2,
        "dnp_guard.decision": "steered",
    }


def test_the_client_span_has_the_genai_attributes(spans: Spans) -> None:
    with spans.generation.query(3, 2, 7, "smol", provider="openai"):
        pass
    client = spans["chat smol"]
    assert client.kind == SpanKind.CLIENT
    assert dict(client.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "smol",
        "gen_ai.prompt.name": "default",
        "gen_ai.prompt.version": "abc",
    }


def test_the_final_look_has_no_step(spans: Spans) -> None:
    with spans.generation.query(None, 2, 7, "smol"):
        pass
    assert dict(spans["dnp_guard.query"].attributes or {}) == {"dnp_guard.images": 2, "dnp_guard.questions": 7}


def test_spans_within_the_ask_are_children_of_the_client_span(spans: Spans) -> None:
    with spans.generation.query(3, 2, 7, "smol"):
        spans.provider.get_tracer("http").start_span("POST").end()
    assert parent_id(spans["POST"]) == span_id(spans["chat smol"])


def test_after_the_ask_the_current_span_is_the_one_before(spans: Spans) -> None:
    before = trace.get_current_span()
    with spans.generation.query(3, 2, 7, "smol"):
        pass
    assert trace.get_current_span() is before


def test_a_failed_ask_has_the_reason_as_its_error_type_and_goes_on_raising(spans: Spans) -> None:
    with pytest.raises(VlmTimeout), spans.generation.query(3, 2, 7, "smol"):
        raise VlmTimeout("http://10.0.0.1/secret did not answer")
    kinds = [(spans[name].attributes or {})["error.type"] for name in ("dnp_guard.query", "chat smol")]
    assert kinds == ["vlm_timeout", "vlm_timeout"]
    assert spans["chat smol"].status.status_code == StatusCode.ERROR
    assert spans["chat smol"].status.description is None


def test_an_injected_negative_is_an_event_without_its_words(spans: Spans) -> None:
    spans.generation.injected(0, 4, ("nudity",), 15.0)
    spans.generation.injected(1, 4, ("nudity",), None)
    spans.generation.end("steered")
    assert [(event.name, dict(event.attributes or {})) for event in spans["dnp_guard.generation"].events] == [
        (
            "dnp_guard.negative_injected",
            {
                "dnp_guard.image": 0,
                "dnp_guard.step": 4,
                "dnp_guard.categories": ("nudity",),
                "dnp_guard.scale": 15.0,
            },
        ),
        (
            "dnp_guard.negative_injected",
            {"dnp_guard.image": 1, "dnp_guard.step": 4, "dnp_guard.categories": ("nudity",)},
        ),
    ]


def test_a_degraded_step_is_an_event_with_its_reason(spans: Spans) -> None:
    spans.generation.degraded("vlm_busy")
    spans.generation.end("failed_closed")
    assert [dict(event.attributes or {}) for event in spans["dnp_guard.generation"].events] == [
        {"dnp_guard.reason": "vlm_busy"}
    ]


def test_the_evaluation_of_a_finished_image_is_the_genai_event(spans: Spans) -> None:
    spans.generation.evaluated(1, "nudity", 0.75, found=True)
    spans.generation.evaluated(1, "minor", None, found=False)
    spans.generation.end("blocked")
    assert [(event.name, dict(event.attributes or {})) for event in spans["dnp_guard.generation"].events] == [
        (
            "gen_ai.evaluation.result",
            {
                "dnp_guard.image": 1,
                "gen_ai.evaluation.name": "nudity",
                "gen_ai.evaluation.score.label": "found",
                "gen_ai.evaluation.score.value": 0.75,
            },
        ),
        (
            "gen_ai.evaluation.result",
            {"dnp_guard.image": 1, "gen_ai.evaluation.name": "minor", "gen_ai.evaluation.score.label": "not_found"},
        ),
    ]


def test_the_time_to_an_answer_is_the_genai_metric() -> None:
    reader = InMemoryMetricReader()
    generation = Tracing(meter_provider=MeterProvider([reader])).generation("r1", "default", "abc", 1)
    with generation.query(3, 1, 1, "smol"):
        pass
    with pytest.raises(VlmTimeout), generation.query(4, 1, 1, "smol"):
        raise VlmTimeout("late")
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    points = list(metric.data.data_points)
    assert metric.name == "gen_ai.client.inference.duration"
    assert metric.unit == "s"
    assert [(point.attributes or {}).get("error.type") for point in points] == [None, "vlm_timeout"]
    assert points[0].explicit_bounds == names.QUERY_BUCKETS  # type: ignore[union-attr]


class Broken(SpanProcessor):
    def on_start(self, span: object, parent_context: object = None) -> None:
        raise RuntimeError("start")

    def on_end(self, span: object) -> None:
        raise RuntimeError("end")


def test_a_broken_exporter_touches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Broken())
    generation = Tracing(provider).generation("r1", "default", "abc", 1)
    answers = []
    with generation.query(3, 1, 1, "smol"):
        answers.append(0.5)
    generation.injected(0, 4, ("nudity",), 15.0)
    generation.end("steered")
    assert answers == [0.5]
    assert "telemetry failed" in caplog.text


def test_without_an_sdk_nothing_is_traced_and_nothing_fails() -> None:
    generation = Tracing(trace.NoOpTracerProvider()).generation("r1", "default", "abc", 1)
    with generation.query(3, 1, 1, "smol"):
        current = trace.get_current_span()
    generation.end("clean")
    assert not current.is_recording()
