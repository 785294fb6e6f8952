"""What the workers of an engine say of themselves: a file each, in a folder that they share with the HTTP server."""

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

    from dnp_guard.guard import Guard

VERSION = 1
HEADER = "dnp-guard"
"""The response header."""
PATH = "/dnp-guard"
"""Where the middleware answers with what every worker says."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """What one worker says.

    Attributes:
        engine: its name.
        serving: ``unguarded`` only where the settings allow it.
        pid: its process.
        reason: why it is not guarded.
        policy: name of the policy in force.
        revision: of the policy.
        digest: of the policy.
        mode: of the policy, such as ``enforce`` or ``shadow``.
        vlm: spec of the backend.
        guard: version of this package.
        version: of this form.
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
    """Write down what this worker says; forgotten when it ends.

    Raises:
        DnpGuardError: the folder is another user's, or cannot be written.
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
        message = f"what the worker guards by cannot be written to {folder}: {error}"
        raise DnpGuardError(message, hint="Name a folder that it may write to as `state`.") from None
    atexit.register(path.unlink, missing_ok=True)


def said(folder: Path) -> list[Attestation]:
    """What the workers that run say; what cannot be read is said by nobody."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            attestation = Attestation(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if runs(attestation.pid):
            found.append(attestation)
    return found


def guarded(workers: list[Attestation]) -> bool:
    """Whether there are workers, and all of them are guarded."""
    return bool(workers) and all(worker.serving == "guarded" for worker in workers)


def header(workers: list[Attestation]) -> str:
    """The value of the response header: how the workers serve, by which guard and under which policies."""
    ways: list[str] = sorted({worker.serving for worker in workers}) or ["unattested"]
    policies = sorted({f"{each.policy}@{each.digest}" for each in workers if each.policy})
    versions = sorted({worker.guard for worker in workers})
    return "; ".join([*ways, *(f"guard={each}" for each in versions), *(f"policy={each}" for each in policies)])


def in_force(guard: Guard) -> str:
    """Say of one generation, as the header does, that it is guarded, by which guard and under which policy."""
    policy = guard.policy
    return f"guarded; guard={__version__}; policy={policy.name}@{policy.digest}"
