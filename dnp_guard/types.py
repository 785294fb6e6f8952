"""The values of one generation: decisions, reports and their parts. They are frozen, and independent of torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

GuidanceMode = Literal["separate", "replace", "attention", "auto"]


class _Ranked(StrEnum):
    """A string enumeration whose members are listed from the mildest to the strictest."""

    @property
    def rank(self) -> int:
        """Position in the order, 0 for the mildest."""
        return list(type(self)).index(self)

    @classmethod
    def strictest(cls, first: Self, *others: Self) -> Self:
        """Return the strictest of some members."""
        return max(first, *others, key=lambda member: member.rank) if others else first


class Action(_Ranked):
    """The response to a finding, mildest first. ``retry`` generates the image again; ``block`` withholds it."""

    MONITOR = "monitor"
    STEER = "steer"
    BLUR = "blur"
    RETRY = "retry"
    BLOCK = "block"


class Outcome(_Ranked):
    """How an image ended, mildest first.

    ``failed_open``, ``failed_closed``: the guard could not do its job, and the policy delivers or withholds the image.
    ``unasked``: the policy only records (mode ``shadow``), and no query was answered.
    """

    FAILED_OPEN = "failed_open"
    UNASKED = "unasked"
    CLEAN = "clean"
    MONITORED = "monitored"
    STEERED = "steered"
    BLURRED = "blurred"
    BLOCKED = "blocked"
    FAILED_CLOSED = "failed_closed"

    @property
    def withholds(self) -> bool:
        """Whether the image must not be delivered."""
        return self in {Outcome.BLOCKED, Outcome.FAILED_CLOSED}


@dataclass(frozen=True, slots=True)
class Question:
    """One yes/no question about one image.

    Attributes:
        category: id of the policy's category.
        term: the ``look_for`` term or ``allowed`` case that it asks about, or the title of a category without terms.
        text: text for the vision-language model.
    """

    category: str
    term: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A term of the policy that the model sees in an image, with a probability at or above the threshold.

    Attributes:
        category: id of the policy's category.
        term: the ``look_for`` term.
        probability: probability of the answer yes, 0 to 1.
        threshold: threshold that the probability reached.
    """

    category: str
    term: str
    probability: float
    threshold: float


@dataclass(frozen=True, slots=True)
class InAttention:
    """How a negative prompt steers the denoiser's attention over the user's prompt (NAG, arXiv 2505.21179).

    Attributes:
        phi: how far to extrapolate away from the negative prompt; 1 for not at all.
        tau: largest norm of a steered feature vector, as a multiple of its norm before.
        alpha: weight of the steered features against the original ones at the negative's strength, 0 to 1.
        mask: fraction of the image positions to steer, 0 to 1.
    """

    phi: float
    tau: float
    alpha: float
    mask: float = 1.0

    @property
    def acts(self) -> bool:
        """Whether these settings change the attention at all."""
        return self.phi > 1 and self.alpha > 0


@dataclass(frozen=True, slots=True)
class Negative:
    """A negative prompt for one image, made of words of the policy only.

    Attributes:
        words: words or phrases, in policy order.
        scale: scale of the separate guidance term; None if there is no such term.
        mode: how the negative enters the guidance.
        categories: ids of the categories to steer away from.
        attention: how to steer the denoiser's attention; None if attention is not steered.
        groups: words by category, without repetition, in policy order; only with ``attention``.
    """

    words: tuple[str, ...]
    scale: float | None
    mode: GuidanceMode
    categories: tuple[str, ...]
    attention: InAttention | None = None
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def text(self) -> str:
        """The words as one text for the text encoder, separated by commas."""
        return ", ".join(self.words)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one image after an answered query.

    Attributes:
        action: strictest action required; None if nothing is found, and no earlier finding is still steered away from.
        negative: negative prompt for the next steps; None to stop steering.
        findings: findings in policy order, without the waived ones.
        waived: findings that an ``allowed`` case excused.
        probabilities: P(category) for every queried category.
        why: reason, in one sentence for a person.
        would_action: action if no category were in shadow (recorded only); None if that makes no difference.
        would_negative: negative prompt if no category were in shadow; None if that makes no difference, or without one.
        otherwise: if ``action`` is ``retry``, the action that applies in case the image is not generated again.
    """

    action: Action | None
    negative: Negative | None
    findings: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    probabilities: Mapping[str, float]
    why: str
    would_action: Action | None = None
    would_negative: Negative | None = None
    otherwise: Action | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One sampler step, as a host passes it to a session.

    Attributes:
        index: step of this run, 0-based.
        total: number of steps of this run; None if the sampler does not know.
        sigma: noise level of x_t in the host's own parameterisation; None if it has none.
        prediction: clean image predicted at this step, x̂0 = ``pred_original_sample``, latents [B, C, H, W].
        progress: fraction of the run that is done, 0…1; determines when a query is due if ``total`` is None.
        effective: whether a negative can take effect at later steps.
    """

    index: int
    total: int | None
    sigma: float | None
    prediction: Any
    progress: float | None = None
    effective: bool = True


@dataclass(frozen=True, slots=True)
class QueryReport:
    """One answered query about one image, as part of the report.

    Attributes:
        step: step of the query, 0-based; None for the query of the finished image.
        sigma: noise level at that step; None if unknown.
        decision: decision about the image.
        latency_ms: time to the answer for the whole batch, in milliseconds.
        attempt: number of the attempt at the image, from 1.
    """

    step: int | None
    sigma: float | None
    decision: Decision
    latency_ms: float
    attempt: int = 1


InputAction = Literal["pass", "block"]
"""Effect of a request's own picture on the request; ``block`` refuses it."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """The report on one picture that a request contains, such as an image to edit.

    Attributes:
        action: effect on the request.
        decision: decision about the picture, as for a finished image; None if the query was not answered.
    """

    action: InputAction
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """The report on one image of a generation.

    Attributes:
        decision: outcome of the image.
        queries: every answered query, in order.
        negatives: every injected negative, with the first step that it applied to.
        why: reason, in one sentence for a person.
        would: outcome if no category were in shadow (recorded only); None if it is the same.
        attempts: number of attempts at the image.
    """

    decision: Outcome
    queries: tuple[QueryReport, ...]
    negatives: tuple[tuple[int, Negative], ...]
    why: str
    would: Outcome | None = None
    attempts: int = 1

    @property
    def withheld(self) -> bool:
        """Whether the image is withheld, for its content or because the guard could not do its job."""
        return self.decision.withholds

    @property
    def code(self) -> str:
        """The outcome as a short word, for programs."""
        return str(self.decision)


@dataclass(frozen=True, slots=True)
class Report:
    """The report on one generation, as ``guard.last`` returns it.

    Attributes:
        request: id of the generation, as in its audit records.
        policy: name of the policy in force.
        digest: digest of the policy.
        images: one report per image, in the order of the batch.
        degraded: reasons why the guard could not do its job.
        inputs: one report per picture of the request, if the policy queries them.
        retry_ms: total duration of all retries, in milliseconds.
    """

    request: str
    policy: str
    digest: str
    images: tuple[ImageReport, ...]
    degraded: tuple[str, ...]
    inputs: tuple[InputReport, ...] = ()
    retry_ms: float = 0.0

    @property
    def decision(self) -> Outcome:
        """The strictest outcome of all images; ``clean`` if there are none."""
        outcomes = [image.decision for image in self.images]
        return Outcome.strictest(*outcomes) if outcomes else Outcome.CLEAN
