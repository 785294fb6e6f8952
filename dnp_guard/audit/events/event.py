"""The base of all events, and fields that several events share."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar

from dnp_guard.audit.record import build
from dnp_guard.audit.shapes import Common, HostFields

RequestId = Annotated[str, "Id of the generation."]
Host = Annotated[Mapping[str, Any], HostFields, "The image generator."]
ImageIndex = Annotated[int, "Index in the batch."]
Reason = Annotated[str, "Reason, in a few words."]
Subject = Annotated[str, "Keyed hash of the person whom a generation is for; erasures find the records by it."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events of the audit log; the fields of a subclass are those of its record.

    Attributes:
        name: name of the event in the record's field ``event``.
    """

    name: ClassVar[str]

    def record(self, common: Common | None = None, *, at: datetime | None = None) -> dict[str, Any]:
        """Build the record of this event, to which a sink adds the position in the log and the hashes.

        Args:
            common: fields that all records of a guard share; the event's own fields take precedence.
            at: time of the event; now by default.

        Raises:
            AuditError: a field contains a value that is not JSON.
        """
        own = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return build(self.name, at=at, **{**(common or {}), **own})
