"""Ask a backend: check what it answers, turn what it raises into one kind of error, and bound the wait."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.errors import VlmBusy, VlmError, VlmTimeout
from dnp_guard.vlm.answers import Probabilities, probabilities
from dnp_guard.vlm.aside import own_stream
from dnp_guard.vlm.deadline import within
from dnp_guard.vlm.sharing import Batcher
from dnp_guard.vlm.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from PIL.Image import Image

    from dnp_guard.vlm.base import Backend


@dataclass(frozen=True, slots=True)
class Answers:
    """What a backend answered.

    Attributes:
        probabilities: of "yes", shape [images, questions].
        latency_ms: how long the caller waited.
    """

    probabilities: Probabilities
    latency_ms: float


class Asker:
    """Asks one backend, and answers or raises a :class:`~dnp_guard.errors.VlmError` within the deadline.

    A forward pass that is running cannot be cancelled, so a deadline bounds the *waiting*: the call runs on one worker
    thread, and past the deadline it is left to itself. Until it returns, further questions are refused at once.

    A backend that says ``batches = True`` gets the images of several generations that ask the same at the same time in
    one call.

    Args:
        backend: who answers.
        deadline_ms: how long :meth:`ask` may take; None to wait for the answer, in the caller's own thread.
    """

    def __init__(self, backend: Backend, deadline_ms: int | None = None) -> None:
        self.backend = backend
        self.deadline_ms = deadline_ms
        self._worker = Worker()
        self._batcher = Batcher(self._now, self._worker) if getattr(backend, "batches", False) else None
        self._submitting = threading.Lock()
        self._late: Future[Probabilities] | None = None

    def ask(self, images: Sequence[Image], questions: Sequence[str], *, spent_ms: float = 0.0) -> Answers:
        """Put every question about every image.

        Without images, or without questions, the backend is not called.

        Args:
            images: RGB pictures.
            questions: rendered from the policy.
            spent_ms: of the deadline, by what was asked before about the same look.

        Returns:
            The checked answers.

        Raises:
            VlmTimeout: no answer within the deadline.
            VlmBusy: an earlier call that outlived its deadline has not returned yet.
            VlmBadAnswer: the answer has another shape, or holds something that is not a probability.
            VlmError: anything else that the backend raised, its message kept and itself chained.
        """
        if not images or not questions:
            return Answers(((),) * len(images), 0.0)
        if self._worker.closed:
            raise closed()
        images, questions = tuple(images), tuple(questions)
        started = time.perf_counter()
        if self.deadline_ms is None and self._batcher is None:
            answered = self._now(images, questions)
        else:
            deadline = None if self.deadline_ms is None else max(0.0, self.deadline_ms - spent_ms)
            answered = self._within(images, questions, deadline)
        return Answers(answered, (time.perf_counter() - started) * 1000)

    def close(self) -> None:
        """Ask no more, and end the worker thread; a call left running ends it when it returns.

        The backend stays open: it belongs to whoever made it.
        """
        self._worker.close(wait=self._late is None or self._late.done())

    def _now(self, images: Sequence[Image], questions: Sequence[str]) -> Probabilities:
        try:
            with own_stream():
                return probabilities(self.backend.ask(images, questions), len(images), len(questions))
        except VlmError:
            raise
        except Exception as error:
            kind = VlmTimeout if isinstance(error, TimeoutError) else VlmError
            message = str(error) or type(error).__name__
            raise kind(
                message, hint=f"Raised by {type(self.backend).__name__}.ask as {type(error).__name__}."
            ) from error

    def _within(self, images: Sequence[Image], questions: Sequence[str], deadline: float | None) -> Probabilities:
        if deadline == 0:
            raise self._too_late()
        with self._submitting, within(deadline):
            if self._late is not None and not self._late.done():
                raise VlmBusy(
                    "the vision-language model is still computing an answer that came too late",
                    hint="Raise queries.deadline_ms, or ask fewer questions.",
                )
            self._late = None
            if self._batcher is not None:
                call = self._batcher.submit(images, questions)
            else:
                call = self._worker.submit(lambda: self._now(images, questions))
        if self._worker.closed and call.cancel():
            raise closed()  # closed while this was queued, behind the end of the line
        if not wait([call], None if deadline is None else deadline / 1000).done:
            # A call that still waits behind another generation's is taken back; a running one is left to itself.
            if not call.cancel():
                with self._submitting:
                    self._late = call
            raise self._too_late()
        return call.result()

    def _too_late(self) -> VlmTimeout:
        return VlmTimeout(
            f"the vision-language model did not answer within {self.deadline_ms} ms",
            hint="Raise queries.deadline_ms, ask fewer questions, or use a faster model.",
        )


def closed() -> VlmError:
    """What is raised where a guard that is closed is asked."""
    return VlmError("the guard is closed and asks no more", hint="Make a new Guard, or ask before close().")
