"""The line of queries that wait for a backend: who is next, which queries share a call, and how many may wait."""

from __future__ import annotations

import contextvars
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from dnp_guard.errors import VlmBusy

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Query

MOST_IMAGES = 64
"""Images per call of a backend, when several callers share it."""
MOST_WAITING = 256
"""Queries of one asker that may wait; any more are refused at once."""


@dataclass(slots=True, eq=False)
class Pending:
    """A query in line.

    Attributes:
        query: the query.
        turn: who asks, such as a tenant; askers take turns.
        ends: when the caller stops waiting, on the monotonic clock; None if it waits without a limit.
        context: the caller's context variables.
        answer: future on which the caller waits.
        gone: whether the caller has stopped waiting.
    """

    query: Query
    turn: Hashable = None
    ends: float | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    answer: Future[Probabilities] = field(default_factory=Future)
    gone: bool = False


class FairQueue:
    """Queries that wait in fair turns: every asker has a line of their own, and the lines are served in rotation.

    However many queries one asker has in line, another asker's next query waits for no more than one of them. At most
    :data:`MOST_WAITING` queries of one asker may wait.
    """

    def __init__(self) -> None:
        self._of: dict[Hashable, deque[Pending]] = {}

    def __len__(self) -> int:
        return sum(map(len, list(self._of.values())))  # may be read without the lock

    def add(self, place: Pending) -> None:
        """Put a query in line behind the others of the same asker.

        Raises:
            VlmBusy: too many queries of this asker wait.
        """
        waiting = self._of.setdefault(place.turn, deque())
        if len(waiting) >= MOST_WAITING:
            raise crowded()
        waiting.append(place)

    def remove(self, place: Pending) -> bool:
        """Take a query back; return whether it was still in line."""
        waiting = self._of.get(place.turn, ())
        if place not in waiting:
            return False
        self._leave([place])
        return True

    def take(self, *, share: bool) -> list[Pending]:
        """Take the next query, or nothing if the line is empty.

        Args:
            share: also take waiting queries with the same questions, in rotation over the askers, up to
                :data:`MOST_IMAGES` images in all.
        """
        if not self._of:
            return []
        turn = next(iter(self._of))
        first = self._of[turn][0]
        self._of[turn] = self._of.pop(turn)  # its next query comes after everybody else's
        taken, room = [first], MOST_IMAGES - len(first.query.images)
        for place in chain.from_iterable(zip_longest(*self._of.values())) if share else ():
            if place is None or place is first or not _alike(place.query, first.query):
                continue
            if len(place.query.images) <= room:
                taken.append(place)
                room -= len(place.query.images)
        self._leave(taken)
        return taken

    def _leave(self, places: Sequence[Pending]) -> None:
        leaving = set(places)
        rest = {turn: deque(place for place in line if place not in leaving) for turn, line in self._of.items()}
        self._of = {turn: line for turn, line in rest.items() if line}


def crowded() -> VlmBusy:
    """Return the error for a query whose asker already has too many waiting queries."""
    return VlmBusy(
        f"{MOST_WAITING} queries wait for the vision-language model",
        hint="Run fewer generations at once, query less often, or use a faster model.",
    )


def _alike(one: Query, other: Query) -> bool:
    """Return whether two queries differ only in their images."""
    return replace(one, images=()) == replace(other, images=())
