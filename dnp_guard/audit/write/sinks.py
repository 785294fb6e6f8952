"""The protocol of audit sinks, and the sink in memory. A sink seals events into its own chain; plugins add more kinds.

A chain without a key reveals accidents and partial edits at their line. Rewriting to the end, or cutting the tail, is
found only with a checkpoint stored elsewhere.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dnp_guard.audit.chain import ZERO, parse, seal

if TYPE_CHECKING:
    from collections.abc import Mapping


@runtime_checkable
class Sink(Protocol):
    """Stores events, one after another, from any thread."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Store one event; it is written when this returns.

        Args:
            event: a record made by :func:`dnp_guard.audit.record.build`.

        Raises:
            Exception: the event could not be stored, and no part of it was.
        """

    def close(self) -> None:
        """Release the resources of the sink; a second call does nothing."""


class MemorySink:
    """A log in memory, for tests and for inspecting a guard's records.

    Attributes:
        lines: the sealed lines, without newlines.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._prev = ZERO
        self._lock = Lock()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [record for line in self.lines if (record := parse(line)) is not None]

    def write(self, event: Mapping[str, Any]) -> None:
        """Seal an event and store it."""
        with self._lock:
            line, self._prev = seal(event, len(self.lines), self._prev)
            self.lines.append(line)

    def close(self) -> None:
        """Do nothing."""
