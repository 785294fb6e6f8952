"""An audit sink that also writes checkpoints of its growing log to a second place."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, Final, Protocol

from dnp_guard.audit.checkpoint import ORIGIN, Checkpoint, keep
from dnp_guard.audit.events import CheckpointWritten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dnp_guard.audit.chain import Head
    from dnp_guard.audit.checkpoint import Signer

EVERY: Final = 60.0
"""Most seconds from a record to the checkpoint that includes it."""

_log = logging.getLogger("dnp_guard.audit")


class Kept(Protocol):
    """A sink that stores its log in a file or a database, and knows the end of the log."""

    path: Path

    @property
    def head(self) -> Head:
        """The current end of the log, with which the next record continues."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Store one event."""

    def close(self) -> None:
        """Release the resources of the sink."""


class CheckpointedSink:
    """Passes events to the sink of a log, and appends checkpoints of this log to another file.

    That file should be in a place where the writer of the log cannot change it. A checkpoint is written ``every``
    seconds after a record, and when the sink is closed; a ``checkpoint`` record in the log follows it. If a checkpoint
    cannot be written, the sink tries again after the same time, and the log continues meanwhile.

    Args:
        sink: sink of the log.
        to: file of the checkpoints; created if missing.
        signer: signs the checkpoints; None to leave them unsigned.
        origin: name of the log in the checkpoints.
        every: seconds from a record to the checkpoint that includes it.

    Attributes:
        path: path of the log.
        observe: function that is called with every checkpoint written, and with None if one could not be written.
    """

    def __init__(
        self,
        sink: Kept,
        to: str | os.PathLike[str],
        signer: Signer | None = None,
        *,
        origin: str = ORIGIN,
        every: float = EVERY,
    ) -> None:
        self.path = sink.path
        self.observe: Callable[[Checkpoint | None], None] = lambda _: None
        self._sink = sink
        self._to = Path(to)
        self._signer = signer
        self._origin = origin
        self._every = every
        self._lock = Lock()
        self._timer: Timer | None = None
        self._timed_by = 0

    def write(self, event: Mapping[str, Any]) -> None:
        """Store one event, and schedule a checkpoint."""
        self._sink.write(event)
        with self._lock:
            if self._timer is None or self._timed_by != os.getpid():
                self._timer = Timer(self._every, self._due)
                self._timer.daemon = True
                self._timer.start()
                self._timed_by = os.getpid()

    def checkpoint(self) -> Checkpoint:
        """Write a checkpoint now.

        Raises:
            AuditError: the checkpoint cannot be written.
        """
        head = self._sink.head
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        made = Checkpoint(self._origin, head.seq, head.prev, now)
        keep(self._to, made, self._signer)
        self._sink.write(
            CheckpointWritten(checkpoint={"origin": made.origin, "count": made.count, "root": made.root}).record()
        )
        return made

    def close(self) -> None:
        """Write a last checkpoint if there are records after the previous one, and close the log."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._attempt()
        self._sink.close()

    def _due(self) -> None:
        with self._lock:
            self._timer = None
        if not self._attempt():
            with self._lock:
                self._timer = Timer(self._every, self._due)
                self._timer.daemon = True
                self._timer.start()

    def _attempt(self) -> bool:
        try:
            self.observe(self.checkpoint())
        except Exception as error:  # noqa: BLE001 (a second place may fail in any way)
            _log.warning("a checkpoint of the audit log could not be written: %s", error)
            self.observe(None)
            return False
        return True
