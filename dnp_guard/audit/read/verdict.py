"""Record a person's verdict on an image, an appeal, or the answer to an appeal in the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dnp_guard.audit.events import AppealAnswered, AppealMade, RequestFinished, VerdictGiven
from dnp_guard.audit.read.choose import known, whole_id
from dnp_guard.audit.read.retention import open_log, records
from dnp_guard.audit.read.verdicts import image_of
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.audit.events import Event
    from dnp_guard.audit.shapes import Common

Judged = Literal["right", "false_alarm", "missed"]
Answer = Literal["upheld", "overturned"]


def common_of(path: Path, request: str, image: int) -> tuple[str, Common]:
    """Find a finished image in the log, and return the fields that the record of a verdict on it needs.

    Args:
        path: the log.
        request: id of the generation, or its beginning.
        image: index in the batch.

    Returns:
        The whole id of the generation, and the tenant and policy of the image.

    Raises:
        AuditError: the image does not exist, or is not finished.
    """
    finished = {image_of(record): record for record in records(path) if record["event"] == RequestFinished.name}
    request = whole_id(request, (of for of, _ in finished))
    record = finished.get((request, image))
    if record is None:
        known("image", str(image), (str(index) for of, index in finished if of == request))
        raise AuditError(f"{request} has no finished image {image}", hint="'audit show --images' lists them.")
    return request, shared(record)


def shared(record: dict[str, Any]) -> Common:
    """Return the tenant and the policy of a record, to use them in another record; empty if it has no policy."""
    return {"tenant": record.get("tenant"), "policy": record["policy"]} if "policy" in record else {}


def judge(path: Path, common: Common, verdict: VerdictGiven) -> None:
    """Record a person's verdict on an image in the log.

    Raises:
        AuditError: the log cannot be written.
    """
    _write(path, verdict, common)


def appeal(path: Path, common: Common, made: AppealMade) -> None:
    """Record an appeal against the decision about an image in the log.

    Raises:
        AuditError: the log cannot be written.
    """
    _write(path, made, common)


def answer(path: Path, common: Common, given: AppealAnswered) -> None:
    """Record the answer to an appeal in the log.

    Raises:
        AuditError: the log cannot be written.
    """
    _write(path, given, common)


def _write(path: Path, event: Event, common: Common) -> None:
    sink = open_log(path)
    try:
        sink.write(event.record(common))
    finally:
        sink.close()
