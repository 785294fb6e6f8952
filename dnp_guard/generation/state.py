"""What a session knows of one generation, as a frozen value that another process can go on with."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.generation.judge import History
from dnp_guard.generation.pacing import Pace
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.types import Decision, InputReport, Negative, Outcome, QueryReport

VERSION: Final = 6
"""Of the state: raised when its fields change, so that no process goes on with a state that it cannot read."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a generation was asked for, as far as the host knows.

    Attributes:
        images: number of images in the batch.
        host: ``host{name, version, target}`` of the record.
        prompts: the prompts, where the host tells them.
        run: ``run{seed, scheduler, steps, guidance_scale, size}`` of the record.
        takes_up: whether the host hands over a step when a late answer has come, and not only when a query is due;
            with ``queries.wait: false`` it is not made to wait.
        shows: the most pictures of one image in a query, such as frames of a video.
        subject: keyed hash of the person whom it is for; None where the host does not say.
        draws_again: whether the host can make an image again from its seed.
    """

    images: int
    host: Mapping[str, Any]
    prompts: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    takes_up: bool = False
    shows: int = 1
    subject: str | None = None
    draws_again: bool = False


@dataclass(frozen=True, slots=True)
class ImageState:
    """What a session knows of one image.

    Attributes:
        history: what the judge remembers of it.
        last: the decision of its last query.
        final: the decision of the final look.
        secret: whether it shows, or showed, something sensitive.
        negative: what it is steered away from.
        queries: every answered query.
        negatives: every negative that could take effect, with the first step that it steers.
        pace: how often it has been asked about.
        compared: categories that the last decoded preview was asked about.
        baseline: P(category) in the request's own picture, which ``more_than_input`` compares with.
        attempts: how often it was made, the attempt that runs included.
        retried: the decision of the final look for which it is made again.
        not_again: why it was not made again, or its last attempt failed; empty where neither is so.
    """

    history: History = field(default_factory=History)
    last: Decision | None = None
    final: Decision | None = None
    secret: bool = False
    negative: Negative | None = None
    queries: tuple[QueryReport, ...] = ()
    negatives: tuple[tuple[int, Negative], ...] = ()
    pace: Pace = field(default_factory=Pace)
    compared: frozenset[str] = frozenset()
    baseline: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    attempts: int = 1
    retried: Decision | None = None
    not_again: str = ""

    @property
    def effective(self) -> Negative | None:
        """The latest negative that could take effect."""
        return self.negatives[-1][1] if self.negatives else None

    @property
    def acted_on(self) -> bool:
        """Whether the last query found, or something still held asks for, more than a record."""
        return self.last is not None and self.last.action not in {None, Action.MONITOR}


@dataclass(frozen=True, slots=True)
class State:
    """What a session remembers between two calls.

    Attributes:
        id: of the session.
        images: one state per image.
        total: steps of the run, once a step was planned; None before, and where nobody knows.
        answered: the last step whose query was answered; -1 for none.
        missed: whether a query was missed and no later one was answered.
        caused: whether the request itself caused the miss.
        looking: whether the session asks at all.
        in_flight: whether a query is being answered while denoising goes on.
        recorded: whether every record was written.
        degraded: why the guard could not do its job, in order.
        inputs: what was seen in the request's own pictures.
        outcomes: one per image; None before the generation is over.
        drawing: the images of the attempt that runs, or ran last; None for all, in the first.
        retry_ms: how long further attempts took.
        began: when the request and its latest attempt began, in seconds since 1970; None before.
        version: of this form.
    """

    id: str
    images: tuple[ImageState, ...]
    total: int | None = None
    answered: int = -1
    missed: bool = False
    caused: bool = False
    looking: bool = True
    in_flight: bool = False
    recorded: bool = True
    degraded: tuple[str, ...] = ()
    inputs: tuple[InputReport, ...] = ()
    outcomes: tuple[Outcome, ...] | None = None
    drawing: frozenset[int] | None = None
    retry_ms: float = 0.0
    began: tuple[float, float] | None = field(default=None, compare=False)
    version: int = VERSION

    @property
    def drawn(self) -> tuple[int, ...]:
        """The images of the attempt that runs, or ran last, in order."""
        return tuple(range(len(self.images)) if self.drawing is None else sorted(self.drawing))

    @property
    def turned_away(self) -> bool:
        """Whether the request is refused for one of its own pictures."""
        return any(each.action == "block" for each in self.inputs)
