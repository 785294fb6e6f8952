from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.record import build
from dnp_guard.audit.write.sinks import MemorySink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def sealed_lines() -> list[bytes]:
    """Return five lines of an audit log, linked by their hash chain, each with its newline."""
    sink = MemorySink()
    sink.write(build("policy.loaded", policy={"name": "default", "revision": "1.0.0"}))
    sink.write(build("request.started", request="r1", steps=30, prompt={"hmac": "00"}))
    finding = {"category": "nudity", "term": "nackt, «nudité»", "probability": 0.912345, "threshold": 0.5}
    sink.write(build("query", request="r1", image=0, step=3, sigma=7.25, findings=[finding], latency_ms=120.5))
    sink.write(
        build("negative.injected", request="r1", image=0, applied_step=4, negative={"text": "nudity", "scale": 15})
    )
    sink.write(build("request.finished", request="r1", image=0, decision="steered"))
    return [line + b"\n" for line in sink.lines]


@pytest.fixture
def log(tmp_path: Path, sealed_lines: list[bytes]) -> Callable[..., Path]:
    """Return a function that writes lines to an audit log, by default :func:`sealed_lines`, and returns its path."""

    def write(lines: list[bytes] | None = None) -> Path:
        path = tmp_path / "audit.jsonl"
        path.write_bytes(b"".join(sealed_lines if lines is None else lines))
        return path

    return write
