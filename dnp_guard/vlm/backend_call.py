"""One call of a backend, which may answer several callers at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from dnp_guard.errors import VlmError, VlmTimeout, own
from dnp_guard.vlm.answers import probabilities
from dnp_guard.vlm.cuda_stream import own_stream
from dnp_guard.vlm.deadline import within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Thread

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Backend
    from dnp_guard.vlm.waiting import Pending


@dataclass(slots=True, eq=False)
class BackendCall:
    """One call of the backend. A thread of the desk, which queues the queries, reuses the object for its next call.

    Attributes:
        thread: makes the call: a thread of the desk, or the caller's own when there is only one caller.
        places: the pending queries that the call answers; they ask the same questions.
        since: when the call began, on the monotonic clock.
        late_ms: longest deadline, in milliseconds, of the callers that have given up waiting for the call; 0 for none.
    """

    thread: Thread
    places: Sequence[Pending] = ()
    since: float = 0.0
    late_ms: float = 0.0

    def outlives(self, left_ms: float) -> bool:
        """Return whether the call is late and has already taken as long as another caller would wait, or longer.

        Args:
            left_ms: milliseconds that the other caller would wait.
        """
        return self.late_ms > 0 and left_ms <= max(self.late_ms, (monotonic() - self.since) * 1000)

    def make(self, backend: Backend) -> None:
        """Query the backend, and hand each caller its answer or the error.

        When a call for several callers fails, the query of every caller that still waits is sent once more, alone.
        """
        try:
            rows = self.places[0].context.run(_put, backend, self.places)
        except BaseException as error:  # noqa: BLE001 (the caller gets it)
            if len(self.places) == 1:
                self.places[0].answer.set_exception(error)
                return
            for place in self.places:
                if not place.gone:
                    replace(self, places=[place]).make(backend)
            return
        start = 0
        for place in self.places:
            end = start + len(place.query.images)
            place.answer.set_result(rows[start:end])
            start = end


def _put(backend: Backend, places: Sequence[Pending]) -> Probabilities:
    """Query the backend about the images of all callers, and check the answers."""
    images = tuple(image for place in places for image in place.query.images)
    if not _ours(backend):
        images = tuple(image.copy() for image in images)  # a backend may draw on the images it gets
    query = replace(places[0].query, images=images)
    ends = [place.ends for place in places if place.ends is not None]
    left = (max(ends) - monotonic()) * 1000 if len(ends) == len(places) else None
    try:
        with within(left), own_stream():
            return probabilities(backend.put(query), len(query.images), len(query.questions))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, VlmError) and own(error):
            raise
        kind = VlmTimeout if isinstance(error, TimeoutError) else _kind(error)
        # Leave out the error's message: it may quote the question, and messages go into records.
        message = f"the backend {backend.info.name} raised {type(error).__name__}"
        raise kind(message, hint="Its traceback is chained to this error; no record quotes it.") from error


def _ours(backend: Backend) -> bool:
    """Return whether all parts of the backend belong to this package, so that none of them changes the pictures."""
    backends = (getattr(member, "wrapped", member) for member in backend.members)
    return all(type(backend).__module__.startswith("dnp_guard.") for backend in backends)


def _kind(error: BaseException) -> type[VlmError]:
    """Return the most specific VLM error class of this package that an error belongs to, or else :class:`VlmError`."""
    ours = (kind for kind in type(error).__mro__ if issubclass(kind, VlmError) and kind.__module__ == _ERRORS)
    return next(ours, VlmError)


_ERRORS = VlmError.__module__
