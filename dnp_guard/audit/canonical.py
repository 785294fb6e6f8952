"""RFC 8785 (JSON Canonicalization Scheme): one value has exactly one sequence of bytes."""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

import rfc8785

from dnp_guard.errors import AuditError

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)
_MAY_DIFFER: Final = re.compile(rb"\.0(?:[,}\]]|\Z)|e[+-][0-9]+(?:[,}\]]|\Z)|[0-9]{16}|[\xf0-\xf4]|\x7f")
"""Where :mod:`json` may write other bytes: whole floats, exponents, integers beyond 2⁵³, keys outside the BMP."""


def canonical(value: object) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Args:
        value: made of dict (string keys), list, tuple, str, int, float, bool and None.

    Returns:
        UTF-8, keys sorted by their UTF-16 code units, no white space, no trailing newline.

    Raises:
        AuditError: the value has no canonical form: NaN or an infinity, an integer beyond ±(2⁵³-1), a lone surrogate,
            a key that is not a string, another type, or nesting too deep.

    >>> canonical({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    # The standard library's encoder is several times as fast and nearly always writes the same bytes.
    try:
        encoded = _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return _strict(value)
    return encoded if _has_string_keys(value) and not _MAY_DIFFER.search(encoded) else _strict(value)


def _strict(value: object) -> bytes:
    try:
        return rfc8785.dumps(cast("Any", value))
    except UnicodeEncodeError:
        reason = "a key holds a lone surrogate"
    except rfc8785.FloatDomainError as error:
        reason = f"{error}: JSON has no NaN and no infinity"
    except rfc8785.IntegerDomainError as error:
        reason = f"{error}: integers go up to 2^53-1"
    except rfc8785.CanonicalizationError as error:
        lone = isinstance(error.__cause__, UnicodeEncodeError)
        reason = "a string holds a lone surrogate" if lone else str(error)
    except RecursionError:
        reason = "it is nested too deeply, or holds itself"
    raise AuditError(
        f"a value has no canonical JSON form: {reason}",
        hint="Use dict with string keys, list, str, int, finite float, bool and None.",
    )


def _has_string_keys(value: object) -> bool:
    waiting = [value]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict):
            if not all(type(key) is str for key in container):
                return False
            waiting += [item for item in container.values() if isinstance(item, dict | list | tuple)]
        elif isinstance(container, list | tuple):
            waiting += [item for item in container if isinstance(item, dict | list | tuple)]
    return True
