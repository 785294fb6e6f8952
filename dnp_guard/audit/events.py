"""Every event of the record, with the fields that tell of it; the JSON Schema and the reference are made from them.

A field's annotation holds what it means, and its JSON Schema where the type alone does not say it. A field without a
default is in every record of its event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from dnp_guard.audit.record import build
from dnp_guard.audit.shapes import (
    CheckpointFields,
    Common,
    DecisionName,
    ExceptionFields,
    FindingFields,
    Hash,
    HostFields,
    LoadedFields,
    NegativeFields,
    PolicyFields,
    PreviewFields,
    PromptFields,
    RunFields,
    WouldFields,
)

_Request = Annotated[str, "Id of the generation."]
_Host = Annotated[Mapping[str, Any], HostFields, "The image generator."]
_Image = Annotated[int, "Index in the batch."]
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
_Reason = Annotated[str, "Why, in a few words."]
_Subject = Annotated[str, "Keyed hash of the person whom a generation is for, by which it can be erased."]
_By = Annotated[str, "Who said or did so."]
_Attempt = Annotated[int, "Which attempt at the image it is of, where it is not the first."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that is recorded.

    Attributes:
        name: the record's ``event``.
    """

    name: ClassVar[str]

    def record(self, common: Common | None = None, *, at: datetime | None = None) -> dict[str, Any]:
        """Build the record of this event, ready to be sealed into a log.

        Args:
            common: fields that other records have too; the event's own go before them.
            at: when it happened; now where it is not given.

        Raises:
            AuditError: a field holds what is not JSON.
        """
        own = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return build(self.name, at=at, **{**(common or {}), **own})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoaded(Event):
    """A policy is in force from here on."""

    name: ClassVar = "policy.loaded"
    policy: Annotated[PolicyFields, "The policy in force."]
    loaded: (
        Annotated[
            object,  # a dataclass, or another mapping
            LoadedFields,
            "Where the policy came from; `loosened`: it lets more through than the one `before`, or may.",
        ]
        | None
    ) = None
    reason: _Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRejected(Event):
    """A policy was not put in force; the one before stays."""

    name: ClassVar = "policy.rejected"
    reason: _Reason


_Exception = Annotated[
    object,  # a mapping
    ExceptionFields,
    "What is set otherwise for a while, until when, and who approved it; `tenant`: for that one alone.",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionStarted(Event):
    """An exception of the policy is in force from here on; `reason` is why it was made."""

    name: ClassVar = "exception.started"
    policy: Annotated[PolicyFields, "The policy in force."]
    exception: _Exception
    reason: _Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionEnded(Event):
    """An exception of the policy is in force no more, as its time has come or the policy has changed."""

    name: ClassVar = "exception.ended"
    policy: Annotated[PolicyFields, "The policy in force."]
    exception: _Exception
    reason: _Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardAttached(Event):
    """A target is guarded from here on."""

    name: ClassVar = "guard.attached"
    host: _Host


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDetached(Event):
    """A target is guarded no more."""

    name: ClassVar = "guard.detached"
    host: _Host


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted(Event):
    """A generation has begun."""

    name: ClassVar = "request.started"
    request: _Request
    host: _Host
    run: (
        Annotated[
            Mapping[str, Any],
            RunFields,
            "How the image was asked for; `latents`: SHA-256 of those that the call brought, in little-endian float32.",
        ]
        | None
    ) = None
    prompt: Annotated[PromptFields, "What is kept of the prompt, or of each of several."] | None = None
    subject: _Subject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswered(Event):
    """A look at one image was answered."""

    name: ClassVar = "query"
    request: _Request
    image: _Image
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
    request: _Request
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
    request: _Request
    image: _Image
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
    reason: _Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeInjected(Event):
    """An image is steered away from something from `applied_step` on."""

    name: ClassVar = "negative.injected"
    request: _Request
    image: _Image
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
    request: _Request
    image: _Image
    attempt: _Attempt | None = None
    step: _Step
    applied_step: _AppliedStep


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingWaived(Event):
    """An allowed case excused what was seen."""

    name: ClassVar = "finding.waived"
    request: _Request
    image: _Image
    attempt: _Attempt | None = None
    step: _Step | None = None
    findings: _Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDegraded(Event):
    """The guard could not do its job at some point."""

    name: ClassVar = "degraded"
    request: _Request | None = None
    step: _Step | None = None
    reason: _Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Overridden(Event):
    """A person decided otherwise: an override of the policy, or a hold on a request."""

    name: ClassVar = "override"
    request: _Request | None = None
    reason: _Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Event):
    """A checkpoint was written elsewhere, or old records were purged."""

    name: ClassVar = "checkpoint"
    reason: _Reason | None = None
    checkpoint: Annotated[CheckpointFields, "A checkpoint that was written to a second place."] | None = None
    purged: Annotated[Sequence[Hash], "Hashes of the log's tombstones."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetried(Event):
    """An image is made again, as its final look found something; nothing of it is delivered before it is finished."""

    name: ClassVar = "request.retried"
    request: _Request
    image: _Image
    attempt: Annotated[int, "The attempt that begins, from 2."]
    findings: _Findings | None = None
    negative: Annotated[NegativeFields, "What is in force from the first step on."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFinished(Event):
    """What became of one image."""

    name: ClassVar = "request.finished"
    request: _Request
    image: _Image
    decision: _WhatIsDecided
    would: Annotated[WouldFields, "What would have become of it if nothing were in shadow."] | None = None
    attempts: Annotated[int, "How often it was made, where that is more than once."] | None = None
    retry_ms: Annotated[float, "How long the further attempts of the request took."] | None = None
    reason: _Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAbandoned(Event):
    """A generation ended without finished images."""

    name: ClassVar = "request.abandoned"
    request: _Request
    reason: _Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictGiven(Event):
    """A person looked at an image, and says whether what was decided is right."""

    name: ClassVar = "verdict"
    request: _Request
    image: _Image
    verdict: Annotated[
        Literal["right", "false_alarm", "missed"],
        "`false_alarm`: the image does not show what it was held to show; `missed`: it shows what was not found.",
    ]
    category: Annotated[str, "The category that the verdict is about; without one, all that was found."] | None = None
    by: _By
    note: Annotated[str, "What the person adds."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealMade(Event):
    """The person whom an image was made for asks for another decision."""

    name: ClassVar = "appeal"
    request: _Request
    image: _Image
    text: Annotated[str, "What the person writes."]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealAnswered(Event):
    """An appeal was answered."""

    name: ClassVar = "appeal.answered"
    request: _Request
    image: _Image
    answer: Annotated[Literal["upheld", "overturned"], "Whether the decision stands."]
    by: _By
    note: Annotated[str, "What the person adds."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectErased(Event):
    """All records of a person's generations were removed but those of `waiting`, which are held."""

    name: ClassVar = "erased"
    subject: _Subject
    records: Annotated[int, "Removed records."]
    waiting: Annotated[Sequence[str], "Generations that are held, and to be erased when the hold ends."] | None = None
    by: _By | None = None
    reason: _Reason | None = None


EVENTS: Final[tuple[type[Event], ...]] = tuple(
    kind for kind in vars().values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
)
"""Every event there is, as in this module."""
