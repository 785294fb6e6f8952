"""The line before a desk: who is next, who may come along, and how many may wait."""

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
"""Images in one call of a backend, where several callers share it."""
MOST_WAITING = 256
"""Questions of one turn that may wait; past it a question is refused at once."""


@dataclass(slots=True, eq=False)
class Pending:
    """A question in line.

    Attributes:
        query: what is asked.
        turn: who asks.
        ends: when the caller stops waiting, on the monotonic clock; None where it waits for the answer.
        context: the caller's context variables.
        answer: where the caller waits for it.
        gone: whether the caller has stopped waiting.
    """

    query: Query
    turn: Hashable = None
    ends: float | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    answer: Future[Probabilities] = field(default_factory=Future)
    gone: bool = False


class FairQueue:
    """Questions that wait, in fair turns: each who asks has a line of their own, and the lines are served in rotation.

    However many questions one of them puts, another's is next but for one of each. At most :data:`MOST_WAITING`
    questions of a turn may wait, so that no turn fills the line for another.
    """

    def __init__(self) -> None:
        self._of: dict[Hashable, deque[Pending]] = {}

    def __len__(self) -> int:
        return sum(map(len, list(self._of.values())))  # it may be read without the lock

    def add(self, place: Pending) -> None:
        """FairQueue a question behind those of its turn.

        Raises:
            VlmBusy: too many of this turn wait.
        """
        waiting = self._of.setdefault(place.turn, deque())
        if len(waiting) >= MOST_WAITING:
            raise crowded()
        waiting.append(place)

    def remove(self, place: Pending) -> bool:
        """Take a question back; whether it was still in line."""
        waiting = self._of.get(place.turn, ())
        if place not in waiting:
            return False
        self._leave([place])
        return True

    def take(self, *, share: bool) -> list[Pending]:
        """Take the next question; nothing from an empty line.

        Args:
            share: take others along that ask the same, one of each turn in rotation, up to :data:`MOST_IMAGES`.
        """
        if not self._of:
            return []
        turn = next(iter(self._of))
        first = self._of[turn][0]
        self._of[turn] = self._of.pop(turn)  # its next question comes after everybody else's
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
        kept = {turn: deque(each for each in of if each not in leaving) for turn, of in self._of.items()}
        self._of = {turn: of for turn, of in kept.items() if of}


def crowded() -> VlmBusy:
    """The refusal of a question of a turn that has too many waiting."""
    return VlmBusy(
        f"{MOST_WAITING} questions wait for the vision-language model",
        hint="Run fewer generations at once, query less often, or use a faster model.",
    )


def _alike(one: Query, other: Query) -> bool:
    """Whether two queries are one, but for the images."""
    return replace(one, images=()) == replace(other, images=())
