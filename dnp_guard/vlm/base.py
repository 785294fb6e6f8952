"""The contract of a vision-language backend: one class, whose defaults suit a model in this process."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from dnp_guard.errors import VlmUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image

    Rows = Sequence[Sequence[float]]
    """Probabilities, shape [images, questions]."""


@dataclass(frozen=True, slots=True)
class Query:
    """Yes/no questions about images, as they are passed to a backend.

    Attributes:
        images: RGB pictures of any size.
        questions: texts of the questions, which are asked about every image.
        loosening: positions of the questions whose "yes" makes a verdict milder, such as those about allowed cases.
        final: whether the images are finished.
    """

    images: tuple[Image, ...]
    questions: tuple[str, ...]
    loosening: frozenset[int] = frozenset()
    final: bool = False


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """Identity of a backend, as the audit records it.

    Attributes:
        name: name of the model.
        revision: revision of the weights.
        local: whether images stay on this machine.
        addresses: base URLs that images are sent to.
        answers: ``"probabilities"``, or ``"text"`` if the backend can only say yes or no.
    """

    name: str
    revision: str
    local: bool
    addresses: tuple[str, ...] = ()
    answers: str = "probabilities"

    @property
    def digest(self) -> str:
        """Short digest of name and revision: it changes when they change, but does not reveal them."""
        return sha256(f"{self.name}\0{self.revision}".encode()).hexdigest()[:16]


class Asked(Protocol):
    """An object that users may pass as a backend: ``ask`` is required, other attributes of :class:`Backend` are not."""

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Rows:
        """Return the probability of "yes" for every image and question; see :meth:`Backend.ask`."""
        ...


class Backend:
    """Answers yes/no questions about images with probabilities. A subclass only has to define :meth:`ask`.

    Attributes:
        name: written to the audit record; the class name if empty.
        revision: revision of the weights, written to the audit record.
        local: False if images leave this machine.
        addresses: base URLs that images are sent to.
        answers: ``"text"`` if the backend can only say yes or no, with no probability in between.
        mode: how answers are obtained from a server that offers several ways, such as ``logprobs``.
        batches: whether one call about many images is faster than many calls.
        at_once: number of concurrent calls it takes; a model in this process takes one, a server several.
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
        """Return the probability of "yes" for every image and question.

        A question is about one image at a time; the content of one image never affects the answer for another.

        Args:
            images: RGB pictures of any size.
            questions: texts that were made from the policy alone; they contain nothing of a user's prompt.

        Returns:
            Rows of probabilities 0…1, shape [len(images), len(questions)].

        Raises:
            VlmError: a question could not be answered.
        """
        raise NotImplementedError

    def put(self, query: Query) -> Rows:
        """Answer a query. By default call :meth:`ask`; a composite backend chooses a member by the query."""
        return self.ask(query.images, query.questions)

    def accepts(self, questions: Sequence[str]) -> None:
        """Check that the backend can answer a policy's questions; a language model can answer any.

        Raises:
            VlmUnavailable: a question cannot be answered.
        """

    def states(self) -> Mapping[str, str]:
        """Return the state of each base URL's circuit breaker; empty for a model in this process."""
        return {}

    def close(self) -> None:
        """Release resources, such as connections."""

    @property
    def members(self) -> tuple[Backend, ...]:
        """The backends that answer: the members of a composite, or the backend itself."""
        return (self,)

    @property
    def info(self) -> BackendInfo:
        """Identity of the backend, for the audit."""
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
    """A backend around another backend, or around any object with ``ask``.

    Attributes are read from the wrapped object at every access, because a server's revision may change. An attribute
    that the wrapped object lacks has the default of :class:`Backend`.

    Args:
        wrapped: the object that is queried.
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
        """Query the wrapped backend."""
        return self.wrapped.ask(images, questions)

    def put(self, query: Query) -> Rows:
        """Pass a query to the wrapped backend."""
        if isinstance(self.wrapped, Backend):
            return self.wrapped.put(query)
        return self.wrapped.ask(query.images, query.questions)

    def accepts(self, questions: Sequence[str]) -> None:
        """Check that the wrapped backend can answer the questions; one without ``accepts`` can answer any."""
        accepts: Callable[[Sequence[str]], None] = getattr(self.wrapped, "accepts", super().accepts)
        accepts(questions)

    def states(self) -> Mapping[str, str]:
        """Return the states of the circuit breakers of the wrapped backend."""
        states: Callable[[], Mapping[str, str]] = getattr(self.wrapped, "states", super().states)
        return states()

    def close(self) -> None:
        """Close the wrapped backend, if it can be closed."""
        close: Callable[[], None] = getattr(self.wrapped, "close", super().close)
        close()

    @property
    def members(self) -> tuple[Backend, ...]:
        """The members of the wrapped backend; this backend itself if the wrapped object is not a backend."""
        return self.wrapped.members if isinstance(self.wrapped, Backend) else (self,)


def as_backend(vlm: Asked) -> Backend:
    """Wrap an object with ``ask`` as a backend; return a backend unchanged.

    Raises:
        VlmUnavailable: the object has no ``ask`` method.
    """
    if isinstance(vlm, Backend):
        return vlm
    if not callable(getattr(vlm, "ask", None)):
        raise VlmUnavailable(
            f"vlm={vlm!r} has no ask(images, questions)", hint="Pass a spec such as 'glyphs', or such an object."
        )
    return Wrapped(vlm)
