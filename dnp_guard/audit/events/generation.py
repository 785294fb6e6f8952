"""The events of one generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from dnp_guard.audit.events.event import Event, Host, ImageIndex, Reason, RequestId, Subject
from dnp_guard.audit.shapes import (
    DecisionName,
    FindingFields,
    NegativeFields,
    PreviewFields,
    PromptFields,
    RunFields,
    WouldFields,
)

_Step = Annotated[int, "Sampler step, from 0; a query without a step is about the finished image."]
_AppliedStep = Annotated[
    int,
    "First step that a change of the negative prompt, or the answer of a query with `wait: false`, can affect.",
]
_Steps = Annotated[int, "Sampler steps of the run."]
_Sigma = Annotated[float, "Noise level at the step."]
_Findings = Annotated[
    Sequence[FindingFields],
    "Terms found at or above their threshold; for a sensitive category, only its id.",
]
_Decision = Annotated[DecisionName, "Action after a query; outcome of the image at the end."]
_Attempt = Annotated[int, "Number of the attempt at the image, if it is not the first."]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted(Event):
    """A generation began."""

    name: ClassVar = "request.started"
    request: RequestId
    host: Host
    run: (
        Annotated[
            Mapping[str, Any],
            RunFields,
            "Settings of the generation; `latents`: SHA-256 of the call's own latents, in little-endian float32.",
        ]
        | None
    ) = None
    prompt: Annotated[PromptFields, "The prompt or prompts, in the form that the policy sets."] | None = None
    subject: Subject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswered(Event):
    """The vision-language model answered a query about one image."""

    name: ClassVar = "query"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step | None = None
    applied_step: _AppliedStep | None = None
    steps: _Steps | None = None
    sigma: _Sigma | None = None
    findings: _Findings | None = None
    decision: _Decision
    would: Annotated[WouldFields, "Action if the policy enforced what it only records in shadow."] | None = None
    preview: Annotated[PreviewFields, "Stored preview of a finding, in the folder beside the log."] | None = None
    asked: Annotated[Sequence[str], "Categories in the query, if not all."] | None = None
    nearest: (
        Annotated[
            float,
            "Highest probability in the query, as a fraction of its threshold; only with `queries.back_off`.",
        ]
        | None
    ) = None
    latency_ms: Annotated[float, "Time to the answer."]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputQueried(Event):
    """The model was queried about an input picture before the first step; `action: block` refuses the request."""

    name: ClassVar = "query.input"
    request: RequestId
    input: Annotated[int, "Index among the pictures of the request."]
    findings: _Findings | None = None
    decision: _Decision
    would: Annotated[WouldFields, "Action if the policy enforced what it only records in shadow."] | None = None
    action: Annotated[Literal["pass", "block"], "Whether the request continues."]
    answered: Annotated[bool, "Whether there was an answer; without one, nothing is found."]
    latency_ms: Annotated[float, "Time to the answer."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySkipped(Event):
    """A query that was due at a step was skipped, for the `reason` given; the previous answer stays in force."""

    name: ClassVar = "query.skipped"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step
    steps: _Steps | None = None
    sigma: _Sigma | None = None
    probe: (
        Annotated[
            float,
            "Highest probability from the latent probe, as a fraction of the threshold for a query.",
        ]
        | None
    ) = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeInjected(Event):
    """A negative prompt is in force for an image from `applied_step` on."""

    name: ClassVar = "negative.injected"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step
    applied_step: _AppliedStep
    steps: _Steps | None = None
    sigma: _Sigma | None = None
    findings: _Findings | None = None
    negative: Annotated[
        NegativeFields,
        "The negative prompt; without `text` if that would reveal a sensitive category.",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeCleared(Event):
    """The guard's negative prompt for an image is no longer in force from `applied_step` on."""

    name: ClassVar = "negative.cleared"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step
    applied_step: _AppliedStep


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingWaived(Event):
    """A finding was excused, because the image shows an allowed case of the policy."""

    name: ClassVar = "finding.waived"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step | None = None
    findings: _Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDegraded(Event):
    """A part of the guard failed, such as a query or the storage of a picture, for the `reason` given."""

    name: ClassVar = "degraded"
    request: RequestId | None = None
    step: _Step | None = None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetried(Event):
    """An image is generated again before delivery, because the query about the finished image found something."""

    name: ClassVar = "request.retried"
    request: RequestId
    image: ImageIndex
    attempt: Annotated[int, "Number of the attempt that begins, from 2."]
    findings: _Findings | None = None
    negative: Annotated[NegativeFields, "The negative prompt in force from the first step on."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFinished(Event):
    """An image was finished, with its outcome."""

    name: ClassVar = "request.finished"
    request: RequestId
    image: ImageIndex
    decision: _Decision
    would: Annotated[WouldFields, "Outcome if the policy enforced what it only records in shadow."] | None = None
    attempts: Annotated[int, "Number of attempts, if more than one."] | None = None
    retry_ms: Annotated[float, "Duration of the request's further attempts."] | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAbandoned(Event):
    """A generation ended without finished images."""

    name: ClassVar = "request.abandoned"
    request: RequestId
    reason: Reason
