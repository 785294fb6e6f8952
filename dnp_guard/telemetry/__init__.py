"""Metrics and spans. A failure in here is logged and touches no generation."""

from dnp_guard.telemetry.metrics import Metrics
from dnp_guard.telemetry.tracing import GenerationSpan, Tracing

__all__ = ["GenerationSpan", "Metrics", "Tracing"]
