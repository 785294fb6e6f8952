"""Reports of an engine's workers about themselves: one file per worker, in a folder shared with the HTTP server."""

from __future__ import annotations

import atexit
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from dnp_guard._version import __version__
from dnp_guard.errors import DnpGuardError
from dnp_guard.processes import runs

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.types import Report

VERSION = 1
HEADER = "dnp-guard"
"""Name of the response header."""
PATH = "/dnp-guard"
"""Path at which the middleware returns the reports of all workers."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """The report of one worker about its guard.

    Attributes:
        engine: name of the engine.
        serving: whether the worker serves guarded, serves unguarded because the settings allow it, or refuses requests.
        pid: id of the worker's process.
        reason: why the worker is not guarded; empty if it is.
        policy: name of the policy in force.
        revision: revision of the policy.
        digest: digest of the policy.
        mode: mode of the policy, such as ``enforce`` or ``shadow``.
        vlm: spec of the VLM backend.
        guard: version of this package.
        version: version of the report's format.
    """

    engine: str
    serving: Literal["guarded", "unguarded", "refusing"]
    pid: int
    reason: str = ""
    policy: str = ""
    revision: str = ""
    digest: str = ""
    mode: str = ""
    vlm: str = ""
    guard: str = __version__
    version: int = VERSION


def say(folder: Path, attestation: Attestation) -> None:
    """Write this worker's report into the folder; the file is deleted when the worker ends.

    Raises:
        DnpGuardError: the folder belongs to another user, or cannot be written.
    """
    path = folder / f"{attestation.pid}.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise DnpGuardError(f"{folder} belongs to another user", hint="Name another folder as `state`.")
        written = path.with_suffix(".new")
        written.write_text(json.dumps(asdict(attestation)), encoding="utf-8")
        written.replace(path)
    except OSError as error:
        message = f"the report of this worker cannot be written to {folder}: {error}"
        raise DnpGuardError(message, hint="Name a folder that it may write to as `state`.") from None
    atexit.register(path.unlink, missing_ok=True)


def reports(folder: Path) -> list[Attestation]:
    """Read the reports of all running workers; a worker with an unreadable report is listed as ``refusing``."""
    paths = [path for path in sorted(folder.glob("*.json")) if path.stem.isdecimal() and runs(int(path.stem))]
    return [report for path in paths if (report := _report(path)) is not None]


def _report(path: Path) -> Attestation | None:
    """Read the report of a running worker; None if the worker has deleted it since."""
    try:
        return Attestation(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        reason = f"the report {path.name} of a worker cannot be read: {error}"
        return Attestation("unknown", "refusing", int(path.stem), reason=reason)


def guarded(workers: list[Attestation]) -> bool:
    """Return whether there are workers, and all of them are guarded."""
    return bool(workers) and all(worker.serving == "guarded" for worker in workers)


def header(workers: list[Attestation]) -> str:
    """Format the value of the response header: how the workers serve, with which guard versions and policies."""
    ways: list[str] = sorted({worker.serving for worker in workers}) or ["unattested"]
    policies = sorted({f"{worker.policy}@{worker.digest}" for worker in workers if worker.policy})
    versions = sorted({worker.guard for worker in workers})
    guards, applied = (f"guard={version}" for version in versions), (f"policy={policy}" for policy in policies)
    return "; ".join([*ways, *guards, *applied])


def in_force(report: Report) -> str:
    """Format the value of the response header for one guarded generation, with the guard's version and the policy."""
    return f"guarded; guard={__version__}; policy={report.policy}@{report.digest}"
