"""Events of a session: values from which records, metrics and traces are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dnp_guard.generation.pacing import Reason
    from dnp_guard.generation.query import Answer
    from dnp_guard.types import Decision, InputReport, Negative, Outcome, Step

RetryOutcome = Literal["cleared", "still_present", "failed", "not_made"]
"""How a retry ends.

``cleared``: the content is gone. ``still_present``: it is not. ``failed``: the retry raised an error, took too long, or
lacks its final look. ``not_made``: no retry began.
"""


@dataclass(frozen=True, slots=True)
class Degraded:
    """The guard could not do its job, for example because a query was not answered.

    Attributes:
        reason: label of ``dnp_guard_degraded_total``.
        step: the sampler step; None for the finished images and outside a step.
        detail: explanation for people.
    """

    reason: str
    step: Step | None
    detail: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A query that is due skips one image.

    Attributes:
        image: index of the image.
        step: the step.
        reason: why the image is skipped.
        near: the latent probe's score divided by its threshold, if ``reason`` is ``unlikely``.
        attempt: number of the attempt at the image, from 1.
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
    """A query was not answered; ``images`` is the number of images that it asked about."""

    images: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The judge decided about one image after an answered query.

    Attributes:
        image: index of the image.
        step: the step that was queried; None for the finished image.
        decision: the decision, after plugins could make it stricter.
        answer: the query's answer.
        row: row of the image in the answer.
        applied: the first step that the decision steers, if denoising went on during the query; otherwise None.
        secret: whether this or an earlier query found a sensitive category in the image.
        attempt: number of the attempt at the image, from 1.
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
    """A query about one of the request's own pictures has ended, with or without an answer.

    Attributes:
        index: index of the picture.
        report: the findings, and whether the request goes on.
        latency_ms: how long the answer took; None if there is none.
    """

    index: int
    report: InputReport
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An image shows a sensitive category: its earlier previews must be deleted."""

    image: int


@dataclass(frozen=True, slots=True)
class Injected:
    """A negative prompt begins to steer an image.

    Attributes:
        image: index of the image.
        step: the step that was queried.
        applied: the first step that the negative steers.
        decision: the decision that calls for the negative.
        negative: the negative, with its words and scale.
        effective: whether the host can steer at the steps that follow.
        attempt: number of the attempt at the image, from 1.
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
    """An image is no longer steered from step ``applied`` on."""

    image: int
    step: Step
    applied: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class StillPresent:
    """A finished image shows categories that it was steered away from."""

    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retried:
    """A retry begins: one image is drawn again, steered from the first step on.

    Attributes:
        image: index of the image.
        attempt: number of the attempt that begins, from 2.
        decision: the decision about the finished image that caused the retry.
        negative: the negative prompt in force from the first step on.
    """

    image: int
    attempt: int
    decision: Decision
    negative: Negative | None


@dataclass(frozen=True, slots=True)
class RetryEnded:
    """The retry of an image is over, or was not made although its final look called for it.

    Attributes:
        image: index of the image.
        outcome: how it ended.
    """

    image: int
    outcome: RetryOutcome


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome of one image is settled.

    Attributes:
        image: index of the image.
        outcome: the outcome.
        would: the outcome if no category were in shadow (recorded only); None if it is the same.
        attempts: number of attempts.
        not_again: why the image was not drawn again, or why its last retry failed; empty if neither applies.
        retry_ms: how long the retries took, in milliseconds.
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
