"""Store the latest report of a guard, for each thread or asyncio task, until the guard itself is released."""

from __future__ import annotations

import itertools
import weakref
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.types import Report


class _Key:
    """Stands for a report in a context variable, without keeping the report alive."""

    __slots__ = ("__weakref__", "of")

    def __init__(self, of: Latest) -> None:
        self.of = weakref.ref(of)


_keys: ContextVar[Mapping[int, _Key]] = ContextVar("dnp_guard.latest", default=MappingProxyType({}))
"""The key of the latest report of each guard, by the number of the guard."""
_numbers: Final = itertools.count()


class Latest:
    """The latest report of one guard, kept apart for every thread and every asyncio task."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._reports: weakref.WeakKeyDictionary[_Key, Report] = weakref.WeakKeyDictionary()

    def get(self) -> Report | None:
        """Return the latest report of this thread or asyncio task; None before the first."""
        key = _keys.get().get(self._number)
        return None if key is None else self._reports.get(key)

    def set(self, report: Report) -> None:
        """Store a report as the latest of this thread or asyncio task."""
        key = _Key(self)
        self._reports[key] = report
        living = {number: other for number, other in _keys.get().items() if other.of() is not None}
        _keys.set(MappingProxyType({**living, self._number: key}))
