"""The records of format 1 as JSON Schema: every field, every event, and what each event has at least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from enum import EnumType
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from dnp_guard.audit.events import EVENTS as KINDS
from dnp_guard.audit.record import FORMAT
from dnp_guard.audit.shapes import TEXT, Common, Json

URI: Final = f"https://dnp-guard.example/schema/audit.v{FORMAT}.json"
"""Names the schema; nothing is loaded from there."""

_HASH: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_OF: Final[dict[Any, dict[str, Any]]] = {
    str: TEXT,
    int: _COUNT,
    float: {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]},
    bool: {"type": "boolean"},
}

EVENTS: Final = {
    kind.name: (str(kind.__doc__), tuple(field.name for field in fields(kind) if field.default is MISSING))
    for kind in KINDS
}
"""Meaning of every event, and the fields that it has at least besides those of every record."""


def _shape(hint: Any) -> dict[str, Any]:  # noqa: PLR0911 (one return a kind of type)
    """The JSON Schema of what an annotation says."""
    origin, of = get_origin(hint), get_args(hint)
    if origin is Annotated:
        given = [each for each in of[1:] if isinstance(each, Json)]
        nested = [each for each in of[1:] if is_typeddict(each)]
        return dict(given[0].schema) if given else _shape((*nested, of[0])[0])
    if origin in {Union, UnionType}:
        shapes = [_shape(each) for each in of if each is not NoneType]
        return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    if origin is Required:
        return _shape(of[0])
    if origin is Literal:
        return {"enum": list(of)}
    if origin is Sequence:
        return {"type": "array", "items": _shape(of[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _shape(of[1])}
    if isinstance(hint, EnumType):
        return {"enum": [*map(str, hint)]}
    if is_typeddict(hint):
        return _object(hint)
    return _OF[hint]


def _object(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    required = [name for name in hints if name in kind.__required_keys__]
    closed = {
        "type": "object",
        "properties": {name: _shape(hint) for name, hint in hints.items()},
        "additionalProperties": False,
    }
    return {**closed, "required": required} if required else closed


def _meaning(hint: Any) -> str:
    """What an annotation says that a field means."""
    if get_origin(hint) in {Union, UnionType}:
        return _meaning(get_args(hint)[0])
    return next(each for each in get_args(hint)[1:] if isinstance(each, str))


def _fields() -> dict[str, tuple[dict[str, Any], str]]:
    hints = get_type_hints(Common, include_extras=True)
    for kind in KINDS:
        of_kind = get_type_hints(kind, include_extras=True)
        hints |= {field.name: of_kind[field.name] for field in fields(kind) if field.name not in hints}
    return {name: (_shape(hint), _meaning(hint)) for name, hint in hints.items()}


FIELDS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "v": ({"const": FORMAT}, "The format."),
    "seq": (_COUNT, "Place in the log, from 0."),
    "time": (
        {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        "UTC, RFC 3339, with milliseconds.",
    ),
    "event": ({"enum": [*EVENTS]}, "What happened."),
    **_fields(),
    "prev": (_HASH, "Hash of the record before; 64 zeros at first."),
    "hash": (_HASH, "SHA-256 of the record's RFC 8785 bytes without this field."),
}
"""Schema and meaning of every field: those of every record around those of a guard and of its events."""

ALWAYS: Final = ("v", "seq", "time", "event", "prev", "hash")
"""The fields of every record."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a record of this format."""
    conditions = [
        {"if": {"properties": {"event": {"const": name}}}, "then": {"required": list(required)}}
        for name, (_, required) in EVENTS.items()
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
