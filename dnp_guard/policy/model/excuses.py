"""Cases that excuse a finding: one list for every term of a category, or lists by term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, WithJsonSchema

from dnp_guard.policy.model.scalars import Text

MAX_CASES = 200

_LIST: TypeAdapter[tuple[str, ...]] = TypeAdapter(Annotated[tuple[Text, ...], Field(max_length=MAX_CASES)])
_BY_TERM: TypeAdapter[dict[str, tuple[str, ...]]] = TypeAdapter(
    dict[Text, Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_CASES)]]
)


def _excuses(value: Any) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    return _BY_TERM.validate_python(value) if isinstance(value, Mapping) else _LIST.validate_python(value)


def _plain(value: tuple[str, ...] | Mapping[str, tuple[str, ...]]) -> Any:
    return {term: list(cases) for term, cases in value.items()} if isinstance(value, Mapping) else list(value)


_TEXTS = {"type": "array", "maxItems": MAX_CASES, "items": {"type": "string", "minLength": 1, "maxLength": 2_000}}

Excuses = Annotated[
    tuple[str, ...] | Mapping[str, tuple[str, ...]],
    PlainValidator(_excuses),
    PlainSerializer(_plain),
    WithJsonSchema({"anyOf": [_TEXTS, {"type": "object", "additionalProperties": {**_TEXTS, "minItems": 1}}]}),
]
"""A list excuses every term. A mapping gives cases by term; a term that it omits has no excuse."""
