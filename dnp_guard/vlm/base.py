"""The contract every vision-language backend keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


@runtime_checkable
class Backend(Protocol):
    """Answers yes/no questions about images, in probabilities.

    An implementation may also have ``name`` and ``revision`` (strings, written to the audit record; the class name and
    ``"unknown"`` otherwise), ``local`` (False when images leave the machine; True otherwise), ``addresses`` (the base
    URLs that images go to), ``answers`` (``"text"`` where yes and no are all it can say, and no probability between;
    ``"probabilities"`` otherwise), ``batches`` (True where one call about many images takes less time than many calls)
    and ``close()``.
    """

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Sequence[Sequence[float]]:
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
        ...


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


def describe(backend: Backend) -> BackendInfo:
    """Read a backend's optional attributes, with the defaults of :class:`Backend`."""
    return BackendInfo(
        name=str(getattr(backend, "name", "") or type(backend).__name__),
        revision=str(getattr(backend, "revision", "") or "unknown"),
        local=bool(getattr(backend, "local", True)),
        addresses=tuple(map(str, getattr(backend, "addresses", ()))),
        answers=str(getattr(backend, "answers", "probabilities")),
    )
