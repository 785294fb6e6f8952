from __future__ import annotations

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import Policy, load_policy
from dnp_guard.policy.read.lint import warnings
from dnp_guard.policy.read.loading import load

BASE = """\
format: 1
name: base
summary: The base.
queries: {of: 50, steps: [5, 10]}
guidance: {scale: 7, hold: 1}
categories:
  - {id: star, look_for: [a star], negative: [star], threshold: 0.5, guidance: {scale: 9}}
  - {id: bolt, negative: [bolt]}
rules:
  - {all: [star, bolt], action: block}
"""
HEAD = "format: 1\nname: over\nextends: base.yaml\n"


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    write("base.yaml", BASE)
    return write


@pytest.fixture
def problems(write):
    def problems(text, name="over.yaml"):
        with pytest.raises(PolicyError) as caught:
            load_policy(write(name, text))
        return [(p.file.rpartition("/")[2], p.line, p.column, p.code) for p in caught.value.problems]

    return problems


def test_a_policy_inherits_everything_but_what_names_the_file(write):
    policy, base = load_policy(write("over.yaml", HEAD)), load_policy(write("base.yaml", BASE))
    assert policy.name == "over"
    assert policy.summary == ""
    assert policy.categories == base.categories
    assert policy.queries == base.queries
    assert policy.guidance == base.guidance
    assert policy.rules == base.rules


def test_a_category_is_overridden_by_its_id_and_keeps_its_place(write):
    policy = load_policy(
        write("over.yaml", HEAD + "categories: [{id: bolt, threshold: 0.3}, {id: skull, negative: [s]}]")
    )
    assert [category.id for category in policy.categories] == ["star", "bolt", "skull"]
    assert policy.category("bolt").negative == ("bolt",)
    assert policy.category("bolt").threshold == policy.category("bolt").final_threshold == 0.3


def test_lists_are_replaced_and_mappings_merged(write):
    policy = load_policy(
        write("over.yaml", HEAD + "guidance: {hold: 3}\ncategories: [{id: star, look_for: [a big star]}]")
    )
    assert policy.guidance.scale == 7
    assert policy.guidance.hold == 3
    assert policy.category("star").terms == ("a big star",)


def test_rules_of_the_base_stay(write):
    policy = load_policy(write("over.yaml", HEAD + "rules: [{all: [star], action: blur}]"))
    assert [rule.all for rule in policy.rules] == [("star", "bolt"), ("star",)]


def test_new_steps_do_not_inherit_the_run_length_of_the_old(write):
    policy = load_policy(write("over.yaml", HEAD + "queries: {steps: [0.5]}"))
    assert policy.queries.steps == (0.5,)
    assert policy.queries.of is None


def test_replace_does_not_inherit_a_scale_that_it_cannot_have(write):
    write("base.yaml", BASE.replace(", guidance: {scale: 9}", ""))
    assert load_policy(write("over.yaml", HEAD + "guidance: {mode: replace}")).guidance.scale is None


def test_the_digest_is_that_of_the_policy_written_out(write):
    extended = load_policy(write("over.yaml", HEAD + "guidance: {hold: 3}"))
    assert Policy.model_validate(extended.resolved()).digest == extended.digest


def test_a_base_may_extend_another(write):
    write("middle.yaml", HEAD.replace("over", "middle") + "guidance: {hold: 3}")
    policy = load_policy(write("top.yaml", HEAD.replace("base.yaml", "middle.yaml") + "guidance: {scale: 8}"))
    assert policy.guidance.hold == 3
    assert policy.guidance.scale == 8


def test_every_file_that_was_read_is_known(write, tmp_path):
    assert [path.name for path in load(write("over.yaml", HEAD)).inputs] == ["over.yaml", "base.yaml"]


def test_a_problem_is_at_its_place_in_the_extension(problems):
    assert problems(HEAD + "categories:\n  - {id: new, negative: [x]}\n  - {id: bolt, treshold: 1}") == [
        ("over.yaml", 6, 16, "unknown-key")
    ]


def test_a_conflict_with_the_base_names_the_place_in_the_base(problems):
    assert problems(HEAD + "guidance: {mode: replace}") == [("base.yaml", 7, 88, "replace-with-scale")]


def test_a_base_that_does_not_check_is_reported_with_its_own_problems(write, problems):
    write("base.yaml", BASE.replace("hold: 1", "hold: -1"))
    assert problems(HEAD) == [("over.yaml", 3, 10, "bad-base"), ("base.yaml", 5, 28, "out-of-range")]


def test_a_circle_is_reported_where_it_closes(write, problems):
    write("base.yaml", BASE + "extends: over.yaml\n")
    assert ("base.yaml", 11, 10, "extends-cycle") in problems(HEAD)


def test_a_policy_that_extends_itself_is_a_circle(problems):
    assert problems(HEAD.replace("base", "over")) == [("over.yaml", 3, 10, "extends-cycle")]


def test_a_missing_base_is_reported_with_the_nearest_name(write):
    with pytest.raises(PolicyError, match=r"over\.yaml:3:10: no file `bse\.yaml`.*Did you mean `base\.yaml`\?"):
        load_policy(write("over.yaml", HEAD.replace("base", "bse")))


@pytest.mark.parametrize("way", ["../outside.yaml", "sub/../../outside.yaml", "{root}/outside.yaml"])
def test_a_base_outside_the_folder_is_refused(write, problems, tmp_path, way):
    write("outside.yaml", BASE)
    way = way.format(root=tmp_path)
    assert problems(HEAD.replace("base.yaml", way), "inner/over.yaml") == [("over.yaml", 3, 10, "path-escape")]


def test_a_link_out_of_the_folder_is_refused(write, problems, tmp_path):
    write("outside.yaml", BASE)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "base.yaml").symlink_to(tmp_path / "outside.yaml")
    assert problems(HEAD, "inner/over.yaml") == [("over.yaml", 3, 10, "path-escape")]


def test_extends_without_a_file_is_an_error():
    with pytest.raises(ValueError, match="needs a file to start from"):
        Policy.model_validate(
            {"format": 1, "name": "a", "extends": "b", "categories": [{"id": "c", "negative": ["c"]}]}
        )


@pytest.mark.parametrize("text", ["extends: []", "extends: 3", "extends: ''", 'extends: "\\0"', "extends: ."])
def test_a_wrong_kind_of_base_is_a_problem_at_its_place(problems, text):
    assert problems(f"format: 1\nname: a\n{text}\ncategories: [{{id: c, negative: [c]}}]")[0][1:3] == (3, 10)


OTHER = """\
format: 1
name: other
guidance: {scale: 3}
categories:
  - {id: skull, negative: [skull]}
"""
TWO = "format: 1\nname: over\nextends: [base.yaml, other.yaml]\n"


def test_several_policies_are_extended_each_over_those_before_it(write):
    write("other.yaml", OTHER)
    policy = load_policy(write("over.yaml", TWO + "categories: [{id: bolt, threshold: 0.3}]"))
    assert [category.id for category in policy.categories] == ["star", "bolt", "skull"]
    assert policy.guidance.scale == 3
    assert policy.guidance.hold == 1
    assert policy.category("bolt").threshold == 0.3


def test_a_category_of_two_policies_that_are_extended_is_told(write):
    write("other.yaml", OTHER.replace("skull", "star"))
    write("third.yaml", OTHER)
    messages = list(warnings(load(write("over.yaml", TWO.replace("]", ", third.yaml]")))))
    assert [(doubt.code, doubt.line) for doubt in messages] == [("twice-extended", 3)]
    settled = write("over.yaml", TWO + "categories: [{id: star, threshold: 0.3}]")
    assert list(warnings(load(settled))) == []


def test_no_extended_policy_loosens_a_category_that_another_locks(write, problems):
    write("base.yaml", BASE + "floor: {locked: [star]}\n")
    write("other.yaml", "format: 1\nname: other\ncategories: [{id: star, negative: [star], threshold: 0.9}]\n")
    assert ("other.yaml", 3, 54, "locked") in problems(TWO)


def test_a_list_names_the_file_that_is_not_there_and_does_not_name_nothing(write, problems):
    assert problems(TWO) == [("over.yaml", 3, 22, "missing-base")]
    of_none = "format: 1\nname: over\nextends: []\ncategories: [{id: star, negative: [star]}]\n"
    assert [problem[:2] for problem in problems(of_none)] == [("over.yaml", 3)]
