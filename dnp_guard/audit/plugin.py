"""The built-in plugin that opens audit sinks: a path is a JSONL log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.audit.jsonl import JsonlSink
from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from dnp_guard.audit.sinks import Sink


@hookimpl(trylast=True)
def dnp_guard_audit_sink(spec: str) -> Sink | None:
    """Open a JSONL log at the path that no other plugin took for a spec of its own."""
    return JsonlSink(Path(spec))
