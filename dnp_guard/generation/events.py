"""What a session tells: values, for whoever writes records, counts and traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dnp_guard.generation.pacing import Reason
    from dnp_guard.generation.query import Answer
    from dnp_guard.types import Decision, InputReport, Negative, Outcome, Step

RetryOutcome = Literal["cleared", "still_present", "failed", "not_made"]
"""How a further attempt ends: what was seen is gone, or is not; it raised or was not looked at; it never began."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """The guard could not do its job.

    Attributes:
        reason: the label of ``dnp_guard_degraded_total``.
        step: at which step; None for the finished images and outside a step.
        detail: what happened, for a person.
    """

    reason: str
    step: Step | None
    detail: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A due query leaves one image out.

    Attributes:
        image: its index.
        step: at which step.
        reason: why.
        near: how near the probe sees it, where that is the reason.
        attempt: of the image.
    """

    image: int
    step: Step
    reason: Reason
    near: float | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """A query was answered."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A query about so many images was not answered."""

    images: int


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision about one image.

    Attributes:
        image: its index.
        step: the step that was queried; None for the finished image.
        decision: what the judge says, plugins considered.
        answer: the query's answer.
        row: of the image in it.
        applied: the first step that it can steer, where denoising went on meanwhile.
        secret: whether the image shows, or showed, something sensitive.
        attempt: of the image.
    """

    image: int
    step: Step | None
    decision: Decision
    answer: Answer
    row: int
    applied: int | None
    secret: bool
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class InputSeen:
    """One of the pictures that the request brought was answered about, or was not.

    Attributes:
        index: among them.
        report: what was seen, and what becomes of the request.
        latency_ms: how long the answer took; None where there is none.
    """

    index: int
    report: InputReport
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An image shows something sensitive: earlier previews of it must go."""

    image: int


@dataclass(frozen=True, slots=True)
class Injected:
    """An image is steered away from a negative.

    Attributes:
        image: its index.
        step: the step that was queried.
        applied: the first step that the negative steers.
        decision: where the negative comes from.
        negative: its words and scale.
        effective: whether the host can steer at the steps that follow.
        attempt: of the image.
    """

    image: int
    step: Step
    applied: int
    decision: Decision
    negative: Negative
    effective: bool
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Cleared:
    """An image is no longer steered, from step ``applied`` on."""

    image: int
    step: Step
    applied: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class StillPresent:
    """The finished image shows categories that it was steered away from."""

    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retried:
    """An image is made again.

    Attributes:
        image: its index.
        attempt: the attempt that begins, from 2.
        decision: of the final look for which it is.
        negative: what is in force from the first step on.
    """

    image: int
    attempt: int
    decision: Decision
    negative: Negative | None


@dataclass(frozen=True, slots=True)
class RetryEnded:
    """A further attempt of an image is over, or was not made.

    Attributes:
        image: its index.
        outcome: how it ended.
    """

    image: int
    outcome: RetryOutcome


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome of one image is settled.

    Attributes:
        image: its index.
        outcome: what became of it.
        would: what would have become of it if nothing were in shadow; None where it is the same.
        attempts: how often it was made.
        not_again: why it was not made again, or its last attempt failed.
        retry_ms: how long further attempts took.
    """

    image: int
    outcome: Outcome
    would: Outcome | None = None
    attempts: int = 1
    not_again: str = ""
    retry_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The generation ended without finished images."""

    reason: str


Event = (
    Degraded
    | Skipped
    | Answered
    | Unanswered
    | Decided
    | InputSeen
    | Forgotten
    | Injected
    | Cleared
    | StillPresent
    | Retried
    | RetryEnded
    | Finished
    | Abandoned
)
