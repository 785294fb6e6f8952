from __future__ import annotations

import pytest

from dnp_guard.policy.read.characters import MAX_BYTES
from dnp_guard.policy.read.scan import MAX_DEPTH, scan

LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


def test_values_follow_the_yaml_1_2_core_schema():
    document = scan(b"[yes, on, true, 1, 0x10, 1.5, 1e3, 2024-01-01, '1', 1:30]", "p.yaml")
    assert document.data == ["yes", "on", True, 1, 16, 1.5, 1000.0, "2024-01-01", "1", "1:30"]


def test_keys_are_text_whatever_they_look_like():
    assert scan(b"{1: a, true: b}", "p.yaml").data == {"1": "a", "true": "b"}


def test_every_key_and_value_has_its_place():
    document = scan(b"a:\n  - b: 1\n    c: two\n", "p.yaml")
    key, value = document.keys["a", 0, "c"], document.values["a", 0, "c"]
    assert key.line == 3
    assert key.column == 5
    assert value.line == 3
    assert value.column == 8
    assert value.text == "two"


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("summary: !!str x", "tag"),
        ("summary: !x y", "tag"),
        ("summary: !!python/object/apply:os.system [ls]", "tag"),
        ("summary: &a x", "anchor"),
        ("summary: *a", "alias"),
        ("<<: {summary: x}", "merge-key"),
        ("summary:", "empty-value"),
        ("summary: ~", "empty-value"),
        ("name: other", "duplicate-key"),
        ("? [summary]\n: x", "bad-key"),
        ('summary: "\\u202e"', "hidden-character"),
        ('"\\ud800": x', "hidden-character"),
        ("---\nformat: 1", "several-documents"),
        ("summary: [x", "yaml-syntax"),
        ('summary: "\\UFFFFFFFF"', "yaml-syntax"),
        ("summary: " + "[" * (MAX_DEPTH + 1), "too-deep"),
    ],
)
def test_more_than_plain_data_is_refused(minimal, problems, extra, code):
    assert code in {code for _, _, code in problems(f"{minimal}{extra}\n")}


def test_a_directive_is_refused(minimal, the_problem):
    assert the_problem(f"%YAML 1.1\n---\n{minimal}").code == "directive"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty-file"),
        (b" \n\n", "empty-file"),
        (b"# nothing\n", "empty-file"),
        (b"\xef\xbb\xbf", "empty-file"),
        (b"a: \xff", "not-utf8"),
        (b"#" * (MAX_BYTES + 1), "too-large"),
        ("# \u202e".encode(), "hidden-character"),
        (b"a: \x1b[31m", "hidden-character"),
        (b"a: \x00", "hidden-character"),
    ],
)
def test_bytes_that_are_no_visible_text_are_refused(the_problem, raw, code):
    assert the_problem(raw).code == code


def test_a_byte_order_mark_at_the_start_is_no_fault(minimal, parse):
    assert parse(b"\xef\xbb\xbf" + minimal.encode()).name == "example"


def test_a_bad_byte_is_named_at_its_place(the_problem):
    problem = the_problem(b"a: b\nc: \xff")
    assert problem.line == 2
    assert problem.column == 4
    assert problem.message == "byte 0xFF is not UTF-8."


def test_a_hidden_character_is_named_at_its_place(the_problem):
    problem = the_problem("a: b\nc: d\u200b\n")
    assert problem.line == 2
    assert problem.column == 5
    assert "U+200B" in problem.message


def test_nested_aliases_are_refused_one_by_one_and_never_expanded(problems):
    findings = problems(LAUGHS)
    assert sum(code == "alias" for _, _, code in findings) == 16


def test_nesting_to_the_limit_is_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert scan(text.encode(), "p.yaml").problems == []


def test_very_deep_nesting_stops_at_the_limit(the_problem):
    problem = the_problem("[" * 200_000)
    assert problem.code == "too-deep"
    assert problem.column == MAX_DEPTH + 1


def test_a_number_of_thousands_of_digits_stays_text():
    assert scan(b"9" * 10_000, "p.yaml").data == "9" * 10_000


def test_an_unquoted_placeholder_in_braces_is_answered_with_quotes(minimal, the_problem):
    problem = the_problem(f"{minimal}audit: {{prompt: ${{found}}}}\n")
    assert problem.line == 5
    assert problem.code == "yaml-syntax"
    assert '"${found}"' in problem.hint
