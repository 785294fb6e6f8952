"""Backends made of two: a second opinion, and a larger judge for finished images."""

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
    """What both kinds share: they are as local, and take as much, as the lesser of the two."""

    between = " + "

    name: Any = property(lambda self: self.between.join(each.info.name for each in self.pair))
    revision: Any = property(lambda self: self.between.join(each.info.revision for each in self.pair))
    local: Any = property(lambda self: all(each.info.local for each in self.pair))
    addresses: Any = property(lambda self: tuple(url for each in self.pair for url in each.info.addresses))
    answers: Any = property(
        lambda self: "text" if any(each.info.answers == "text" for each in self.pair) else "probabilities"
    )
    batches: Any = property(lambda self: all(each.batches for each in self.pair))
    at_once: Any = property(lambda self: min(each.at_once for each in self.pair))

    def __init__(self, *pair: str | Asked) -> None:
        with ExitStack() as undo:
            self.pair = tuple(_built(each, undo) for each in pair)
            undo.pop_all()

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Sequence[Sequence[float]]:
        """Ask about images that are not finished; see :meth:`put`."""
        return self.put(Query(tuple(images), tuple(questions)))

    def states(self) -> Mapping[str, str]:
        """Those of both."""
        return {url: state for each in self.pair for url, state in each.states().items()}

    def close(self) -> None:
        """Close both."""
        for each in self.pair:
            each.close()

    @property
    def members(self) -> tuple[Backend, ...]:
        """Those of both."""
        return tuple(member for each in self.pair for member in each.members)


def _built(vlm: str | Asked, undo: ExitStack) -> Backend:
    if not isinstance(vlm, str):
        return as_backend(vlm)
    backend = build(vlm)
    undo.callback(backend.close)
    return backend


class Either(_Pair):
    """Two backends that are asked the same at the same time: what either sees is seen.

    Of the questions in ``loosening``, whose "yes" makes a verdict milder, the lower answer is taken. Where one of the
    two does not answer, the question is not answered: a second opinion that can be silenced would be none.

    Args:
        first: a backend, any object that can be asked, or a spec of a built-in one.
        second: likewise.

    Raises:
        VlmUnavailable: one of them cannot be built or asked.
    """

    def __init__(self, first: str | Asked, second: str | Asked) -> None:
        super().__init__(first, second)

    def put(self, query: Query) -> Probabilities:
        """The stricter of two answers to each question."""
        first, second = self.pair
        shape = len(query.images), len(query.questions)
        other = apart(lambda: probabilities(second.put(query), *shape))
        try:
            answers = probabilities(first.put(query), *shape)
        finally:
            wait([other])  # until both have returned, the call is not over
        return strictest(answers, other.result(), query.loosening)


class AtFinal(_Pair):
    """A larger judge for the finished images, beside a smaller one for those that are still denoised.

    Args:
        large: asked about finished images: a backend, any object that can be asked, or a spec of a built-in one.
        otherwise: asked about all others.

    Raises:
        VlmUnavailable: one of them cannot be built or asked.
    """

    between = ", finally "

    def __init__(self, large: str | Asked, *, otherwise: str | Asked) -> None:
        super().__init__(otherwise, large)

    def put(self, query: Query) -> Sequence[Sequence[float]]:
        """The answers of the one that the images are for."""
        return self.pair[query.final].put(query)


def strictest(first: Probabilities, second: Probabilities, loosening: Collection[int] = ()) -> Probabilities:
    """The stricter of two answers to each question: the lower one where "yes" makes a verdict milder."""
    return tuple(
        tuple((min if k in loosening else max)(pair) for k, pair in enumerate(zip(*rows, strict=True)))
        for rows in zip(first, second, strict=True)
    )


def composed(vlm: str, second_opinion: str | None = None, final: str | None = None) -> Backend:
    """Build the backend that the options of a command name.

    Args:
        vlm: spec of who is asked.
        second_opinion: spec of who is asked beside it; see :class:`Either`.
        final: spec of who is asked about finished images instead; see :class:`AtFinal`.

    Raises:
        VlmUnavailable: one of them cannot be built.
    """
    small = Either(vlm, second_opinion) if second_opinion is not None else build(vlm)
    return AtFinal(final, otherwise=small) if final is not None else small
