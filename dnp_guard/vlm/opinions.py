"""One backend's answers, or two backends' with the stricter of the two taken."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from dnp_guard.vlm.aside import beside
from dnp_guard.vlm.asking import Answers, Asker, closed
from dnp_guard.vlm.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from concurrent.futures import Future

    from PIL.Image import Image

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Backend

T = TypeVar("T")


class Opinions:
    """Asks the guard's backend, and a second one beside it where there is one.

    What either sees is seen. Where one of them does not answer, the question is not answered: a second opinion that can
    be silenced would be none.

    Args:
        backend: who is asked.
        second: who is asked too, at the same time.
        deadline_ms: how long an answer may take; None to wait for it.
    """

    def __init__(self, backend: Backend, second: Backend | None = None, deadline_ms: int | None = None) -> None:
        self.backend = backend
        self._first = Asker(backend, deadline_ms)
        self._second = Asker(second, deadline_ms) if second is not None else None
        self._worker = Worker()
        self._aside = Worker()

    def ask(
        self,
        images: Sequence[Image],
        questions: Sequence[str],
        *,
        loosening: Collection[int] = (),
        spent_ms: float = 0.0,
        **_: object,
    ) -> Answers:
        """Put every question about every image; see :meth:`~dnp_guard.vlm.asking.Asker.ask`.

        Args:
            images: RGB pictures.
            questions: rendered from the policy.
            loosening: which questions, by position, make a verdict milder by "yes"; of two answers to these, the lower
                one counts, and of two answers to any other the higher one.
            spent_ms: of the deadline, by what was asked before about the same look.
        """
        second = self._second
        if second is None:
            return self._first.ask(images, questions, spent_ms=spent_ms)
        started = time.perf_counter()

        def ask_too() -> Answers:  # it may have waited behind another generation's question
            waited_ms = (time.perf_counter() - started) * 1000
            return second.ask(images, questions, spent_ms=spent_ms + waited_ms)

        other = self._worker.submit(ask_too)
        first = self._first.ask(images, questions, spent_ms=spent_ms)
        also = other.result()
        return Answers(
            strictest(first.probabilities, also.probabilities, loosening), max(first.latency_ms, also.latency_ms)
        )

    @property
    def info(self):
        from dnp_guard.vlm.base import describe

        return describe(self.backend)

    def aside(self, call: Callable[[], T]) -> Future[T]:
        """Make a call that asks, beside what the caller goes on to do; such calls are made one after the other.

        Raises:
            VlmError: the guard is closed.
        """
        answer = self._aside.submit(lambda: beside(call))
        if self._aside.closed and answer.cancel():
            raise closed()  # queued behind the end of the line, nobody would ever make it
        return answer

    def close(self) -> None:
        """Ask no more, and end the threads."""
        self._first.close()
        if self._second is not None:
            self._second.close()
        self._worker.close(wait=False)
        self._aside.close(wait=False)


def strictest(first: Probabilities, second: Probabilities, loosening: Collection[int] = ()) -> Probabilities:
    """The stricter of two answers to each question: the lower one where "yes" makes a verdict milder."""
    return tuple(
        tuple((min if k in loosening else max)(pair) for k, pair in enumerate(zip(*rows, strict=True)))
        for rows in zip(first, second, strict=True)
    )
