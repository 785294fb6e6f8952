"""List the changes in an audit log with person, time and reason: of policies, exceptions, holds, purges and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import (
    CheckpointWritten,
    ExceptionEnded,
    ExceptionStarted,
    Overridden,
    PolicyLoaded,
    PolicyRejected,
    RecordsPurged,
    SubjectErased,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """One change of the guard's policy or of its log, as recorded in the log.

    Attributes:
        time: time of the change.
        event: name of the event.
        tenant: tenant concerned; "" if the record names none.
        policy: name and revision of the policy concerned.
        what: the change, in a few words.
        who: person who made or approved the change; "" if unknown.
        why: the stated reason.
        digest: digest of the policy.
        before: digest of the previous policy.
        loosened: whether the policy lets, or may let, more images through than the previous one; None if they were not
            compared.
    """

    time: str
    event: str
    tenant: str
    policy: str
    what: str
    who: str = ""
    why: str = ""
    digest: str = ""
    before: str = ""
    loosened: bool | None = None


def changes(records: Iterable[Mapping[str, Any]]) -> Iterator[RecordedChange]:
    """Yield every change in a log, in order.

    If several guards or workers load the policy that is in force for a tenant already, this is no change, unless the
    record names a person or a reason.

    Args:
        records: records of the log.
    """
    in_force: dict[tuple[str, str], str] = {}
    for record in records:
        change = _change(record)
        if change is None:
            continue
        if change.event == PolicyLoaded.name:
            place = (change.tenant, change.policy.partition(" ")[0])
            if in_force.get(place) == change.digest and not change.who and not change.why:
                continue
            in_force[place] = change.digest
        yield change


def _change(record: Mapping[str, Any]) -> RecordedChange | None:
    values_of = _VALUES.get(record["event"])
    if values_of is None:
        return None
    policy = _object(record, "policy")
    name = " ".join(str(policy[key]) for key in ("name", "revision") if key in policy)
    values = values_of(record)
    if values is None:
        return None
    tenant = str(record.get("tenant") or "")
    digest = str(policy.get("digest", ""))
    return RecordedChange(str(record["time"]), str(record["event"]), tenant, name, **{"digest": digest, **values})


def _loaded(record: Mapping[str, Any]) -> dict[str, Any]:
    loaded = _object(record, "loaded")
    people = [f"{role} {loaded[key]}" for key, role in (("author", "by"), ("approver", "approved by")) if key in loaded]
    loosened = loaded.get("loosened") if isinstance(loaded.get("loosened"), bool) else None
    how = {True: "; it lets more through", False: "; it is no milder", None: ""}[loosened]
    source = f" from {loaded['source']}" if "source" in loaded else ""
    return {
        "what": f"loaded{source}{how}",
        "who": ", ".join(people),
        "why": str(loaded.get("reason") or record.get("reason") or ""),
        "before": str(loaded.get("before", "")),
        "loosened": loosened,
    }


def _rejected(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"what": "rejected, the previous one stays", "why": str(record.get("reason", ""))}


def _excepted(record: Mapping[str, Any]) -> dict[str, Any]:
    exception = _object(record, "exception")
    set_ = ", ".join(f"{key}: {value}" for key, value in _object(exception, "set").items())
    began = record["event"] == ExceptionStarted.name
    what = f"exception {'began' if began else 'ended'}: {exception.get('category', '')} {{{set_}}}"
    return {
        "what": f"{what} until {exception.get('until', '')}" if began else what,
        "who": f"approved by {exception['approved_by']}" if "approved_by" in exception else "",
        "why": str(record.get("reason", "")),
    }


def _overridden(record: Mapping[str, Any]) -> dict[str, Any]:
    request = record.get("request")
    kind, _, why = str(record.get("reason", "")).partition(": ")
    if request is None:
        return {"what": "override", "why": str(record.get("reason", ""))}
    return {"what": f"{kind} of {request}", "why": why}


def _purged(record: Mapping[str, Any]) -> dict[str, Any] | None:
    if not isinstance(record.get("purged"), list):
        return None
    kind, _, why = str(record.get("reason", "")).partition(": ")
    return {"what": f"{kind or 'purge'}, {len(record['purged'])} tombstones", "why": why}


def _erased(record: Mapping[str, Any]) -> dict[str, Any]:
    waiting = record.get("waiting")
    count = len(waiting) if isinstance(waiting, list) else 0
    held = f", {count} held generations wait" if count else ""
    return {
        "what": f"erased {record.get('records', 0)} records of a subject{held}",
        "who": str(record.get("by") or ""),
        "why": str(record.get("reason") or ""),
    }


_VALUES = {
    PolicyLoaded.name: _loaded,
    PolicyRejected.name: _rejected,
    ExceptionStarted.name: _excepted,
    ExceptionEnded.name: _excepted,
    Overridden.name: _overridden,
    RecordsPurged.name: _purged,
    CheckpointWritten.name: _purged,  # of earlier releases
    SubjectErased.name: _erased,
}

CHANGES: Final = frozenset(_VALUES)
"""Names of the events that can be a change."""


def _object(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}
