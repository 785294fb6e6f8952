from __future__ import annotations

import pytest

from dnp_guard.policy.read.validate import MAX_PROBLEMS

HEAD = "format: 1\nname: example\n"

MANY = """\
format: 1
name: example
mode: enforced
guidance: {mode: replace, scale: 3}
hold: 2
categories:
  - id: first
    treshold: 0.5
    threshold: 1.5
    negative: ["${fond}"]
  - id: second
    title: true
rules:
  - {all: [first, third], action: block}
"""


def test_a_misspelt_key_is_named_at_its_place_with_the_right_one(the_problem):
    problem = the_problem(HEAD + "categories:\n  - id: star\n    negative: [star]\n    treshold: 0.5\n")
    assert str(problem) == "p.yaml:6:5: unknown key `treshold`. Did you mean `threshold`?"


def test_all_problems_come_at_once_in_the_order_of_the_file(problems):
    assert problems(MANY) == [
        (3, 7, "unknown-value"),
        (4, 34, "replace-with-scale"),
        (5, 1, "unknown-key"),
        (8, 5, "unknown-key"),
        (9, 16, "out-of-range"),
        (10, 16, "unknown-placeholder"),
        (11, 5, "steer-without-negative"),
        (12, 12, "wrong-type"),
        (14, 19, "unknown-category"),
    ]


def test_a_misspelt_value_is_answered_with_the_nearest(the_problem):
    problem = the_problem(HEAD + "categories:\n  - {id: star, action: stear, negative: [star]}\n")
    assert problem.line == 4
    assert problem.column == 24
    assert problem.code == "unknown-value"
    assert "`stear`" in problem.message
    assert "monitor | steer | blur | block" in problem.message
    assert problem.hint == "Did you mean `steer`?"


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ('guidance: {scale: "15"}', "Leave out the quotes."),
        ('queries: {of: "50"}', "Leave out the quotes."),
        ('queries: {steps: ["0.1"]}', "Leave out the quotes."),
        ("queries: {final: yes}", "Write `true`."),
        ("queries: {final: 0}", "Write `false`."),
    ],
)
def test_a_value_of_the_wrong_kind_is_answered_with_how_to_write_it(minimal, the_problem, wrong, hint):
    assert the_problem(f"{minimal}{wrong}\n").hint == hint


def test_a_format_in_quotes_is_not_answered_with_itself(minimal, the_problem):
    assert the_problem(minimal.replace("format: 1", 'format: "1"')).hint == "Leave out the quotes."


def test_a_key_in_the_wrong_place_is_sent_to_the_right_one(minimal, the_problem):
    assert the_problem(f"{minimal}deadline_ms: 100\n").hint == "`deadline_ms` belongs under `queries`."


def test_a_key_like_no_other_is_answered_with_those_there_are(minimal, the_problem):
    assert "`retention_days`" in the_problem(f"{minimal}audit: {{xyzzy: 1}}\n").hint


@pytest.mark.parametrize("missing", ["format", "name", "categories"])
def test_a_required_key_that_is_missing_is_named(minimal, the_problem, missing):
    text = "".join(line for line in minimal.splitlines(keepends=True) if not line.startswith((missing, "  -")))
    text += "" if missing == "categories" else "  - {id: star, negative: [star]}\n"
    assert the_problem(text).code == "missing-key"
    assert the_problem(text).message == f"`{missing}` is missing."


def test_a_misspelt_required_key_is_not_also_missing(minimal, the_problem):
    assert the_problem(minimal.replace("name:", "nam:")).hint == "Did you mean `name`?"


def test_a_wrong_threshold_is_reported_once_although_others_default_to_it(the_problem):
    assert the_problem(HEAD + "categories: [{id: star, negative: [star], threshold: high}]").code == "wrong-type"


def test_wrong_items_do_not_make_their_list_too_short(the_problem):
    assert the_problem(HEAD + "categories: [{id: Star, negative: [star]}]").code == "bad-name"


def test_no_rule_speaks_about_a_value_that_is_wrong_in_itself(the_problem):
    assert the_problem(HEAD + "categories: [{id: star, negative: [1]}]").code == "wrong-type"


def test_no_rule_speaks_about_what_a_misspelt_key_means(the_problem):
    assert the_problem(HEAD + "categories: [{id: star, negatives: [star]}]").code == "unknown-key"


@pytest.mark.parametrize("root", ["just text", "[1, 2]", "42"])
def test_a_root_that_is_no_mapping_is_refused(the_problem, root):
    assert the_problem(root).line == 1
    assert the_problem(root).code == "wrong-type"


@pytest.mark.parametrize(
    ("threshold", "code"),
    [
        ("{0.1: 0.5}", "wrong-type"),
        ("[]", "wrong-type"),
        ("[{from: 0, to: 0.5, value: 0.5}]", "wrong-type"),
        ("[{from: 0.1, to: 1, value: 0.5}]", "wrong-type"),
        ("[{from: 0, to: 0.5, value: 0.5}, {from: 0.6, to: 1, value: 0.5}]", "wrong-type"),
        ("[{from: 0, to: 1, value: 1.5}]", "out-of-range"),
        ("[{from: 0, to: 1}]", "missing-key"),
        ("[{from: 0, to: 1, value: 0.5, at: 1}]", "unknown-key"),
    ],
)
def test_a_threshold_by_step_range_covers_the_run(minimal, the_problem, threshold, code):
    problem = the_problem(minimal.replace("id: star", f"id: star, threshold: {threshold}"))
    assert problem.code == code
    assert problem.line == 4


@pytest.mark.parametrize(
    "wrong",
    [
        "revision: 1.0",
        "queries: {final: 1}",
        "queries: {max_questions: 0}",
        "queries: {skip_similar: .nan}",
        "queries: {steps: [true]}",
        "queries: {steps: [-0.1]}",
        "queries: {steps: 0.5}",
        "queries: []",
        "guidance: {scale: .inf}",
        "guidance: {hold: -1}",
        "audit: {retention_days: 1.5}",
        "vlm: {allow: []}",
        "vlm: {allow: [ftp://x]}",
        "format: 2",
    ],
)
def test_a_value_out_of_its_type_or_range_is_refused_at_its_place(minimal, the_problem, wrong):
    text = minimal.replace("format: 1\n", "") + f"{wrong}\n" if "format" in wrong else f"{minimal}{wrong}\n"
    problem = the_problem(text)
    assert problem.line == len(text.splitlines())
    assert "expected" in problem.message


def test_very_many_problems_are_cut_off_and_said_to_be(minimal, problems):
    findings = problems(minimal + "".join(f"k{number}: 1\n" for number in range(1_000)))
    assert len(findings) == MAX_PROBLEMS + 1
    assert findings[-1][2] == "more-problems"
