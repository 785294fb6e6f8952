"""Writes events to every audit sink, and never raises into a generation."""

from __future__ import annotations

import logging
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.record import Event, build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.audit.sinks import Sink
    from dnp_guard.telemetry import Metrics, Tracing

BACKLOG: Final = 1000
"""Events kept in memory for a sink that fails; the oldest go first."""

_log = logging.getLogger("dnp_guard.audit")


class Recorder:
    """The record of one guard.

    A sink that fails is counted as ``degraded`` with the reason ``audit_sink``. What it missed is kept and written
    before its next event, followed by a ``degraded`` record; what no longer fits is counted as ``audit_dropped``.

    Args:
        sinks: each gets every event.
        metrics: of the guard.
        tracing: of the guard.
        common: fields of every record, such as ``policy`` and ``vlm``.

    Attributes:
        metrics: of the guard.
        tracing: of the guard.
    """

    def __init__(self, sinks: Sequence[Sink], metrics: Metrics, tracing: Tracing, common: Mapping[str, Any]) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self._common = dict(common)
        self._outlets = [_Outlet(sink) for sink in sinks]
        self._lock = Lock()

    def emit(self, event: str, **fields: Any) -> bool:
        """Record an event.

        Args:
            event: one of :class:`dnp_guard.audit.record.Event`.
            fields: of the record; they go before the common ones. None is left out.

        Returns:
            Whether every sink holds this event and all before it.
        """
        with self._lock, self.metrics.overhead("audit"):
            try:
                record = build(event, **{**self._common, **fields})
            except Exception as error:  # noqa: BLE001 (a mistake in the program must not cost a generation)
                _log.warning("an audit record of %r cannot be built: %s", event, error)
                self.metrics.degraded("audit_record")
                return False
            written = [self._put(outlet, record) for outlet in self._outlets]
            return all(written)

    def close(self) -> None:
        """Try once more to write what sinks have missed, and close them."""
        with self._lock:
            for outlet in self._outlets:
                try:
                    outlet.flush()
                    outlet.sink.close()
                except Exception as error:  # noqa: BLE001 (a sink may raise anything)
                    _log.warning("an audit sink was closed with %d events unwritten: %s", len(outlet.missed), error)

    def _put(self, outlet: _Outlet, record: Mapping[str, Any]) -> bool:
        try:
            outlet.flush()
            outlet.sink.write(record)
        except Exception as error:  # noqa: BLE001 (a sink may raise anything)
            self.metrics.degraded("audit_sink")
            waiting = [record]
            if not outlet.missed:
                _log.warning("an audit sink failed, and its events wait for the next: %s", error)
                waiting.append(self._outage(record))
            for _ in range(outlet.keep(waiting)):
                self.metrics.degraded("audit_dropped")
            return False
        return True

    def _outage(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return build(Event.DEGRADED, **{**self._common, "request": record.get("request"), "reason": "audit_sink"})


class _Outlet:
    """A sink, and what it has missed."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.missed: deque[Mapping[str, Any]] = deque()

    def flush(self) -> None:
        while self.missed:
            self.sink.write(self.missed[0])
            self.missed.popleft()

    def keep(self, records: Sequence[Mapping[str, Any]]) -> int:
        """Keep records for later; how many did not fit."""
        self.missed.extend(records)
        dropped = max(0, len(self.missed) - BACKLOG)
        for _ in range(dropped):
            self.missed.popleft()
        return dropped
