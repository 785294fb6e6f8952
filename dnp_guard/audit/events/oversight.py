"""The events around generations: policies, guards and logs, and decisions of people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from dnp_guard.audit.events.event import Event, Host, ImageIndex, Reason, RequestId, Subject
from dnp_guard.audit.shapes import CheckpointFields, ExceptionFields, Hash, LoadedFields, PolicyFields

_By = Annotated[str, "Person who did it."]
_Exception = Annotated[
    object,  # a mapping
    ExceptionFields,
    "Settings of the exception, its end, and who approved it; `tenant`: applies to this tenant only.",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoaded(Event):
    """A policy was put in force."""

    name: ClassVar = "policy.loaded"
    policy: Annotated[PolicyFields, "The policy in force."]
    loaded: (
        Annotated[
            object,  # a dataclass, or another mapping
            LoadedFields,
            "Origin of the policy; `loosened`: it lets, or may let, more images through than the policy `before`.",
        ]
        | None
    ) = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRejected(Event):
    """A policy was refused; the previous one stays in force."""

    name: ClassVar = "policy.rejected"
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionStarted(Event):
    """A temporary exception in the policy began to apply; `reason` says why it was made."""

    name: ClassVar = "exception.started"
    policy: Annotated[PolicyFields, "The policy in force."]
    exception: _Exception
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionEnded(Event):
    """A temporary exception in the policy ended, because its time is over or the policy changed."""

    name: ClassVar = "exception.ended"
    policy: Annotated[PolicyFields, "The policy in force."]
    exception: _Exception
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardAttached(Event):
    """A guard was attached to an image generator."""

    name: ClassVar = "guard.attached"
    host: Host


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDetached(Event):
    """A guard was detached from an image generator."""

    name: ClassVar = "guard.detached"
    host: Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Overridden(Event):
    """A person overrode the policy, or began or ended a hold, which exempts a request's records from purges."""

    name: ClassVar = "override"
    request: RequestId | None = None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Event):
    """A checkpoint of the log was written to a file elsewhere. Earlier releases also named purged records here."""

    name: ClassVar = "checkpoint"
    reason: Reason | None = None
    checkpoint: Annotated[CheckpointFields, "Checkpoint that was written to the second place."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPurged(Event):
    """Records were removed because of their age, or to erase a person; a checkpoint stored elsewhere confirms it."""

    name: ClassVar = "purged"
    reason: Reason
    purged: Annotated[Sequence[Hash], "Hashes of the log's tombstones."]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictGiven(Event):
    """A person reviewed an image, and judged the decision."""

    name: ClassVar = "verdict"
    request: RequestId
    image: ImageIndex
    verdict: Annotated[
        Literal["right", "false_alarm", "missed"],
        "`false_alarm`: the image does not show what was found; `missed`: it shows something that was not found.",
    ]
    category: Annotated[str, "Category that the verdict is about; omitted for all findings."] | None = None
    by: _By
    note: Annotated[str, "Remark of the person."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealMade(Event):
    """The person whom an image was made for appealed against the decision."""

    name: ClassVar = "appeal"
    request: RequestId
    image: ImageIndex
    text: Annotated[str, "Text of the appeal."]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealAnswered(Event):
    """An appeal was answered."""

    name: ClassVar = "appeal.answered"
    request: RequestId
    image: ImageIndex
    answer: Annotated[Literal["upheld", "overturned"], "Whether the decision stands."]
    by: _By
    note: Annotated[str, "Remark of the person."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectErased(Event):
    """All records of a person's generations were removed, except the generations in `waiting`, which are on hold."""

    name: ClassVar = "erased"
    subject: Subject
    records: Annotated[int, "Number of records removed."]
    waiting: Annotated[Sequence[str], "Held generations, to be erased when their hold ends."] | None = None
    by: _By | None = None
    reason: Reason | None = None
