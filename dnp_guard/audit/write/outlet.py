"""Write audit records to a sink in a separate thread, so that no generation waits for a slow or failing sink."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections import deque
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.errors import DnpGuardError, Unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dnp_guard.audit.write.sinks import Sink
    from dnp_guard.audit.write.spool import Spool

WAITING: Final = 10_000
"""Most records that wait in memory for a hanging sink; later ones are dropped."""

IDLE: Final = 5.0
"""Seconds after which an idle thread ends; the next record starts another."""

RETRY: Final = 30.0
"""Seconds after which a failing sink is tried again if no record arrives before."""

STALLED: Final = 0.5
"""Seconds without a write after which callers no longer wait for a sink, until it has written again."""

HANGING: Final = 5.0
"""Seconds without a write after which a sink with waiting records is considered to hang."""

_log = logging.getLogger("dnp_guard.audit")


class Outlet:
    """Writes to one sink: a thread, the queue of records that wait for it, and a spool of records that failed.

    Args:
        sink: the sink; only one thread at a time writes to it.
        spool: stores the records that the sink did not accept, until it accepts them.
        failed: function that is called with ``audit_sink`` for every record that the sink does not accept, and once if
            the sink hangs, and with ``audit_dropped`` for every record that is lost.
        outage: function that makes a record of an outage from the affected record and a reason. It is written after the
            first record of an outage, and in place of a lost record.
    """

    def __init__(
        self,
        sink: Sink,
        spool: Spool,
        failed: Callable[[str], None],
        outage: Callable[[Mapping[str, Any], str], Mapping[str, Any]],
    ) -> None:
        self.sink = sink
        self._spool = spool
        self._failed = failed
        self._outage = outage
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._taken = self._done = self._held = 0
        self._stalled = self._closing = self._hangs = False
        self._since = 0.0
        """Time at which the sink last accepted a record, or the first record began to wait."""
        self._change = Condition()
        self._thread: Thread | None = None
        _outlets.add(self)

    def put(self, record: Mapping[str, Any]) -> int:
        """Queue a record; return its number for :meth:`wait`, or 0 if it was dropped because the queue is full."""
        with self._change:
            if len(self._waiting) >= WAITING:
                self._failed("audit_dropped")
                return 0
            if not self._waiting:
                self._since = monotonic()
            elif not self._hangs and monotonic() - self._since > HANGING:
                self._hangs = True  # reported once, until the sink accepts a record
                self._failed("audit_sink")
                _log.warning("an audit sink has accepted no record for %.0f s, and its events wait", HANGING)
            self._waiting.append(record)
            self._taken += 1
            self._wake()
            return self._taken

    def wait(self, number: int, seconds: float) -> bool:
        """Wait until a record is written, unless the sink hangs.

        Args:
            number: number of the record, from :meth:`put`.
            seconds: longest time to wait.

        Returns:
            Whether the sink has stored this record and all records before it.
        """
        with self._change:
            if seconds > 0 and not self._stalled and not self._change.wait_for(lambda: self._done >= number, seconds):
                self._stalled = seconds >= STALLED
            return 0 < number <= self._held

    def settle(self, seconds: float) -> bool:
        """Wait, for some seconds at most, until all records queued so far are written; return whether they are."""
        return self._taken == 0 or self.wait(self._taken, seconds)

    @property
    def keeps_up(self) -> bool:
        """Whether the sink does not hang, and no records are in its spool."""
        with self._change:
            hangs = bool(self._waiting) and monotonic() - self._since > HANGING
            return not hangs and not self._spool

    def close(self, seconds: float) -> None:
        """Write the queued records, try again to write those in the spool, and close the sink.

        Args:
            seconds: longest time to wait for the sink; a sink that still hangs then is not closed.
        """
        with self._change:
            self._closing = True
            self._wake()
            ended = self._change.wait_for(lambda: self._thread is None, seconds)
        if not ended:
            _log.warning("an audit sink hangs, and %d events are unwritten", len(self._waiting) + len(self._spool))
            for _ in range(len(self._waiting)):
                self._failed("audit_dropped")
            return
        try:
            self._spool.drain(self._give)
        except Exception as error:  # noqa: BLE001 (a sink may raise anything)
            _log.warning("an audit sink was closed with %d events unwritten: %s", len(self._spool), _of(error))
        self._spool.leave()
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001 (as above)
            _log.warning("an audit sink could not be closed: %s", _of(error))

    def forked(self) -> None:
        """Empty the queue in a forked child process, since the parent writes the records in it."""
        self._change = Condition()
        self._waiting.clear()
        self._spool.leave()
        self._done = self._held = self._taken
        self._stalled, self._hangs, self._thread = False, False, None

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name="dnp-guard-audit", daemon=True)
            self._thread.start()
        self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closing, RETRY if self._spool else IDLE)
                if not self._waiting and (self._closing or not self._spool):
                    self._thread = None
                    self._change.notify_all()
                    return
                record = self._waiting[0] if self._waiting else None
            held = self._write(record)
            with self._change:
                if record is not None:
                    self._waiting.popleft()
                    self._done += 1
                    self._since = monotonic()
                self._held = self._done if held else self._held
                self._stalled = self._hangs = False
                self._change.notify_all()

    def _write(self, record: Mapping[str, Any] | None) -> bool:
        try:
            if self._spool:
                self._spool.drain(self._give)
            return record is None or self._give(record)
        except BaseException as error:  # noqa: BLE001 (a sink may raise anything, and the thread must survive)
            if record is not None:
                self._miss(record, error)
            return False

    def _give(self, record: Mapping[str, Any]) -> bool:
        """Write a record to the sink; if it can never be written, write a record of its loss instead."""
        try:
            self.sink.write(record)
        except Unwritable as error:
            self._failed("audit_dropped")
            _log.warning("an audit record of %r can never be written, and is left out: %s", record["event"], error)
            self.sink.write(self._outage(record, "audit_dropped"))
            return False
        return True

    def _miss(self, record: Mapping[str, Any], error: BaseException) -> None:
        self._failed("audit_sink")
        missed = [record]
        if not self._spool:
            _log.warning("an audit sink failed, and its events wait until it accepts one: %s", _of(error))
            missed.append(self._outage(record, "audit_sink"))
        for entry in missed:
            if not self._spool.add(entry):
                self._failed("audit_dropped")


def _of(error: BaseException) -> str:
    return error.message if isinstance(error, DnpGuardError) else str(error)


_outlets: weakref.WeakSet[Outlet] = weakref.WeakSet()


def _after_fork() -> None:
    for outlet in list(_outlets):
        outlet.forked()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
