"""Where records go. A sink seals each event into its own chain; more kinds come from plugins.

A chain without a key finds accidents and partial edits at their line; rewriting to the end or cutting the tail is found
only against a checkpoint kept elsewhere.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dnp_guard.audit.chain import ZERO, parse, seal

if TYPE_CHECKING:
    from collections.abc import Mapping


@runtime_checkable
class Sink(Protocol):
    """Takes events, one after another, from any thread."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Keep one event; when this returns, it is written.

        Args:
            event: what :func:`dnp_guard.audit.record.build` makes.

        Raises:
            Exception: it could not be kept, and nothing of it was.
        """

    def close(self) -> None:
        """Let go of what the sink holds; a second call does nothing."""


class MemorySink:
    """A log in memory, for tests and for looking at what a guard would write.

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
        """Seal an event and keep it."""
        with self._lock:
            line, self._prev = seal(event, len(self.lines), self._prev)
            self.lines.append(line)

    def close(self) -> None:
        """Do nothing."""
