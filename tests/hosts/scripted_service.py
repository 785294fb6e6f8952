"""Run ``dnp-guard serve`` with a backend of scripted answers, at the address that a host expects."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

POLICY = {
    "format": 1,
    "name": "host-check",
    "queries": {"steps": [0.2, 0.4, 0.6, 0.8], "final": True},
    "question": {"template": "is there ${term} in this image?"},
    "guidance": {"mode": "separate", "scale": 6, "strength": "constant", "hold": 0},
    "categories": [{"id": "star", "look_for": ["a star"], "negative": ["star"], "severity": "high"}],
    "audit": {"prompt": "none"},
}


class Records:
    """The audit records that a service has written so far; a call returns those of one kind of event."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, event: str) -> list[dict]:
        lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]


@contextmanager
def serving(address: str, looks: list, **changes):
    """Run a service, and yield its audit records.

    Args:
        address: URL with the port to serve at.
        looks: answers of the scripted backend, look by look.
        changes: keys that replace those of :data:`POLICY`.
    """
    port = urlsplit(address).port
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.yaml").write_text(json.dumps({**POLICY, **changes}), encoding="utf-8")
        (folder / "looks.json").write_text(json.dumps(looks), encoding="utf-8")
        audit = folder / "audit.jsonl"
        command = ["serve", "--policy", str(folder / "policy.yaml"), "--vlm", f"scripted:{folder / 'looks.json'}"]
        command += ["--port", str(port), "--audit", str(audit)]
        process = subprocess.Popen(
            [sys.executable, "-m", "dnp_guard", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            if not process.stdout.readline().startswith("serving"):
                raise RuntimeError(process.stderr.read().strip() or "the service did not start")
            yield Records(audit)
        finally:
            process.terminate()
            process.communicate()
