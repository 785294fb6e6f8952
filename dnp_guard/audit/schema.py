"""The JSON Schema of audit records of format 1: the fields, the events, and the required fields of every event."""

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
"""Identifier of the schema; nothing is loaded from this address."""

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
"""Meaning of every event, and its required fields besides those of every record."""


def _shape(hint: Any) -> dict[str, Any]:  # noqa: PLR0911 (one return per kind of type)
    """Convert a type annotation to JSON Schema."""
    origin, of = get_origin(hint), get_args(hint)
    if origin is Annotated:
        given = [mark for mark in of[1:] if isinstance(mark, Json)]
        nested = [mark for mark in of[1:] if is_typeddict(mark)]
        return dict(given[0].schema) if given else _shape((*nested, of[0])[0])
    if origin in {Union, UnionType}:
        shapes = [_shape(part) for part in of if part is not NoneType]
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
    """Return the description of a record's field: the string in its ``Annotated`` type."""
    if get_origin(hint) in {Union, UnionType}:
        return _meaning(get_args(hint)[0])
    return next(mark for mark in get_args(hint)[1:] if isinstance(mark, str))


def _fields() -> dict[str, tuple[dict[str, Any], str]]:
    hints = get_type_hints(Common, include_extras=True)
    for kind in KINDS:
        of_kind = get_type_hints(kind, include_extras=True)
        hints |= {field.name: of_kind[field.name] for field in fields(kind) if field.name not in hints}
    return {name: (_shape(hint), _meaning(hint)) for name, hint in hints.items()}


FIELDS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "v": ({"const": FORMAT}, "Format of the record."),
    "seq": (_COUNT, "Position in the log, from 0."),
    "time": (
        {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        "UTC, RFC 3339, with milliseconds.",
    ),
    "event": ({"enum": [*EVENTS]}, "Name of the event."),
    **_fields(),
    "prev": (_HASH, "Hash of the previous record; 64 zeros for the first."),
    "hash": (_HASH, "SHA-256 of the record's RFC 8785 bytes without this field."),
}
"""JSON Schema and description of every field: fields of all records first and last, the others between them."""

ALWAYS: Final = ("v", "seq", "time", "event", "prev", "hash")
"""The fields of every record."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of an audit record of this format."""
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
