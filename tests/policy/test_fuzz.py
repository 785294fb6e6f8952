"""Parsing any bytes gives a policy, or a ``PolicyError`` that says where the problem is."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnp_guard.errors import PolicyError
from dnp_guard.policy import Policy, load_tests, parse_policy, shipped

TEXTS = [path.read_text(encoding="utf-8") for path in shipped().values()]
TOKENS = [
    "&a",
    "*a",
    "!!python/object",
    "<<:",
    "{",
    "}",
    "[",
    "]",
    "- ",
    ": ",
    "\t",
    "'",
    '"',
    "|",
    ">",
    "---",
    "${",
    "\x00",
    "\u202e",
]


def read(raw):
    """Parse bytes as a policy and return it, or None if it is refused; fail if a problem has no message or code."""
    try:
        policy = parse_policy(raw, "fuzz.yaml")
    except PolicyError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.problems
        for problem in refused.problems:
            assert problem.message
            assert problem.code
        return None
    assert isinstance(policy, Policy)
    assert Policy.model_validate(policy.resolved()).digest == policy.digest
    return policy


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_policy_or_refused(raw):
    read(raw)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_policy_or_refused(text):
    read(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_shipped_policy_with_something_put_into_it_is_a_policy_or_refused(data):
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.sampled_from(TOKENS) | st.text(max_size=8)) + text[end:]
    read(text.encode("utf-8", "surrogatepass"))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["steer", "block", "star", "a", "${found}"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "steps", "all", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*Policy.model_fields, "x"]), VALUES, max_size=6))
def test_any_values_under_the_keys_of_a_policy_are_a_policy_or_refused(values):
    lines = [f"{key}: {value!r}".replace("None", "null").replace("True", "true") for key, value in values.items()]
    read("\n".join(["format: 1", "name: a", *lines]).encode())


def laughs(levels):
    lines = ["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels))]
    return "\n".join(lines).encode()


BOMBS = {
    "a billion laughs": laughs(12),
    "a deep nest": b"a: " + b"[" * 5_000,
    "many keys": b"\n".join(b"k%d: 1" % n for n in range(15_000)),
    "many categories": b"format: 1\nname: a\ncategories:\n" + b"  - {id: a}\n" * 15_000,
    "a long line": b"format: 1\nname: " + b"a" * 250_000,
    "a large file": b"#" * 10_000_000,
    "many problems": b"format: 1\nname: a\ncategories: [" + b"{id: 3, x: 1}," * 9_000 + b"]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_cost_time_is_refused(name):  # the bench measures how soon
    assert read(BOMBS[name]) is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_file_of_tests_is_read_or_refused(data, tmp_path):
    text = (shipped()["glyphs"].parent / "tests" / "glyphs.test.yaml").read_text(encoding="utf-8")
    text = text.replace("../glyphs.yaml", str(shipped()["glyphs"]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    text = text[:start] + data.draw(st.sampled_from(TOKENS) | st.text(max_size=8)) + text[end:]
    file = tmp_path / "fuzz.test.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        cases = load_tests(file).cases
    except PolicyError as error:
        cases = error.problems
    assert cases
