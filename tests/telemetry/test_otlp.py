"""Spans and metrics arrive at an OTLP/HTTP receiver on loopback."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from dnp_guard.audit.read.verify import verify_lines
from dnp_guard.audit.record import build
from dnp_guard.audit.write.streams import OtelSink
from dnp_guard.telemetry import Tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:opentelemetry")


class Receiver:
    """A receiver of OTLP over HTTP that keeps all requests."""

    def __init__(self, status: int = 200) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bodies.append((self.path, body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


def test_a_generation_arrives_with_its_queries_and_injections(receiver: Receiver) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(receiver.url("/v1/traces"))))
    generation = Tracing(provider).generation("r1", "default", "abc", 1)
    with generation.query(3, 1, 1, "smol"):
        pass
    generation.injected(0, 4, ("nudity",), 15.0)
    generation.end("steered")
    provider.shutdown()
    requests = [ExportTraceServiceRequest.FromString(body) for path, body in receiver.bodies if path == "/v1/traces"]
    spans = [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"dnp_guard.generation", "dnp_guard.query", "chat smol"}
    assert by_name["dnp_guard.query"].parent_span_id == by_name["dnp_guard.generation"].span_id
    assert by_name["chat smol"].parent_span_id == by_name["dnp_guard.query"].span_id
    assert [event.name for event in by_name["dnp_guard.generation"].events] == ["dnp_guard.negative_injected"]


def test_audit_records_arrive_as_logs_that_verify(receiver: Receiver) -> None:
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(receiver.url("/v1/logs"))))
    sink = OtelSink(provider)
    sink.write(build("query", request="r1", step=3))
    sink.write(build("request.finished", request="r1", image=0, decision="clean"))
    provider.shutdown()
    requests = [ExportLogsServiceRequest.FromString(body) for path, body in receiver.bodies if path == "/v1/logs"]
    records = [
        record
        for request in requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert [record.event_name for record in records] == ["dnp_guard.query", "dnp_guard.request.finished"]
    assert verify_lines(record.body.string_value.encode() + b"\n" for record in records).ok


def test_a_receiver_that_is_not_there_costs_a_generation_nothing() -> None:
    gone = Receiver()
    address = gone.url("/v1/traces")
    gone.close()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(address, timeout=1)))
    generation = Tracing(provider).generation("r1", "default", "abc", 1)
    answers = []
    with generation.query(3, 1, 1, "smol"):
        answers.append(0.5)
    generation.end("clean")
    provider.shutdown()
    assert answers == [0.5]
