"""Encode JSON canonically by RFC 8785 (JSON Canonicalization Scheme): one value has exactly one sequence of bytes.

The module also rounds measurements. Records and decisions use the rounded values, so that a decision can be repeated
from the record.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

import rfc8785

from dnp_guard.errors import AuditError

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)
_OUTSIDE_BMP: Final = 0xF0  # the first byte of four
_SAFE_INTEGER: Final = 2**53 - 1
_SMALLEST: Final = 1e-4  # repr() writes an exponent below


def canonical(value: object) -> bytes:
    """Encode a JSON value as RFC 8785 bytes.

    Args:
        value: a value of dict (string keys), list, tuple, str, int, float, bool and None.

    Returns:
        UTF-8 with keys sorted by their UTF-16 code units, without white space or a trailing newline.

    Raises:
        AuditError: the value has no canonical form, because of NaN or an infinity, an integer beyond ±(2⁵³-1), a lone
            surrogate, a key that is not a string, another type, or nesting that is too deep.

    >>> canonical({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    # The standard library's encoder is several times as fast, and nearly always writes the same bytes.
    try:
        encoded = _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return _strict(value)
    return encoded if _is_same(value, encoded) else _strict(value)


def measured(value: float) -> float:
    """Round a measurement to the six significant digits of records and decisions.

    >>> measured(0.12345678)
    0.123457
    """
    return float(f"{value:.6g}")


def _strict(value: object) -> bytes:
    try:
        return rfc8785.dumps(cast("Any", value))
    except UnicodeEncodeError:
        reason = "a key contains a lone surrogate"
    except rfc8785.FloatDomainError as error:
        reason = f"{error}: JSON has no NaN and no infinity"
    except rfc8785.IntegerDomainError as error:
        reason = f"{error}: integers go up to 2^53-1"
    except rfc8785.CanonicalizationError as error:
        lone = isinstance(error.__cause__, UnicodeEncodeError)
        reason = "a string contains a lone surrogate" if lone else str(error)
    except RecursionError:
        reason = "it is nested too deeply, or contains itself"
    raise AuditError(
        f"a value has no canonical JSON form: {reason}",
        hint="Use dict with string keys, list, str, int, finite float, bool and None.",
    )


def _is_same(value: object, encoded: bytes) -> bool:  # noqa: C901 (one branch per JSON type)
    """Return whether the standard library's bytes meet RFC 8785: no unusual number, no key outside the BMP."""
    if not encoded.isascii() and max(encoded) >= _OUTSIDE_BMP:
        return False
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is dict:
            if not all(type(key) is str for key in cast("dict[Any, Any]", item)):
                return False
            waiting += [part for part in cast("dict[Any, Any]", item).values() if type(part) is not str]
        elif kind is list or kind is tuple:
            waiting += [part for part in cast("list[Any]", item) if type(part) is not str]
        elif kind is float:
            if cast("float", item).is_integer() or abs(cast("float", item)) < _SMALLEST:
                return False
        elif kind is int:
            if abs(cast("int", item)) > _SAFE_INTEGER:
                return False
        elif item is not None and kind is not bool and kind is not str:
            return False
    return True
