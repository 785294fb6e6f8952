"""A log whose checkpoints are written to a second place while it grows."""

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
"""Seconds from a record to the checkpoint that covers it."""

_log = logging.getLogger("dnp_guard.audit")


class Kept(Protocol):
    """A sink that knows where its log ends: one in a file or a database."""

    path: Path

    @property
    def head(self) -> Head:
        """Where the log ends now."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Keep one event."""

    def close(self) -> None:
        """Let go of what the sink holds."""


class CheckpointedSink:
    """A log and the checkpoints of it, appended to a file that should lie where the log's writer cannot change it.

    Some time after a record, and when the sink is closed, a checkpoint is written, and a ``checkpoint`` record that
    says so. A checkpoint that cannot be written is tried again after the same time; the log goes on meanwhile.

    Args:
        sink: of the log.
        to: the file of the checkpoints; made where it is missing.
        signer: signs them; unsigned where there is none.
        origin: the log's name in them.
        every: seconds from a record to the checkpoint that covers it.

    Attributes:
        path: of the log.
        observe: called with each checkpoint written, and with None for one that could not be.
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
        """Keep one event, and see to it that a checkpoint follows."""
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
            AuditError: it could not be written.
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
        """Write the last checkpoint where there are records since the one before, and close the log."""
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
