"""The protocol that audit sinks implement, and a sink in memory. Plugins can add other kinds of sinks.

A sink adds events to a hash chain of its own. This chain has no key: verifying it reveals accidents and partial edits,
with their line. Whether a log was rewritten up to its end, or its tail cut off, is found only with a checkpoint that is
stored elsewhere.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dnp_guard.audit.chain import ZERO, parse, seal

if TYPE_CHECKING:
    from collections.abc import Mapping


@runtime_checkable
class Sink(Protocol):
    """Stores audit events in the order of its calls, which can come from any thread."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Store one event, and return when it is written.

        Args:
            event: a record made by :func:`dnp_guard.audit.record.build`.

        Raises:
            Exception: the event could not be stored; no part of it was written.
        """

    def close(self) -> None:
        """Release the resources of the sink; a second call does nothing."""


class MemorySink:
    """A log in memory, for tests and for inspecting a guard's records.

    Attributes:
        lines: lines of the log, without newlines.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._prev = ZERO
        self._lock = Lock()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of the log, parsed from its lines."""
        return [record for line in self.lines if (record := parse(line)) is not None]

    def write(self, event: Mapping[str, Any]) -> None:
        """Add an event to the hash chain, and store its line."""
        with self._lock:
            line, self._prev = seal(event, len(self.lines), self._prev)
            self.lines.append(line)

    def close(self) -> None:
        """Do nothing, since a log in memory has no resources to release."""
