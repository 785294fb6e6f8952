"""What happens around generations: policies, guards and logs, and what people decide about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from dnp_guard.audit.events.event import Event, Host, ImageIndex, Reason, RequestId, Subject
from dnp_guard.audit.shapes import CheckpointFields, ExceptionFields, Hash, LoadedFields, PolicyFields

_By = Annotated[str, "Who said or did so."]
_Exception = Annotated[
    object,  # a mapping
    ExceptionFields,
    "What is set otherwise for a while, until when, and who approved it; `tenant`: for that one alone.",
]


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
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRejected(Event):
    """A policy was not put in force; the one before stays."""

    name: ClassVar = "policy.rejected"
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionStarted(Event):
    """An exception of the policy is in force from here on; `reason` is why it was made."""

    name: ClassVar = "exception.started"
    policy: Annotated[PolicyFields, "The policy in force."]
    exception: _Exception
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionEnded(Event):
    """An exception of the policy is in force no more, as its time has come or the policy has changed."""

    name: ClassVar = "exception.ended"
    policy: Annotated[PolicyFields, "The policy in force."]
    exception: _Exception
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardAttached(Event):
    """A target is guarded from here on."""

    name: ClassVar = "guard.attached"
    host: Host


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDetached(Event):
    """A target is guarded no more."""

    name: ClassVar = "guard.detached"
    host: Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Overridden(Event):
    """A person decided otherwise: an override of the policy, or a hold on a request."""

    name: ClassVar = "override"
    request: RequestId | None = None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Event):
    """A checkpoint was written elsewhere. Earlier releases named purged records in it too."""

    name: ClassVar = "checkpoint"
    reason: Reason | None = None
    checkpoint: Annotated[CheckpointFields, "A checkpoint that was written to a second place."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPurged(Event):
    """Records were removed, as old ones or those of a person; a checkpoint at the second place stands for it."""

    name: ClassVar = "purged"
    reason: Reason
    purged: Annotated[Sequence[Hash], "Hashes of the log's tombstones."]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictGiven(Event):
    """A person looked at an image, and says whether what was decided is right."""

    name: ClassVar = "verdict"
    request: RequestId
    image: ImageIndex
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
    request: RequestId
    image: ImageIndex
    text: Annotated[str, "What the person writes."]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealAnswered(Event):
    """An appeal was answered."""

    name: ClassVar = "appeal.answered"
    request: RequestId
    image: ImageIndex
    answer: Annotated[Literal["upheld", "overturned"], "Whether the decision stands."]
    by: _By
    note: Annotated[str, "What the person adds."] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectErased(Event):
    """All records of a person's generations were removed but those of `waiting`, which are held."""

    name: ClassVar = "erased"
    subject: Subject
    records: Annotated[int, "Removed records."]
    waiting: Annotated[Sequence[str], "Generations that are held, and to be erased when the hold ends."] | None = None
    by: _By | None = None
    reason: Reason | None = None
