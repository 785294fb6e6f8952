"""The state of one generation's session: a frozen value that another process can continue from."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from dnp_guard.generation.judge import History
from dnp_guard.generation.pacing import Pace
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.types import Decision, InputReport, Negative, Outcome, QueryReport

VERSION: Final = 7
"""Version of the state. Raise it when fields change, so that no process continues a state that it cannot read."""

Reach = Literal["none", "guided", "alone", "lost"]
"""Whether the host can steer in its denoiser's attention.

``guided``: it can. ``alone``: it can, but has no unconditional prediction, so attention has no separate guidance term
beside it. ``lost``: it tried and failed. ``none``: it cannot.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to generate images, as far as the host knows it.

    Attributes:
        images: number of images in the batch.
        host: ``host{name, version, target}`` of the audit record.
        prompts: the prompts, if the host passes them on.
        run: ``run{seed, scheduler, steps, guidance_scale, size}`` of the audit record.
        takes_up: whether the host calls the guard at every step at which a late answer has arrived, and not only at due
            ones; ``queries.wait: false`` needs that.
        shows: largest number of pictures of one image in a query, such as frames of a video.
        subject: keyed hash of the person whom the request is for; None if the host does not say.
        draws_again: whether the host can draw an image again from its seed.
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
    """State of one image of a session between two calls.

    Attributes:
        history: categories found and held so far, for the judge.
        last: decision after the last query during denoising.
        final: decision after the final look, the query of the finished image.
        secret: whether any query found a sensitive category in the image.
        negative: the negative prompt that steers the image now.
        queries: all answered queries.
        negatives: all negatives that could take effect, with the first step that they steer.
        pace: the time and the step that decide when to query the image again.
        compared: categories that the query of the last decoded preview asked about.
        baseline: P(category) in the request's own picture, for ``more_than_input``.
        attempts: number of attempts, the running one included.
        retried: the final look's decision that caused the running retry.
        not_again: why the image was not drawn again, or why its last retry failed; empty if neither applies.
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
        """Whether the last decision during denoising calls for more than a record, such as steering."""
        return self.last is not None and self.last.action not in {None, Action.MONITOR}


@dataclass(frozen=True, slots=True)
class State:
    """State of a session between two calls.

    Attributes:
        id: id of the session.
        images: one state per image of the batch.
        total: number of steps of the run, once a step was planned; None before, and if unknown.
        answered: the last step whose query was answered, is running, or skipped every image; -1 for none.
        missed: whether a query was missed and no later one was answered.
        caused: whether the request itself caused the missed query.
        looking: whether the session puts queries at all.
        in_flight: whether a query is being answered while denoising goes on.
        recorded: whether every record was written.
        degraded: reasons why the guard could not do its job, in order.
        inputs: reports on the request's own pictures.
        outcomes: one per image; None before the generation is over.
        drawing: indices of the images that the running or last retry draws; None in the first attempt, which draws all.
        retry_ms: how long the retries took, in milliseconds.
        reach: whether the host can steer in its denoiser's attention.
        began: when the request and its latest attempt began, in seconds since 1970; None before.
        version: version of this class.
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
    reach: Reach = "none"
    began: tuple[float, float] | None = field(default=None, compare=False)
    version: int = VERSION

    @property
    def drawn(self) -> tuple[int, ...]:
        """The indices of the images that the running or last attempt draws, ascending."""
        return tuple(range(len(self.images)) if self.drawing is None else sorted(self.drawing))

    @property
    def turned_away(self) -> bool:
        """Whether the request is refused for one of its own pictures."""
        return any(report.action == "block" for report in self.inputs)
