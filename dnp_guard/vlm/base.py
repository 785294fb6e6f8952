"""The contract that every vision-language backend keeps: one class, whose defaults are those of a model in process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dnp_guard.errors import VlmUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image

    Rows = Sequence[Sequence[float]]
    """Probabilities, shape [images, questions]."""


@dataclass(frozen=True, slots=True)
class Query:
    """Questions about images, as a desk hands them to a backend.

    Attributes:
        images: RGB pictures of any size.
        questions: put about each of them.
        loosening: which questions, by position, make a verdict milder by "yes".
        final: whether the images are finished.
    """

    images: tuple[Image, ...]
    questions: tuple[str, ...]
    loosening: frozenset[int] = frozenset()
    final: bool = False


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """Who answers, as the audit records it.

    Attributes:
        name: of the model.
        revision: of its weights.
        local: whether images stay on this machine.
        addresses: the base URLs that images go to.
        answers: ``"probabilities"`` or ``"text"``.
    """

    name: str
    revision: str
    local: bool
    addresses: tuple[str, ...] = ()
    answers: str = "probabilities"


class Asked(Protocol):
    """What users may pass as a backend: anything that can be asked. What else it has of :class:`Backend` is used."""

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Rows:
        """Probability of "yes" for every image and question; see :meth:`Backend.ask`."""
        ...


class Backend:
    """Answers yes/no questions about images, in probabilities. A subclass needs :meth:`ask` and no more.

    Attributes:
        name: written to the audit record; the name of the class where it is empty.
        revision: of the weights, written to the audit record.
        local: False where images leave this machine.
        addresses: the base URLs that images go to.
        answers: ``"text"`` where yes and no are all it can say, and no probability between.
        mode: how the answers are got from a server that can be asked in several ways.
        batches: whether one call about many images takes less time than many calls.
        at_once: how many calls it takes at the same time; a model in process takes one, a server several.
    """

    name: str = ""
    revision: str = "unknown"
    local: bool = True
    addresses: Sequence[str] = ()
    answers: str = "probabilities"
    mode: str = ""
    batches: bool = False
    at_once: int = 1

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Rows:
        """Probability of "yes" for every image and question.

        Each question is put about one image at a time; what one image holds never answers for another.

        Args:
            images: RGB pictures of any size.
            questions: rendered from the policy alone.

        Returns:
            Rows of probabilities 0…1, shape [len(images), len(questions)].

        Raises:
            VlmError: the question could not be answered.
        """
        raise NotImplementedError

    def put(self, query: Query) -> Rows:
        """Answer a query; a backend made of others decides by it whom it asks, and any other only asks."""
        return self.ask(query.images, query.questions)

    def accepts(self, questions: Sequence[str]) -> None:
        """See that the backend can answer the questions of a policy; any can be put to a model that reads.

        Raises:
            VlmUnavailable: one cannot be answered.
        """

    def states(self) -> Mapping[str, str]:
        """Each base URL with the state of its breaker; nothing for a model in process."""
        return {}

    def close(self) -> None:
        """Let go of what it holds, such as connections."""

    @property
    def members(self) -> tuple[Backend, ...]:
        """The backends that answer: those that it is made of, or itself."""
        return (self,)

    @property
    def info(self) -> BackendInfo:
        """Who answers."""
        return BackendInfo(
            name=str(self.name or type(self).__name__),
            revision=str(self.revision or "unknown"),
            local=bool(self.local),
            addresses=tuple(map(str, self.addresses)),
            answers=str(self.answers),
        )


def _name(of: object) -> object:
    if isinstance(of, Backend):
        return of.info.name
    name = getattr(of, "name", "")
    return type(of).__name__ if name == "" else name


def _of_the_other(attribute: str) -> Any:
    default = getattr(Backend, attribute)
    return property(lambda self: getattr(self.wrapped, attribute, default))


class Wrapped(Backend):
    """A backend made of another, or of any object that can be asked.

    Its attributes are the other's, read each time, as a server's revision may change; what the other lacks has the
    default of :class:`Backend`.

    Args:
        wrapped: who is asked.
    """

    name: Any = property(lambda self: _name(self.wrapped))
    revision: Any = _of_the_other("revision")
    local: Any = _of_the_other("local")
    addresses: Any = _of_the_other("addresses")
    answers: Any = _of_the_other("answers")
    mode: Any = _of_the_other("mode")
    batches: Any = _of_the_other("batches")
    at_once: Any = _of_the_other("at_once")

    def __init__(self, wrapped: Asked) -> None:
        self.wrapped = wrapped

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Rows:
        """Ask the other."""
        return self.wrapped.ask(images, questions)

    def put(self, query: Query) -> Rows:
        """Put a query to the other."""
        if isinstance(self.wrapped, Backend):
            return self.wrapped.put(query)
        return self.wrapped.ask(query.images, query.questions)

    def accepts(self, questions: Sequence[str]) -> None:
        """Ask the other, where it can say."""
        accepts: Callable[[Sequence[str]], None] = getattr(self.wrapped, "accepts", super().accepts)
        accepts(questions)

    def states(self) -> Mapping[str, str]:
        """The other's."""
        states: Callable[[], Mapping[str, str]] = getattr(self.wrapped, "states", super().states)
        return states()

    def close(self) -> None:
        """Close the other, where it can be."""
        close: Callable[[], None] = getattr(self.wrapped, "close", super().close)
        close()

    @property
    def members(self) -> tuple[Backend, ...]:
        """The other's."""
        return self.wrapped.members if isinstance(self.wrapped, Backend) else (self,)


def as_backend(vlm: Asked) -> Backend:
    """An object that can be asked, as a backend; a backend as it is.

    Raises:
        VlmUnavailable: it cannot be asked.
    """
    if isinstance(vlm, Backend):
        return vlm
    if not callable(getattr(vlm, "ask", None)):
        raise VlmUnavailable(
            f"vlm={vlm!r} has no ask(images, questions)", hint="Pass a spec such as 'glyphs', or such an object."
        )
    return Wrapped(vlm)
