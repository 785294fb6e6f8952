from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from dnp_guard.audit.read.verify import verify, verify_lines
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.plugin import dnp_guard_audit_sink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.audit.write.streams import OtelSink, StreamSink
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("a.jsonl", JsonlSink),
        ("strange:name.jsonl", JsonlSink),
        ("jsonl:a.jsonl?rotate_bytes=1000&rotate_hours=24&sync=1", JsonlSink),
        ("sqlite:a.db", SqliteSink),
        ("stdout:", StreamSink),
        ("otel:", OtelSink),
    ],
)
def test_a_spec_opens_its_kind_of_sink(spec: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(dnp_guard_audit_sink(spec), kind)


def test_a_misspelt_kind_is_answered_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AuditError, match=r"'sqllite'\nDid you mean sqlite:a\.db\?"):
        dnp_guard_audit_sink("sqllite:a.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spec", ["jsonl:", "sqlite:", "jsonl:a?colour=red", "jsonl:a?sync=maybe", "jsonl:a?rotate_bytes=x", "stdout:x"]
)
def test_a_spec_that_says_nothing_is_refused(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AuditError, match="audit sink"):
        dnp_guard_audit_sink(spec)


def test_the_options_of_a_spec_count(tmp_path: Path) -> None:
    sink = dnp_guard_audit_sink(f"jsonl:{tmp_path / 'a.jsonl'}?rotate_bytes=1")
    assert sink is not None
    for _ in range(3):
        sink.write(build("query"))
    assert len(list(tmp_path.iterdir())) == 3
    assert verify(tmp_path / "a.jsonl").records == 3


def test_standard_output_gets_sealed_lines(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = dnp_guard_audit_sink("stdout:")
    assert sink is not None
    sink.write(build("query"))
    sink.write(build("query"))
    finding = verify_lines(capsysbinary.readouterr().out.splitlines(keepends=True))
    assert finding.ok
    assert finding.records == 2


def test_open_telemetry_gets_each_event_with_its_sealed_line() -> None:
    exporter, provider = InMemoryLogRecordExporter(), LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    sink = OtelSink(provider)
    sink.write(build("query", request="r1", step=3))
    sink.write(build("degraded", request="r1", reason="vlm_timeout"))
    first, second = (item.log_record for item in exporter.get_finished_logs())
    assert first.event_name == "dnp_guard.query"
    assert second.event_name == "dnp_guard.degraded"
    assert verify_lines(f"{record.body}\n".encode() for record in (first, second)).ok
    assert (first.attributes or {})["dnp_guard.request"] == "r1"
