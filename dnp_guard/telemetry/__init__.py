"""Metrics and spans. A failure of telemetry is logged, and does not affect a generation."""

from dnp_guard.telemetry.metrics import Metrics
from dnp_guard.telemetry.tracing import GenerationSpan, Tracing

__all__ = ["GenerationSpan", "Metrics", "Tracing"]
