"""Backends that combine two others: a second opinion on every query, or a larger model for finished images."""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dnp_guard.vlm.answers import probabilities
from dnp_guard.vlm.base import Backend, Query, as_backend
from dnp_guard.vlm.plugin import build
from dnp_guard.vlm.worker import apart

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Asked


class _Pair(Backend):
    """Base of the two backends that combine two others.

    A pair is local, batches images and takes concurrent calls only as far as both members do.
    """

    between = " + "

    name: Any = property(lambda self: self.between.join(member.info.name for member in self.pair))
    revision: Any = property(lambda self: self.between.join(member.info.revision for member in self.pair))
    local: Any = property(lambda self: all(member.info.local for member in self.pair))
    addresses: Any = property(lambda self: tuple(url for member in self.pair for url in member.info.addresses))
    answers: Any = property(
        lambda self: "text" if any(member.info.answers == "text" for member in self.pair) else "probabilities"
    )
    batches: Any = property(lambda self: all(member.batches for member in self.pair))
    at_once: Any = property(lambda self: min(member.at_once for member in self.pair))

    def __init__(self, *pair: str | Asked) -> None:
        with ExitStack() as undo:
            self.pair = tuple(_built(vlm, undo) for vlm in pair)
            undo.pop_all()

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Sequence[Sequence[float]]:
        """Ask about images that are not finished; see :meth:`put`."""
        return self.put(Query(tuple(images), tuple(questions)))

    def states(self) -> Mapping[str, str]:
        """Return the states of the circuit breakers of both backends."""
        return {url: state for member in self.pair for url, state in member.states().items()}

    def close(self) -> None:
        """Close both backends."""
        for member in self.pair:
            member.close()

    @property
    def members(self) -> tuple[Backend, ...]:
        """The members of both backends."""
        return tuple(member for backend in self.pair for member in backend.members)


def _built(vlm: str | Asked, undo: ExitStack) -> Backend:
    if not isinstance(vlm, str):
        return as_backend(vlm)
    backend = build(vlm)
    undo.callback(backend.close)
    return backend


class Either(_Pair):
    """Two backends that get every query at the same time; a category is seen if either of them sees it.

    For the questions in ``loosening``, whose "yes" makes a verdict milder, the lower answer applies. If one of the two
    does not answer, the query fails: a second opinion that can be silenced is worth nothing.

    Args:
        first: a backend, an object with ``ask``, or the spec of a built-in backend.
        second: another backend, in one of these forms.

    Raises:
        VlmUnavailable: one of them cannot be built or has no ``ask`` method.
    """

    def __init__(self, first: str | Asked, second: str | Asked) -> None:
        super().__init__(first, second)

    def put(self, query: Query) -> Probabilities:
        """Query both backends, and take the stricter answer to each question."""
        first, second = self.pair
        shape = len(query.images), len(query.questions)
        other = apart(lambda: probabilities(second.put(query), *shape))
        try:
            answers = probabilities(first.put(query), *shape)
        finally:
            wait([other])  # the call is not over until both have returned
        return strictest(answers, other.result(), query.loosening)


class AtFinal(_Pair):
    """Queries a larger model about finished images, and a smaller one about images that are still being denoised.

    Args:
        large: queried about finished images: a backend, an object with ``ask``, or the spec of a built-in backend.
        otherwise: queried about all other images.

    Raises:
        VlmUnavailable: one of them cannot be built or has no ``ask`` method.
    """

    between = ", finally "

    def __init__(self, large: str | Asked, *, otherwise: str | Asked) -> None:
        super().__init__(otherwise, large)

    def put(self, query: Query) -> Sequence[Sequence[float]]:
        """Query the larger model if the images are finished, and the smaller one otherwise."""
        return self.pair[query.final].put(query)


def strictest(first: Probabilities, second: Probabilities, loosening: Collection[int] = ()) -> Probabilities:
    """Combine the answers of two backends to the stricter one for every image and question.

    Args:
        first: probabilities of "yes", shape [images, questions].
        second: likewise.
        loosening: positions of the questions whose "yes" makes a verdict milder: for them the lower probability is
            stricter, for all others the higher one.
    """
    return tuple(
        tuple((min if k in loosening else max)(pair) for k, pair in enumerate(zip(*rows, strict=True)))
        for rows in zip(first, second, strict=True)
    )


def composed(vlm: str, second_opinion: str | None = None, final: str | None = None) -> Backend:
    """Build the backend that the options of a command describe.

    Args:
        vlm: spec of the backend.
        second_opinion: spec of a backend that is queried as well; see :class:`Either`.
        final: spec of a backend that is queried about finished images instead; see :class:`AtFinal`.

    Raises:
        VlmUnavailable: one of them cannot be built.
    """
    small = Either(vlm, second_opinion) if second_opinion is not None else build(vlm)
    return AtFinal(final, otherwise=small) if final is not None else small
