"""Questions of several generations that arrive together share one call of the backend."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.worker import Worker

WINDOW_S = 0.004
"""How long a call waits for company, where there was some lately."""
MOST_IMAGES = 64


@dataclass(slots=True)
class _Waiting:
    images: Sequence[Image]
    questions: Sequence[str]
    answer: Future[Probabilities] = field(default_factory=Future)


class Batcher:
    """Puts the same questions about several callers' images in one call, first come, first served.

    What arrives while a call runs is answered by the next one. A generation alone never waits: only after a call that
    was shared does the next one wait for company, :data:`WINDOW_S` at most. Where a shared call fails, each caller's
    question is put once more by itself, so that one's picture cannot fail another's.

    Args:
        call: the backend's, checked.
        worker: whose thread runs it.
    """

    def __init__(self, call: Callable[[Sequence[Image], Sequence[str]], Probabilities], worker: Worker) -> None:
        self._call = call
        self._worker = worker
        self._waiting: deque[_Waiting] = deque()
        self._arrived = threading.Condition()
        self._company = False

    def submit(self, images: Sequence[Image], questions: Sequence[str]) -> Future[Probabilities]:
        """Queue a question; cancelled before its turn, it is never asked."""
        waiting = _Waiting(images, questions)
        with self._arrived:
            self._waiting.append(waiting)
            self._arrived.notify_all()
        self._worker.submit(self._turn)
        return waiting.answer

    def _turn(self) -> None:
        together = self._take()
        if not together:
            return  # an earlier turn has answered it
        self._company = len(together) > 1
        try:
            answers = self._call([image for each in together for image in each.images], together[0].questions)
        except BaseException as error:  # noqa: BLE001 (the caller gets it)
            for each in together:
                if len(together) == 1:
                    each.answer.set_exception(error)
                else:
                    self._alone(each)
            return
        start = 0
        for each in together:
            each.answer.set_result(answers[start : start + len(each.images)])
            start += len(each.images)

    def _alone(self, waiting: _Waiting) -> None:
        try:
            waiting.answer.set_result(self._call(waiting.images, waiting.questions))
        except BaseException as error:  # noqa: BLE001 (the caller gets it)
            waiting.answer.set_exception(error)

    def _take(self) -> list[_Waiting]:
        """The first in line, and those behind it who ask the same."""
        with self._arrived:
            if self._company and len(self._waiting) == 1:
                self._arrived.wait_for(lambda: len(self._waiting) > 1, WINDOW_S)
            taken: list[_Waiting] = []
            left: deque[_Waiting] = deque()
            room = MOST_IMAGES
            while self._waiting:
                each = self._waiting.popleft()
                fits = not taken or (each.questions == taken[0].questions and len(each.images) <= room)
                if not fits:
                    left.append(each)
                elif each.answer.set_running_or_notify_cancel():
                    taken.append(each)
                    room -= len(each.images)
            self._waiting = left
            return taken
