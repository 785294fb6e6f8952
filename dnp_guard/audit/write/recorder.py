"""Write the guard's events to all of its audit sinks, without raising errors into a generation."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit import previews
from dnp_guard.audit.events import GuardDegraded
from dnp_guard.audit.write.checkpointed import CheckpointedSink
from dnp_guard.audit.write.outlet import Outlet
from dnp_guard.audit.write.spool import Spool
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.audit.checkpoint import Checkpoint
    from dnp_guard.audit.events import Event
    from dnp_guard.audit.shapes import Common, PolicyFields, PreviewFields
    from dnp_guard.audit.write.sinks import Sink
    from dnp_guard.telemetry import Metrics, Tracing

STEP_WAIT: Final = 0.005
"""Most seconds that all generations of a guard together wait for its sinks in one second."""

REQUIRED_WAIT: Final = 5.0
"""Longest wait for one record under ``audit.required``, in seconds."""

SETTLE_WAIT: Final = 1.0
"""Longest wait for the sinks at the end of a generation, in seconds."""

_log = logging.getLogger("dnp_guard.audit")


class Recorder:
    """Records the events of one guard in its audit sinks.

    Every sink has its own thread. If a sink does not accept a record, the metric ``degraded`` counts it with the reason
    ``audit_sink``, and the record is stored on disk. The sink gets it before the next event, followed by a ``degraded``
    record. A lost record is counted with the reason ``audit_dropped``.

    Args:
        sinks: sinks that get every event.
        metrics: metrics of the guard.
        tracing: tracing of the guard.
        common: fields that all records share.
        spool: folder for records that sinks with a ``path`` or a ``name`` did not accept. None to store them in memory,
            as those of other sinks always are.
        previews: folder for pictures in which a query found something; None if no log is in a file.
        picture_key: key to encrypt these pictures; None to blur them.
        required: whether to wait until every record is written, as ``audit.required`` demands, and not only a few
            milliseconds.

    Attributes:
        metrics: metrics of the guard.
        tracing: tracing of the guard.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        metrics: Metrics,
        tracing: Tracing,
        common: Common,
        *,
        spool: Path | None = None,
        previews: Path | None = None,
        picture_key: bytes | None = None,
        required: bool = False,
    ) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self._common = common
        self._required = required
        self._previews = previews
        self._picture_key = picture_key
        self._outlets = [Outlet(sink, _spool(spool, sink), metrics.degraded, self._outage) for sink in sinks]
        for sink in sinks:
            if isinstance(sink, CheckpointedSink):
                sink.observe = self._checkpointed
        self._lock = Lock()
        self._second, self._waited = 0.0, 0.0

    def emit(self, event: Event, *, required: bool | None = None, policy: PolicyFields | None = None) -> bool:
        """Record an event in all sinks.

        Args:
            event: the event.
            required: whether to wait until it is written; by default, the value given to the recorder.
            policy: policy under which the event happened, if it differs from the one in the common fields.

        Returns:
            Whether every sink stored this event, and all events before it, in the time that the recorder waits.
        """
        with self.metrics.overhead("audit"):
            try:
                record = event.record(self._common if policy is None else {**self._common, "policy": policy})
            except Exception as error:  # noqa: BLE001 (a mistake in the program must not cost a generation)
                _log.warning("an audit record of %r cannot be built: %s", event.name, error)
                self.metrics.degraded("audit_record")
                return False
            with self._lock:
                numbers = [outlet.put(record) for outlet in self._outlets]
            wait = self._wait_required if (self._required if required is None else required) else self._wait
            held = [wait(outlet, number) for outlet, number in zip(self._outlets, numbers, strict=True)]
            return all(held)

    def keep(self, request: str, image: int, step: int | None, picture: Image) -> PreviewFields | None:
        """Store the picture in which a query found something: encrypted if there is a key, otherwise small and blurred.

        Args:
            request: id of the generation.
            image: index in the batch.
            step: step of the query; None for the query about the finished image.
            picture: RGB picture.

        Returns:
            The file's name and hash, for ``preview{file, sha256}`` in the record. None if the picture cannot be stored,
            which the metric ``degraded`` counts with the reason ``audit_preview``.
        """
        with self.metrics.overhead("audit"):
            try:
                return previews.keep(_beside(self._previews), request, image, step, picture, self._picture_key)
            except Exception as error:  # noqa: BLE001 (a preview must not cost a generation)
                self._unkept(error)
                return None

    def forget(self, request: str, image: int) -> None:
        """Remove the stored pictures of one image; count a failure as :meth:`keep` does."""
        if self._previews is None:
            return
        try:
            previews.forget(self._previews, request, image)
        except Exception as error:  # noqa: BLE001 (as above)
            self._unkept(error)

    def settle(self, seconds: float = SETTLE_WAIT) -> bool:
        """Wait until every sink has stored all events so far; do not wait for sinks that hang.

        Args:
            seconds: longest time to wait per sink.

        Returns:
            Whether every sink has stored all events.
        """
        held = [outlet.settle(seconds) for outlet in self._outlets]
        return all(held)

    @property
    def keeps_up(self) -> bool:
        """Whether every sink accepts its records: none fails or hangs."""
        return all(outlet.keeps_up for outlet in self._outlets)

    def close(self) -> None:
        """Write the waiting records, try again to write those that a sink did not accept, and close the sinks."""
        for outlet in self._outlets:
            outlet.close(REQUIRED_WAIT)

    @staticmethod
    def _wait_required(outlet: Outlet, number: int) -> bool:
        return outlet.wait(number, REQUIRED_WAIT)

    def _wait(self, outlet: Outlet, number: int) -> bool:
        start = monotonic()
        if start - self._second >= 1:
            self._second, self._waited = start, 0.0
        held = outlet.wait(number, STEP_WAIT - self._waited)
        self._waited += monotonic() - start
        return held

    def _unkept(self, error: Exception) -> None:
        _log.warning("cannot store the preview of a finding: %s", error)
        self.metrics.degraded("audit_preview")

    def _checkpointed(self, written: Checkpoint | None) -> None:
        if written is None:
            self.metrics.degraded("audit_checkpoint")
        else:
            self.metrics.checkpoint(datetime.fromisoformat(written.time).timestamp())

    def _outage(self, record: Mapping[str, Any], reason: str) -> dict[str, Any]:
        degraded = GuardDegraded(request=record.get("request"), reason=reason)
        return degraded.record({**self._common, "policy": record["policy"]} if "policy" in record else self._common)


def _beside(folder: Path | None) -> Path:
    if folder is None:
        raise AuditError("there is no log file to store the picture beside", hint="Add one: audit='audit.jsonl'.")
    return folder


def _spool(folder: Path | None, sink: Sink) -> Spool:
    # Records left on disk go to the next sink of the same name; those of a sink without a name could go to a wrong one.
    place = getattr(sink, "path", None) or getattr(sink, "name", None)
    kind = f"{type(sink).__module__}.{type(sink).__qualname__}"
    where = place.absolute() if isinstance(place, Path) else place
    return Spool(folder if place is not None else None, f"{kind} {where}")
