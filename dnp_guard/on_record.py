"""Open the audit record of a guard, and read serial numbers of policies from earlier records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.audit import previews, spool_folder
from dnp_guard.audit.read.serials import highest_serial
from dnp_guard.audit.redact import Redaction
from dnp_guard.audit.write.plugin import log_path
from dnp_guard.audit.write.recorder import Recorder
from dnp_guard.generation import fields
from dnp_guard.telemetry import Tracing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dnp_guard.audit import Sink
    from dnp_guard.audit.shapes import VlmFields
    from dnp_guard.policy import Policy
    from dnp_guard.telemetry import Metrics
    from dnp_guard.vlm.base import BackendInfo


def open_record(
    sinks: Sequence[Sink], metrics: Metrics, tenant: str | None, policy: Policy, info: BackendInfo
) -> tuple[Recorder, Redaction]:
    """Open the audit record of a guard; previews are stored beside its first log in a file.

    Args:
        sinks: sinks for the records.
        metrics: metrics of the guard.
        tenant: tenant that the guard serves.
        policy: the policy in force.
        info: description of the backend.

    Returns:
        The recorder, which writes records, and the redaction, which hides prompts as far as the policy says.
    """
    log = next((path for sink in sinks if isinstance(path := getattr(sink, "path", None), Path)), None)
    redaction = Redaction(log, policy.audit.prompt)
    vlm_fields: VlmFields = {"name": info.name, "revision": info.revision}
    recorder = Recorder(
        sinks,
        metrics,
        Tracing(),
        {"tenant": tenant, "policy": fields.policy(policy), "vlm": vlm_fields},
        spool=spool_folder(),
        previews=previews.folder(log) if log is not None else None,
        picture_key=previews.read_key(),
        required=policy.audit.required,
    )
    return recorder, redaction


def remembered(audit: Iterable[object], signer: str, name: str) -> int:
    """Return the highest serial number that earlier runs recorded for a signed policy, or 0.

    Args:
        audit: the audit sinks; only logs in files can be read.
        signer: public key of the signature, in base64.
        name: name of the policy.
    """
    logs = [path for sink in audit if (path := log_path(sink)) is not None]
    return max((highest_serial(log, signer, name) for log in logs), default=0)
