from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from dnp_guard.canonical import canonical
from dnp_guard.policy import Category, Policy, Severity, load_policy
from dnp_guard.types import Action


def policy(*categories, **settings):
    return Policy(format=1, name="example", categories=categories, **settings)


STAR = Category(id="five_point-star", negative=("star", "a ${found}", "star"), look_for=("a star", "a pentagram"))


def test_missing_keys_of_a_category_are_filled_in(parse, minimal):
    (category,) = parse(minimal).categories
    assert category.model_dump() == {
        "id": "star",
        "title": "Star",
        "definition": "Star",
        "look_for": (),
        "allowed": [],
        "negative": ("star",),
        "threshold": 0.5,
        "allowed_threshold": 0.8,
        "severity": "medium",
        "action": "steer",
        "still_present": "block",
        "final_threshold": 0.5,
        "sensitive": False,
        "mode": "enforce",
        "calibration": None,
        "queries": None,
        "guidance": None,
        "taxonomy": None,
        "more_than_input": None,
    }


def test_missing_keys_of_a_policy_are_filled_in(parse, minimal):
    made = parse(minimal)
    assert made.mode == "enforce"
    assert made.on_failure == "closed"
    assert made.queries.final
    assert made.queries.deadline_ms is None
    assert made.guidance.mode == "separate"
    assert made.guidance.scale == 15
    assert made.guidance.strength == "severity"
    assert made.guidance.hold == 2


def test_the_title_is_the_id_in_words():
    assert STAR.title == "Five point star"


def test_the_final_threshold_follows_the_threshold():
    assert Category(id="a", negative=("a",), threshold=0.7).final_threshold == 0.7


def test_a_sensitive_category_blocks_without_saying_so():
    made = policy(Category(id="a", sensitive=True)).category("a")
    assert made.action == Action.BLOCK
    assert made.still_present == Action.BLOCK


def test_without_a_final_look_nothing_happens_at_the_end(parse, minimal):
    assert parse(f"{minimal}queries: {{final: false}}\n").category("star").still_present is None


def test_in_replace_mode_there_is_no_scale(parse, minimal):
    made = parse(f"{minimal}guidance: {{mode: replace}}\n")
    assert made.guidance.scale is None
    assert made.guidance.strength is None
    assert made.scale("star") is None


def test_a_category_may_have_its_own_scale(parse, minimal):
    assert parse(minimal.replace("id: star", "id: star, guidance: {scale: 20}")).scale("star") == 20


def test_a_category_takes_the_policys_scale(parse, minimal):
    assert parse(minimal).scale("star") == 15


def test_found_terms_take_the_place_of_the_placeholder_one_by_one():
    assert STAR.words(["a pentagram"]) == ("star", "a a pentagram")


def test_nothing_is_injected_for_a_placeholder_when_no_term_was_found():
    assert STAR.words([]) == ("star",)


def test_the_vocabulary_holds_every_word_that_may_be_injected_once():
    other = Category(id="other", negative=("star", "${found}"))
    assert policy(STAR, other).vocabulary() == ("star", "a a star", "a a pentagram", "Other")


def test_a_doubled_dollar_sign_is_injected_as_one():
    assert policy(Category(id="a", negative=("$$5 note",))).vocabulary() == ("$5 note",)


def test_severities_weigh_in_quarters():
    assert [severity.weight for severity in Severity] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("whole", "own", "shadow"),
    [("enforce", "enforce", False), ("shadow", "enforce", True), ("enforce", "shadow", True)],
)
def test_a_category_is_in_shadow_when_it_or_the_policy_is(whole, own, shadow):
    made = policy(Category(id="a", negative=("a",), mode=own), mode=whole)
    assert made.shadow("a") is shadow


def test_an_unknown_category_is_a_key_error():
    with pytest.raises(KeyError):
        policy(STAR).category("moon")


def test_a_policy_made_in_python_keeps_the_rules_too():
    with pytest.raises(ValidationError, match="steers, but has no `negative`"):
        policy(Category(id="a"))


def test_a_policy_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        policy(STAR).name = "other"


@pytest.mark.parametrize("name", ["default", "glyphs"])
def test_the_resolved_policy_is_the_same_policy(name):
    made = load_policy(name)
    again = Policy.model_validate(made.resolved())
    assert again == made
    assert again.digest == made.digest


def test_the_digest_is_sha_256_over_the_canonical_json():
    made = policy(STAR)
    assert made.digest == hashlib.sha256(canonical(made.resolved())).hexdigest()


def test_the_digest_does_not_see_layout_or_defaults_written_out(parse, minimal):
    spelt = "# a comment\n" + minimal.replace("id: star", 'threshold: 0.50, "id": star') + "mode: enforce\n"
    assert parse(spelt).digest == parse(minimal).digest


def test_the_digest_sees_every_change_of_meaning(parse, minimal):
    changed = minimal.replace("id: star", "id: star, threshold: 0.51")
    assert parse(changed).digest != parse(minimal).digest
