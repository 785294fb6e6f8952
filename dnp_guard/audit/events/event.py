"""An event of the record, and the fields that events of several kinds share."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar

from dnp_guard.audit.record import build
from dnp_guard.audit.shapes import Common, HostFields

RequestId = Annotated[str, "Id of the generation."]
Host = Annotated[Mapping[str, Any], HostFields, "The image generator."]
ImageIndex = Annotated[int, "Index in the batch."]
Reason = Annotated[str, "Why, in a few words."]
Subject = Annotated[str, "Keyed hash of the person whom a generation is for, by which it can be erased."]


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
