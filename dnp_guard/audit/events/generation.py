"""What happens in one generation."""

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

_Step = Annotated[int, "Sampler step, from 0; a look without one is the final look."]
_AppliedStep = Annotated[
    int,
    "First step that a negative applies to, or applies to no more; of a look not waited for, that it could steer.",
]
_Steps = Annotated[int, "Sampler steps of the run."]
_Sigma = Annotated[float, "Noise level at the step."]
_Findings = Annotated[
    Sequence[FindingFields],
    "What was seen at or over its threshold; of a sensitive category, nothing but that it was.",
]
_WhatIsDecided = Annotated[DecisionName, "What is called for at a look; what became of the image at the end."]
_Attempt = Annotated[int, "Which attempt at the image it is of, where it is not the first."]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted(Event):
    """A generation has begun."""

    name: ClassVar = "request.started"
    request: RequestId
    host: Host
    run: (
        Annotated[
            Mapping[str, Any],
            RunFields,
            "How the image was asked for; `latents`: SHA-256 of those that the call brought, in little-endian float32.",
        ]
        | None
    ) = None
    prompt: Annotated[PromptFields, "What is kept of the prompt, or of each of several."] | None = None
    subject: Subject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswered(Event):
    """A look at one image was answered."""

    name: ClassVar = "query"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step | None = None
    applied_step: _AppliedStep | None = None
    steps: _Steps | None = None
    sigma: _Sigma | None = None
    findings: _Findings | None = None
    decision: _WhatIsDecided
    would: Annotated[WouldFields, "What would be done if nothing were in shadow."] | None = None
    preview: Annotated[PreviewFields, "The blurred preview of a finding, in the folder beside the log."] | None = None
    asked: Annotated[Sequence[str], "Categories that a look asked about, where it was not all."] | None = None
    nearest: (
        Annotated[
            float,
            "The highest probability of a look, as a part of its threshold; where the policy has `queries.back_off`.",
        ]
        | None
    ) = None
    latency_ms: Annotated[float, "Time to the answer."]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputQueried(Event):
    """A picture that the request brought was asked about before the first step; `action: block` refuses the request."""

    name: ClassVar = "query.input"
    request: RequestId
    input: Annotated[int, "Index among the pictures that the request brought."]
    findings: _Findings | None = None
    decision: _WhatIsDecided
    would: Annotated[WouldFields, "What would be done if nothing were in shadow."] | None = None
    action: Annotated[Literal["pass", "block"], "Whether the request goes on."]
    answered: Annotated[bool, "Whether there was an answer; what was not answered about counts as not seen."]
    latency_ms: Annotated[float, "Time to the answer."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySkipped(Event):
    """A due step was not looked at, for the `reason`; the last verdict stands."""

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
            "The highest probability by the latent probe, as a part of the threshold under which it is not asked.",
        ]
        | None
    ) = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeInjected(Event):
    """An image is steered away from something from `applied_step` on."""

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
        "What the image is steered away from; without `text` where that would tell of a sensitive category.",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeCleared(Event):
    """An image is steered no more."""

    name: ClassVar = "negative.cleared"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step
    applied_step: _AppliedStep


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingWaived(Event):
    """An allowed case excused what was seen."""

    name: ClassVar = "finding.waived"
    request: RequestId
    image: ImageIndex
    attempt: _Attempt | None = None
    step: _Step | None = None
    findings: _Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDegraded(Event):
    """The guard could not do its job at some point."""

    name: ClassVar = "degraded"
    request: RequestId | None = None
    step: _Step | None = None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetried(Event):
    """An image is made again, as its final look found something; nothing of it is delivered before it is finished."""

    name: ClassVar = "request.retried"
    request: RequestId
    image: ImageIndex
    attempt: Annotated[int, "The attempt that begins, from 2."]
    findings: _Findings | None = None
    negative: Annotated[NegativeFields, "What is in force from the first step on."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFinished(Event):
    """What became of one image."""

    name: ClassVar = "request.finished"
    request: RequestId
    image: ImageIndex
    decision: _WhatIsDecided
    would: Annotated[WouldFields, "What would have become of it if nothing were in shadow."] | None = None
    attempts: Annotated[int, "How often it was made, where that is more than once."] | None = None
    retry_ms: Annotated[float, "How long the further attempts of the request took."] | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAbandoned(Event):
    """A generation ended without finished images."""

    name: ClassVar = "request.abandoned"
    request: RequestId
    reason: Reason
