"""The values that move through one generation. Frozen, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

GuidanceMode = Literal["separate", "replace", "attention", "auto"]


class _Ranked(StrEnum):
    """A string enumeration whose members are defined from the mildest to the strictest."""

    @property
    def rank(self) -> int:
        """Position from the mildest, 0, on."""
        return list(type(self)).index(self)

    @classmethod
    def strictest(cls, first: Self, *others: Self) -> Self:
        """The strictest of some members."""
        return max(first, *others, key=lambda member: member.rank) if others else first


class Action(_Ranked):
    """What a policy asks for when a category is found, mildest first."""

    MONITOR = "monitor"
    STEER = "steer"
    BLUR = "blur"
    RETRY = "retry"
    BLOCK = "block"


class Outcome(_Ranked):
    """What became of an image, mildest first; ``unasked``: in shadow, no query was answered."""

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
        """Whether nothing of the image may be delivered."""
        return self in {Outcome.BLOCKED, Outcome.FAILED_CLOSED}


@dataclass(frozen=True, slots=True)
class Question:
    """One yes/no question about one image.

    Attributes:
        category: id of the policy's category.
        term: the ``look_for`` term (the title where a category has none), or the ``allowed`` case.
        text: what the vision-language model is asked.
    """

    category: str
    term: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A term seen at or over its threshold.

    Attributes:
        category: id of the policy's category.
        term: the ``look_for`` term.
        probability: of the answer yes, 0 to 1.
        threshold: what it was compared with.
    """

    category: str
    term: str
    probability: float
    threshold: float


@dataclass(frozen=True, slots=True)
class InAttention:
    """How a negative steers the attention over the prompt (NAG, arXiv 2505.21179).

    Attributes:
        phi: how far it extrapolates.
        tau: how long a feature vector may become, as a multiple of what it was.
        alpha: the share of what is steered, at the strength of the negative, 0 to 1.
    """

    phi: float
    tau: float
    alpha: float


@dataclass(frozen=True, slots=True)
class Negative:
    """A negative prompt for one image: words of the policy only.

    Attributes:
        words: words or phrases, in policy order.
        scale: s of the separate term, which attention may have beside it; None where there is none.
        mode: how it enters the guidance.
        categories: ids of the categories it is made from.
        attention: how hard it steers the attention over the prompt, where it does.
        groups: there the words of each category by themselves, without repetition, in policy order.
    """

    words: tuple[str, ...]
    scale: float | None
    mode: GuidanceMode
    categories: tuple[str, ...]
    attention: InAttention | None = None
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def text(self) -> str:
        """What the text encoder gets."""
        return ", ".join(self.words)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the judge says of one image at one answered query, or at the final look.

    Attributes:
        action: the strictest action now called for; None when nothing of the policy is seen or held.
        negative: what the next steps are steered away from; None to steer no more.
        findings: what was seen, in policy order, waived findings left out.
        waived: findings that an ``allowed`` case excused.
        probabilities: P(category) for every category asked about.
        why: one sentence for a person.
        would_action: what the action would be if nothing were in shadow; None where nothing is.
        would_negative: likewise.
        otherwise: what is done where ``action`` is a retry and the image is not made again.
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
    """One sampler step, as a host hands it to a session.

    Attributes:
        index: 0-based step of this run.
        total: steps this run executes; None where the sampler does not know.
        sigma: the noise level of x_t in the host's own parameterisation; None where it has none.
        prediction: the clean image predicted at this step, x̂0 = ``pred_original_sample``, latents [B, C, H, W].
        progress: the part of the run that is done, 0…1; where ``total`` is None it says when a look is due.
        effective: whether a negative can take effect at the steps that follow.
    """

    index: int
    total: int | None
    sigma: float | None
    prediction: Any
    progress: float | None = None
    effective: bool = True


@dataclass(frozen=True, slots=True)
class QueryReport:
    """One answered query about one image, for the report.

    Attributes:
        step: 0-based; None for the final look.
        sigma: the noise level at that step.
        decision: what the judge said.
        latency_ms: how long the answer took, the batch's time.
        attempt: at which the image was asked about, from 1.
    """

    step: int | None
    sigma: float | None
    decision: Decision
    latency_ms: float
    attempt: int = 1


InputAction = Literal["pass", "block"]
"""What becomes of a request for one of its own pictures; ``block``: it is refused."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """What was seen in one of the pictures that a request brought.

    Attributes:
        action: what becomes of the request for it.
        decision: what would be decided of a finished image that shows this; None where it was not answered about.
    """

    action: InputAction
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What happened to one image of a generation.

    Attributes:
        decision: the image's outcome.
        queries: every answered query, in order; the final one has no step.
        negatives: each negative injected, with the first step it applied to.
        why: one sentence for a person.
        would: what the outcome would have been if nothing were in shadow; None where it is the same.
        attempts: how often the image was made.
    """

    decision: Outcome
    queries: tuple[QueryReport, ...]
    negatives: tuple[tuple[int, Negative], ...]
    why: str
    would: Outcome | None = None
    attempts: int = 1

    @property
    def withheld(self) -> bool:
        """Whether the image is withheld, for what it shows or because the guard could not do its job."""
        return self.decision.withholds

    @property
    def code(self) -> str:
        """A short word for what became of the image, for programs."""
        return str(self.decision)


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in one generation, ``guard.last``.

    Attributes:
        request: the id that every audit record of it carries.
        policy: name of the policy in force.
        digest: its digest.
        images: one report an image, in the order of the batch.
        degraded: reasons for which the guard could not do its job at some step.
        inputs: one report per picture that the request brought, where the policy has them asked about.
        retry_ms: how long further attempts took, all together.
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
        """The worst outcome of all images; ``clean`` for none."""
        outcomes = [image.decision for image in self.images]
        return Outcome.strictest(*outcomes) if outcomes else Outcome.CLEAN
