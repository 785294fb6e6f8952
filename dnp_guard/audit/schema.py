"""The records of format 1 as JSON Schema: every field, every event, and what each event has at least."""

from __future__ import annotations

from typing import Any, Final

from dnp_guard.audit.previews import NAME
from dnp_guard.audit.record import FORMAT, LONGEST, Event
from dnp_guard.types import Action, Outcome

URI: Final = f"https://dnp-guard.example/schema/audit.v{FORMAT}.json"
"""Names the schema; nothing is loaded from there."""

_TEXT: Final = {"type": "string", "maxLength": LONGEST}
_COUNT: Final = {"type": "integer", "minimum": 0}
_HASH: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_UNCOUNTABLE: Final = {"enum": ["NaN", "Infinity", "-Infinity"]}
_NUMBER: Final = {"anyOf": [{"type": "number"}, _UNCOUNTABLE]}


def _object(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    closed = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**closed, "required": list(required)} if required else closed


def _one_or_more(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "array", "items": schema}]}


_FINDING: Final = _object(
    {"category": _TEXT, "term": _TEXT, "probability": _NUMBER, "threshold": _NUMBER},
    ("category",),
)

FIELDS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "v": ({"const": FORMAT}, "The format."),
    "seq": (_COUNT, "Place in the log, from 0."),
    "time": (
        {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        "UTC, RFC 3339, with milliseconds.",
    ),
    "event": ({"enum": [str(event) for event in Event]}, "What happened."),
    "request": (_TEXT, "Id of the generation."),
    "tenant": (_TEXT, "For whom it was."),
    "policy": (
        _object({"name": _TEXT, "revision": _TEXT, "digest": _TEXT, "mode": {"enum": ["enforce", "shadow"]}}),
        "The policy in force.",
    ),
    "loaded": (
        _object(
            {
                "before": _HASH,
                "source": _TEXT,
                "signer": _TEXT,
                "serial": _COUNT,
                "author": _TEXT,
                "approver": _TEXT,
                "reason": _TEXT,
                "loosened": {"type": "boolean"},
            }
        ),
        "Where the policy came from; `loosened`: it lets more through than the one `before`, or may.",
    ),
    "host": (_object({"name": _TEXT, "version": _TEXT, "target": _TEXT}), "The image generator."),
    "vlm": (_object({"name": _TEXT, "revision": _TEXT}), "The vision-language model."),
    "run": (
        _object(
            {
                "seed": _one_or_more({"anyOf": [{"type": "integer"}, _TEXT]}),
                "latents": _TEXT,
                "scheduler": _TEXT,
                "steps": _COUNT,
                "guidance_scale": _NUMBER,
                "size": {"type": "array", "items": _COUNT},
            }
        ),
        "How the image was asked for; `latents`: SHA-256 of those that the call brought, in little-endian float32.",
    ),
    "prompt": (
        _object({name: _one_or_more(_TEXT) for name in ("hmac", "redacted", "plain")}),
        "What is kept of the prompt, or of each of several.",
    ),
    "image": (_COUNT, "Index in the batch."),
    "step": (_COUNT, "Sampler step, from 0; a look without one is the final look."),
    "applied_step": (
        _COUNT,
        "First step that a negative applies to, or applies to no more; of a look not waited for, that it could steer.",
    ),
    "steps": (_COUNT, "Sampler steps of the run."),
    "sigma": (_NUMBER, "Noise level at the step."),
    "findings": (
        {"type": "array", "items": _FINDING},
        "What was seen at or over its threshold; of a sensitive category, nothing but that it was.",
    ),
    "decision": (
        {"enum": ["none", *map(str, Action), *map(str, Outcome)]},
        "What is called for at a look; what became of the image at the end.",
    ),
    "would": (
        _object({"decision": {"enum": [*map(str, Action)]}, "negative": _TEXT, "scale": _NUMBER}),
        "What would be done if nothing were in shadow.",
    ),
    "negative": (
        _object(
            {
                "text": _TEXT,
                "scale": _NUMBER,
                "mode": {"enum": ["separate", "replace"]},
                "effective": {"type": "boolean"},
            },
            ("mode",),
        ),
        "What the image is steered away from; without `text` where that would tell of a sensitive category.",
    ),
    "preview": (
        _object({"file": {"type": "string", "pattern": NAME}, "sha256": _HASH}, ("file", "sha256")),
        "The blurred preview of a finding, in the folder beside the log.",
    ),
    "asked": ({"type": "array", "items": _TEXT}, "Categories that a look asked about, where it was not all."),
    "nearest": (
        _NUMBER,
        "The highest probability of a look, as a part of its threshold; where the policy has `queries.back_off`.",
    ),
    "probe": (
        _NUMBER,
        "The highest probability by the latent probe, as a part of the threshold under which it is not asked.",
    ),
    "latency_ms": (_NUMBER, "Time to the answer."),
    "reason": (_TEXT, "Why, in a few words."),
    "checkpoint": (
        _object({"origin": _TEXT, "count": _COUNT, "root": _HASH}, ("origin", "count", "root")),
        "A checkpoint that was written to a second place.",
    ),
    "purged": ({"type": "array", "items": _HASH}, "Hashes of the log's tombstones."),
    "prev": (_HASH, "Hash of the record before; 64 zeros at first."),
    "hash": (_HASH, "SHA-256 of the record's RFC 8785 bytes without this field."),
}
"""Schema and meaning of every field, in the order in which a person reads them."""

EVENTS: Final[dict[Event, tuple[str, tuple[str, ...]]]] = {
    Event.POLICY_LOADED: ("A policy is in force from here on.", ("policy",)),
    Event.POLICY_REJECTED: ("A policy was not put in force; the one before stays.", ("reason",)),
    Event.GUARD_ATTACHED: ("A target is guarded from here on.", ("host",)),
    Event.GUARD_DETACHED: ("A target is guarded no more.", ("host",)),
    Event.REQUEST_STARTED: ("A generation has begun.", ("request", "host")),
    Event.QUERY: ("A look at one image was answered.", ("request", "image", "decision", "latency_ms")),
    Event.QUERY_SKIPPED: (
        "A due step was not looked at, for the `reason`; the last verdict stands.",
        ("request", "image", "step"),
    ),
    Event.NEGATIVE_INJECTED: (
        "An image is steered away from something from `applied_step` on.",
        ("request", "image", "step", "applied_step", "negative"),
    ),
    Event.NEGATIVE_CLEARED: ("An image is steered no more.", ("request", "image", "step", "applied_step")),
    Event.FINDING_WAIVED: ("An allowed case excused what was seen.", ("request", "image", "findings")),
    Event.DEGRADED: ("The guard could not do its job at some point.", ("reason",)),
    Event.OVERRIDE: ("A person decided otherwise: an override of the policy, or a hold on a request.", ("reason",)),
    Event.CHECKPOINT: ("A checkpoint was written elsewhere, or old records were purged.", ()),
    Event.REQUEST_FINISHED: ("What became of one image.", ("request", "image", "decision")),
    Event.REQUEST_ABANDONED: ("A generation ended without finished images.", ("request", "reason")),
}
"""Meaning of every event, and the fields that it has at least besides those of every record."""

ALWAYS: Final = ("v", "seq", "time", "event", "prev", "hash")
"""The fields of every record."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a record of this format."""
    conditions = [
        {"if": {"properties": {"event": {"const": str(event)}}}, "then": {"required": list(required)}}
        for event, (_, required) in EVENTS.items()
        if required
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": URI,
        "title": f"dnp_guard audit record, format {FORMAT}",
        "type": "object",
        "properties": {name: {**shape, "description": meaning} for name, (shape, meaning) in FIELDS.items()},
        "required": list(ALWAYS),
        "additionalProperties": False,
        "allOf": conditions,
    }
