"""The keys of the policy language, and where they are valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from dnp_guard.errors import did_you_mean
from dnp_guard.policy.model.policy import Policy

if TYPE_CHECKING:
    from dnp_guard.policy.model.violation import Loc

Keys = Mapping[str, tuple[str, ...]]
"""Valid keys by the path of their mapping."""


def pattern(loc: Loc) -> str:
    """Return the path of a key without list positions, such as ``categories.threshold`` in any category."""
    return ".".join(part for part in loc if isinstance(part, str))


def keys_at(loc: Loc, valid: Keys | None = None) -> tuple[str, ...]:
    """Return the keys that the mapping at a path may have, in a policy or in the format that ``valid`` describes."""
    return (KEYS if valid is None else valid).get(pattern(loc), ())


def key_hint(loc: Loc, valid: Keys | None = None) -> str:
    """Return the hint for an unknown key: the place where it belongs, or the key that was probably meant."""
    name = str(loc[-1])
    for where, keys in (KEYS if valid is None else valid).items():
        if name in keys:
            return f"`{name}` belongs {f'under `{where}`' if where else 'at the top of the file'}."
    return did_you_mean(name, keys_at(loc[:-1], valid))


def keys_of(model: type[BaseModel], where: str = "") -> dict[str, tuple[str, ...]]:
    """Return the keys of a pydantic model and of the models nested in it, by the path of the mapping that has them."""
    keys = {where: tuple(model.model_fields)}
    for name, info in model.model_fields.items():
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys |= keys_of(part, f"{where}.{name}" if where else name)
    return keys


KEYS: Keys = keys_of(Policy, "") | {"categories.threshold": ("from", "to", "value")}
"""Valid keys of a policy by the path of their mapping."""
