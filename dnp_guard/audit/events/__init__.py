"""All events of the audit log and their fields, from which the JSON Schema and the reference are generated.

A field's annotation contains its description, and a JSON Schema if its type does not fully describe it. A field without
a default is in every record of its event.
"""

from typing import Final

from dnp_guard.audit.events.event import Event
from dnp_guard.audit.events.generation import (
    FindingWaived,
    GuardDegraded,
    InputQueried,
    NegativeCleared,
    NegativeInjected,
    QueryAnswered,
    QuerySkipped,
    RequestAbandoned,
    RequestFinished,
    RequestRetried,
    RequestStarted,
)
from dnp_guard.audit.events.oversight import (
    AppealAnswered,
    AppealMade,
    CheckpointWritten,
    ExceptionEnded,
    ExceptionStarted,
    GuardAttached,
    GuardDetached,
    Overridden,
    PolicyLoaded,
    PolicyRejected,
    RecordsPurged,
    SubjectErased,
    VerdictGiven,
)

__all__ = [
    "EVENTS",
    "AppealAnswered",
    "AppealMade",
    "CheckpointWritten",
    "Event",
    "ExceptionEnded",
    "ExceptionStarted",
    "FindingWaived",
    "GuardAttached",
    "GuardDegraded",
    "GuardDetached",
    "InputQueried",
    "NegativeCleared",
    "NegativeInjected",
    "Overridden",
    "PolicyLoaded",
    "PolicyRejected",
    "QueryAnswered",
    "QuerySkipped",
    "RecordsPurged",
    "RequestAbandoned",
    "RequestFinished",
    "RequestRetried",
    "RequestStarted",
    "SubjectErased",
    "VerdictGiven",
]

EVENTS: Final[tuple[type[Event], ...]] = (
    PolicyLoaded,
    PolicyRejected,
    ExceptionStarted,
    ExceptionEnded,
    GuardAttached,
    GuardDetached,
    RequestStarted,
    QueryAnswered,
    InputQueried,
    QuerySkipped,
    NegativeInjected,
    NegativeCleared,
    FindingWaived,
    GuardDegraded,
    Overridden,
    CheckpointWritten,
    RequestRetried,
    RequestFinished,
    RequestAbandoned,
    VerdictGiven,
    AppealMade,
    AppealAnswered,
    SubjectErased,
    RecordsPurged,
)
"""All events, in the order of the schema and the reference."""
