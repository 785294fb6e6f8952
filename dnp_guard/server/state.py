"""Serialise the state of a session, which guards one generation, so that another worker can continue it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from dnp_guard import types
from dnp_guard.generation.state import VERSION, Reach, State
from dnp_guard.steering.strength import Push


def dumps(state: State) -> str:
    """Write a session's state as JSON."""
    return json.dumps(state, default=_plain, separators=(",", ":"), allow_nan=False)


def loads(text: str) -> State:
    """Read the state that :func:`dumps` wrote.

    Raises:
        ValueError: the text is not a state, or has another version.
    """
    version = json.loads(text).get("version")
    if version != VERSION:
        raise ValueError(f"a state of version {version}, not {VERSION}")
    return _adapter().validate_json(text)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(type(value))}
    return dict(value) if isinstance(value, Mapping) else sorted(value)


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _adapter() -> TypeAdapter[State]:
    adapter = TypeAdapter(State)
    # Names that the modules of these types import only for the type checker.
    adapter.rebuild(_types_namespace={**vars(types), "Mapping": Mapping, "Push": Push, "Reach": Reach})
    return adapter
