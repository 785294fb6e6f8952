"""Writes events to every audit sink, and never raises into a generation."""

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
"""Seconds of each second that a generation may spend waiting for sinks."""

REQUIRED_WAIT: Final = 5.0
"""Seconds that it may wait for one record where the policy says ``audit.required``."""

SETTLE_WAIT: Final = 1.0
"""Seconds to wait for the sinks when a generation is over."""

_log = logging.getLogger("dnp_guard.audit")


class Recorder:
    """The record of one guard.

    Each sink is written to by a thread of its own. A sink that fails is counted as ``degraded`` with the reason
    ``audit_sink``; what it missed is spooled to disk and written before its next event, followed by a ``degraded``
    record. What cannot be kept is counted as ``audit_dropped``.

    Args:
        sinks: each gets every event.
        metrics: of the guard.
        tracing: of the guard.
        common: fields that all records share.
        spool: folder for what sinks with a ``path`` or a ``name`` miss; in memory for others, or where there is none.
        previews: folder for pictures of findings; None where there is no log beside which it could be.
        picture_key: encrypts them; None to blur them.
        required: wait for each record, as ``audit.required`` asks, and not for a few milliseconds at most.

    Attributes:
        metrics: of the guard.
        tracing: of the guard.
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
        """Record an event.

        Args:
            event: what happened.
            required: wait for it; as the recorder was made where it is not given.
            policy: the policy that it happened under, where it is not the common one.

        Returns:
            Whether every sink holds this event and all before it, as far as could be waited for.
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
        """Keep the picture of a finding, small and blurred, or encrypted.

        Args:
            request: id of the generation.
            image: index in the batch.
            step: None for the final look.
            picture: RGB.

        Returns:
            ``preview{file, sha256}`` of the record; None where it could not be kept, which is counted as ``degraded``
            with the reason ``audit_preview``.
        """
        with self.metrics.overhead("audit"):
            try:
                return previews.keep(_beside(self._previews), request, image, step, picture, self._picture_key)
            except Exception as error:  # noqa: BLE001 (a preview must not cost a generation)
                self._unkept(error)
                return None

    def forget(self, request: str, image: int) -> None:
        """Remove the previews of one image; what cannot be removed is counted as ``keep`` does."""
        if self._previews is None:
            return
        try:
            previews.forget(self._previews, request, image)
        except Exception as error:  # noqa: BLE001 (as above)
            self._unkept(error)

    def settle(self, seconds: float = SETTLE_WAIT) -> bool:
        """Wait until every sink holds every event so far; not for a sink that hangs.

        Args:
            seconds: at most, a sink.

        Returns:
            Whether they do.
        """
        held = [outlet.settle(seconds) for outlet in self._outlets]
        return all(held)

    @property
    def keeps_up(self) -> bool:
        """Whether every sink takes its records, and none waits for one that fails or hangs."""
        return all(outlet.keeps_up for outlet in self._outlets)

    def close(self) -> None:
        """Try once more to write what sinks have missed, and close them."""
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
        _log.warning("the preview of a finding: %s", error)
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
        raise AuditError("no log in a file beside which it could lie", hint="Add one: audit='audit.jsonl'.")
    return folder


def _spool(folder: Path | None, sink: Sink) -> Spool:
    # What is left on disk goes to the next sink of the same name: one without a name could be anybody's.
    place = getattr(sink, "path", None) or getattr(sink, "name", None)
    kind = f"{type(sink).__module__}.{type(sink).__qualname__}"
    where = place.absolute() if isinstance(place, Path) else place
    return Spool(folder if place is not None else None, f"{kind} {where}")
