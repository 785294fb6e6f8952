from __future__ import annotations

import json
import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.canonical import canonical
from dnp_guard.errors import AuditError

SAFE = 2**53 - 1
characters = st.characters(exclude_categories=("Cs",))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters)
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner))


def test_it_writes_the_sorting_example_of_rfc_8785() -> None:
    value = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    assert list(json.loads(canonical(value))) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_it_writes_the_serialization_example_of_rfc_8785() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@given(st.dictionaries(st.text(characters), scalars))
def test_the_order_of_keys_never_shows(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@given(values)
def test_the_bytes_are_those_of_the_reference_implementation(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [1.0, -0.0, 1e-4, 9.99e-5, 1e-7, 1e16, 1e21, 5e-324, SAFE, True, [1.5, {"\ue000": 1, "\U0001f600": 2}]]
)
def test_unusual_numbers_and_keys_are_written_as_the_reference_implementation_does(value: object) -> None:
    assert canonical({"a": [value]}) == rfc8785.dumps({"a": [value]})  # type: ignore[dict-item, list-item]


@given(values)
def test_the_bytes_say_the_same_value(value: object) -> None:
    assert json.loads(canonical(value), parse_int=float) == json.loads(json.dumps(value), parse_int=float)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "no NaN"),
        ([math.inf], "no infinity"),
        ("\ud800", "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        (2**53, "2\\^53-1"),
        ({1: 2}, "keys must be strings"),
        (object(), "unsupported type"),
    ],
)
def test_it_refuses_what_has_no_canonical_form(value: object, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        canonical(value)


def test_it_refuses_a_value_that_holds_itself() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(AuditError, match="contains itself"):
        canonical(value)
