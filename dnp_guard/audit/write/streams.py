"""Audit sinks that write to standard output or to OpenTelemetry logs. Every process has its own hash chain."""

from __future__ import annotations

import sys
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber, get_logger

from dnp_guard._version import __version__
from dnp_guard.audit.chain import ZERO, seal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from opentelemetry._logs import LoggerProvider

LOGGER: Final = "dnp_guard.audit"
REQUEST: Final = "dnp_guard.request"
SEQ: Final = "dnp_guard.audit.seq"
HASH: Final = "dnp_guard.audit.hash"


class StreamSink:
    """A log on a stream, one line per record; its hash chain begins when the sink is created.

    Args:
        stream: the stream; standard output by default.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._seq, self._prev = 0, ZERO
        self._lock = Lock()

    def write(self, event: Mapping[str, Any]) -> None:
        """Write the record of an event, and flush the stream."""
        with self._lock:
            line, sealed = seal(event, self._seq, self._prev)
            stream = self._stream or sys.stdout.buffer
            stream.write(line + b"\n")
            stream.flush()
            self._seq, self._prev = self._seq + 1, sealed

    def close(self) -> None:
        """Do nothing, since the sink does not own the stream."""


class OtelSink:
    """A log of OpenTelemetry log records, with the line as the body and ``dnp_guard.<event>`` as the event name.

    Without an OpenTelemetry SDK, the records are not exported. The sink does not notice if the exporter loses records,
    so keep a log in a file too.

    Args:
        provider: provider of loggers; OpenTelemetry's global one by default.
    """

    def __init__(self, provider: LoggerProvider | None = None) -> None:
        self._logger = get_logger(LOGGER, __version__, provider)
        self._seq, self._prev = 0, ZERO
        self._lock = Lock()

    def write(self, event: Mapping[str, Any]) -> None:
        """Emit the record of an event as an OpenTelemetry log record."""
        with self._lock:
            line, sealed = seal(event, self._seq, self._prev)
            attributes: dict[str, str | int] = {SEQ: self._seq, HASH: sealed}
            if request := event.get("request"):
                attributes[REQUEST] = str(request)
            self._logger.emit(
                LogRecord(
                    timestamp=int(datetime.fromisoformat(event["time"]).timestamp() * 1e9),
                    severity_number=SeverityNumber.WARN if event["event"] == "degraded" else SeverityNumber.INFO,
                    body=line.decode(),
                    attributes=attributes,
                    event_name=f"dnp_guard.{event['event']}",
                )
            )
            self._seq, self._prev = self._seq + 1, sealed

    def close(self) -> None:
        """Do nothing, since the sink does not own the provider."""
