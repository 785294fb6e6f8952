"""Names of all metrics, labels, spans and span attributes.

The ``gen_ai`` names follow OpenTelemetry's conventions, whose status is still "development". The ``dnp_guard`` names
are our own, since there is no convention for guards. No label or attribute ever contains a prompt, free text or a path.
"""

from __future__ import annotations

from typing import Final

QUERIES: Final = "dnp_guard_queries_total"
QUERY_SECONDS: Final = "dnp_guard_query_seconds"
NEGATIVES: Final = "dnp_guard_negatives_injected_total"
GENERATIONS: Final = "dnp_guard_generations_total"
DEGRADED: Final = "dnp_guard_degraded_total"
OVERHEAD: Final = "dnp_guard_overhead_seconds"
POLICY_INFO: Final = "dnp_guard_policy_info"
SESSIONS: Final = "dnp_guard_sessions_total"
FINDINGS: Final = "dnp_guard_findings_total"
STILL_PRESENT: Final = "dnp_guard_still_present_total"
RETRIES: Final = "dnp_guard_retries_total"
CHECKPOINT: Final = "dnp_guard_checkpoint_timestamp_seconds"
POLICY_RELOADS: Final = "dnp_guard_policy_reloads_total"
INPUTS: Final = "dnp_guard_inputs_total"

POLICY: Final = "policy"
OUTCOME: Final = "outcome"
CATEGORY: Final = "category"
DECISION: Final = "decision"
REASON: Final = "reason"
STAGE: Final = "stage"
RESULT: Final = "result"
ACTION: Final = "action"
TENANT: Final = "tenant"
OTHER: Final = "other"
"""Label of every tenant without its own label."""
INFO: Final = ("name", "revision", "digest", "mode")

ENDS: Final = ("finished", "unasked", "abandoned")
"""Ends of a generation; ``unasked`` means finished without an answered query."""

OUTCOMES: Final = ("answered", "skipped", "failed")
RETRY_OUTCOMES: Final = ("cleared", "still_present", "failed", "not_made")
RELOADS: Final = ("loaded", "rejected")
AUDIT_REASONS: Final = (
    "audit_sink",
    "audit_dropped",
    "audit_record",
    "audit_required",
    "audit_checkpoint",
    "audit_preview",
)
"""Reasons why the record is incomplete, or a checkpoint or preview was not written."""

STAGES: Final = ("predict", "preview", "ask", "judge", "encode", "evaluate", "audit")

QUERY_BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))
"""Buckets in seconds, those of OpenTelemetry's ``gen_ai.client.inference.duration``: 0.01 … 81.92."""

OVERHEAD_BUCKETS: Final = tuple(0.0001 * 4**power for power in range(10))
"""Buckets in seconds, 0.1 ms … 26 s: from the time of a decision to that of a slow model."""

TRACER: Final = "dnp_guard"
GENERATION_SPAN: Final = "dnp_guard.generation"
QUERY_SPAN: Final = "dnp_guard.query"
NEGATIVE_INJECTED: Final = "dnp_guard.negative_injected"
RETRIED_EVENT: Final = "dnp_guard.retried"
DEGRADED_EVENT: Final = "dnp_guard.degraded"

REQUEST_ATTRIBUTE: Final = "dnp_guard.request"
POLICY_ATTRIBUTE: Final = "dnp_guard.policy"
DIGEST_ATTRIBUTE: Final = "dnp_guard.policy.digest"
IMAGES_ATTRIBUTE: Final = "dnp_guard.images"
IMAGE_ATTRIBUTE: Final = "dnp_guard.image"
QUESTIONS_ATTRIBUTE: Final = "dnp_guard.questions"
ATTEMPT_ATTRIBUTE: Final = "dnp_guard.attempt"
STEP_ATTRIBUTE: Final = "dnp_guard.step"
CATEGORIES_ATTRIBUTE: Final = "dnp_guard.categories"
SCALE_ATTRIBUTE: Final = "dnp_guard.scale"
REASON_ATTRIBUTE: Final = "dnp_guard.reason"
DECISION_ATTRIBUTE: Final = "dnp_guard.decision"

GENAI_OPERATION: Final = "gen_ai.operation.name"
GENAI_PROVIDER: Final = "gen_ai.provider.name"
GENAI_MODEL: Final = "gen_ai.request.model"
GENAI_PROMPT_NAME: Final = "gen_ai.prompt.name"
GENAI_PROMPT_VERSION: Final = "gen_ai.prompt.version"
GENAI_DURATION: Final = "gen_ai.client.inference.duration"
GENAI_EVALUATION: Final = "gen_ai.evaluation.result"
GENAI_EVALUATION_NAME: Final = "gen_ai.evaluation.name"
GENAI_SCORE: Final = "gen_ai.evaluation.score.value"
GENAI_LABEL: Final = "gen_ai.evaluation.score.label"
ERROR_TYPE: Final = "error.type"
CHAT: Final = "chat"
