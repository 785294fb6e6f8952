from __future__ import annotations

import pytest

from dnp_guard.policy import parse_policy
from dnp_guard.policy.read.migrate import migrate

HEAD = "format: 1\nname: old\n"
CATEGORIES = "categories: [{id: star, negative: [star]}]\n"


def migrated(text):
    made = migrate(text.encode(), "p.yaml")
    parse_policy(made, "p.yaml")
    return made.decode()


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "figure", "instead"),
    [
        ("guidance: {combine: strongest}\n", 3, 12, "removed-key", "70 %", "Delete it"),
        ("guidance: {combine: sum}\n", 3, 12, "removed-key", "2.31 times", "Delete it"),
        ("guidance:\n  combine: join\n", 4, 3, "removed-key", "8 %", "Delete it"),
        ("queries: {most: 6}\n", 3, 11, "removed-key", "80 %", "`back_off`"),
        ("guidance: {mode: orthogonal}\n", 3, 18, "removed-value", "86 % to 100 %", "Write `mode: separate`."),
    ],
)
def test_a_removed_key_is_reported_at_its_place_with_the_reason_and_the_replacement(
    the_problem, text, line, column, code, figure, instead
):
    problem = the_problem(HEAD + text + CATEGORIES)
    assert problem.line == line
    assert problem.column == column
    assert problem.code == code
    assert figure in problem.message
    assert instead in problem.hint


def test_a_key_that_is_gone_hides_no_other_problem(problems):
    text = f"{HEAD}guidance: {{combine: sum, mode: replace, scale: 3}}\n{CATEGORIES}"
    assert problems(text) == [(3, 12, "removed-key"), (3, 48, "replace-with-scale")]


@pytest.mark.parametrize("key", ["most: 3", "combine: sum"])
def test_a_key_where_it_never_was_is_only_unknown(the_problem, key):
    assert the_problem(f"{HEAD}{CATEGORIES}{key}\n").code == "unknown-key"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("guidance: {combine: sum}\n", ""),
        ("guidance: {combine: sum, hold: 1}\n", "guidance: {hold: 1}\n"),
        ("guidance: {hold: 1, combine: sum}  # ours\n", "guidance: {hold: 1}  # ours\n"),
        ("guidance: {hold: 1,\n  combine: sum,\n  scale: 9}\n", "guidance: {hold: 1,\n  scale: 9}\n"),
        ("guidance: {mode: orthogonal}\n", "guidance: {mode: separate}\n"),
        ("guidance:\n  mode: 'orthogonal'  # across\n", "guidance:\n  mode: separate  # across\n"),
        ("guidance:\n  combine: strongest\n\n# Rules.\nrules: []\n", "\n# Rules.\nrules: []\n"),
        (
            "guidance:\n  hold: 1\n  combine: sum  # all\n  # Half.\n  mask: 0.5\n",
            "guidance:\n  hold: 1\n  # Half.\n  mask: 0.5\n",
        ),
        ("queries:\r\n  most: 3\r\n  final: true\r\n", "queries:\r\n  final: true\r\n"),
        ("queries: {most: 3}\nguidance: {mode: orthogonal, combine: join}\n", "guidance: {mode: separate}\n"),
    ],
)
def test_migrate_takes_out_what_is_gone_and_keeps_the_rest_as_it_is_written(before, after):
    assert migrated(HEAD + before + CATEGORIES) == HEAD + after + CATEGORIES


@pytest.mark.parametrize("key", ["combine: |\n    sum", "combine:\n  - sum", "combine: >-\n    sum\n"])
def test_migrate_takes_out_a_value_of_any_kind(key):
    made = migrated(f"{HEAD}guidance:\n  {key}\n  hold: 1\n{CATEGORIES}")
    assert made.replace("\n\n", "\n") == f"{HEAD}guidance:\n  hold: 1\n{CATEGORIES}"


def test_migrate_takes_out_the_last_line_of_a_file_that_does_not_end_in_one():
    assert migrated(f"{HEAD}{CATEGORIES}queries:\n  most: 3") == HEAD + CATEGORIES


def test_migrate_reads_a_policy_in_braces():
    text = '{"format": 1, "name": "old", "queries": {"most": 3}, "guidance": {"combine": "sum"}, "categories": ['
    made = migrated(text + '{"id": "star", "negative": ["star"]}]}')
    assert made == '{"format": 1, "name": "old", "categories": [{"id": "star", "negative": ["star"]}]}'


def test_words_that_mean_something_else_stay():
    text = f"{HEAD}summary: orthogonal\n{CATEGORIES.replace('[star]', '[orthogonal, most]')}"
    assert migrate(text.encode(), "p.yaml") is None


def test_an_upgraded_policy_has_no_removed_keys():
    def from_0(data):
        return {**data, "guidance": {"combine": "sum", "hold": 1}}

    made = migrate(b"format: 0\nname: old\ncategories: [{id: star, negative: [star]}]\n", "p.yaml", {0: from_0})
    assert parse_policy(made, "p.yaml").guidance.hold == 1
