from __future__ import annotations

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import questions_per_image, questions_per_look, strictest
from dnp_guard.policy.compare.change import Direction
from dnp_guard.policy.compare.diff import changes
from dnp_guard.types import Action
from tests.policies import policy, star


def again(**more):
    return policy(categories=[star(still_present="retry")], **more)


def test_retries_have_defaults_where_a_category_is_made_again():
    assert again().retries.model_dump() == {"most": 1, "otherwise": "block", "scale": 1.5, "within_ms": None}


def test_a_policy_without_retries_has_none_in_its_digest():
    assert "retries" not in policy(categories=[star(still_present="block")]).resolved()


def test_a_retry_is_stricter_than_a_blur_and_milder_than_a_block():
    assert Action.BLUR.rank < Action.RETRY.rank < Action.BLOCK.rank


@pytest.mark.parametrize("more", ["severity: critical", "sensitive: true"])
def test_an_image_that_must_be_blocked_is_never_made_again(parse, more):
    text = f"format: 1\nname: example\ncategories:\n  - {{id: a, negative: [a], still_present: retry, {more}}}\n"
    with pytest.raises(PolicyError, match="still_present: block"):
        parse(text)


@pytest.mark.parametrize("wrong", ["most: 0", "most: 11", "otherwise: retry", "scale: 0.5", "within_ms: 0"])
def test_retries_that_make_no_sense_are_errors(parse, minimal, wrong):
    with pytest.raises(PolicyError, match=wrong.partition(":")[0]):
        parse(f"{minimal}retries: {{{wrong}}}\n")


def test_a_text_of_no_language_is_an_error(parse, minimal):
    with pytest.raises(PolicyError, match="by language"):
        parse(f"{minimal}withheld: {{text: {{German: Nein}}}}\n")


@pytest.mark.parametrize(("locale", "words"), [("de-CH", "Nei"), ("de-AT", "Nein"), ("de", "Nein"), ("fr", "No")])
def test_a_withheld_image_says_so_in_the_persons_language(locale, words):
    made = policy(withheld={"text": {"en": "No", "de": "Nein", "de-CH": "Nei"}})
    assert made.withheld.words(locale) == words


def test_views_of_the_finished_image_take_questions_of_their_own():
    plain, viewed = (
        policy(queries={"steps": [0.2], "final": final}) for final in (True, {"views": ["flip", "crops", "double"]})
    )
    assert questions_per_image(viewed) - questions_per_image(plain) == 4 * questions_per_look(plain)


def test_merged_policies_look_at_the_views_of_both():
    one, other = (policy(queries={"final": {"views": [view]}}) for view in ("flip", "crops"))
    assert strictest(one, other).queries.views == ("flip", "crops")


def test_merged_retries_are_as_strict_as_either():
    one = again(retries={"most": 3, "otherwise": "monitor", "scale": 2, "within_ms": 500})
    other = again(retries={"most": 2, "otherwise": "blur"})
    assert strictest(one, other).retries.model_dump() == {
        "most": 2,
        "otherwise": "blur",
        "scale": 2.0,
        "within_ms": 500,
    }


def test_an_image_that_one_policy_blurs_does_not_pass_a_merged_retry():
    blurs = policy(categories=[star(still_present="blur")])
    assert strictest(again(retries={"otherwise": "monitor"}), blurs).retries.otherwise is Action.BLUR


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ({"queries": {"final": {"views": ["flip"]}}}, {}, Direction.MILDER),
        ({}, {"queries": {"final": {"views": ["flip"]}}}, Direction.STRICTER),
        ({"retries": {"otherwise": "block"}}, {"retries": {"otherwise": "blur"}}, Direction.MILDER),
        ({"retries": {"scale": 1.5}}, {"retries": {"scale": 2}}, Direction.STRICTER),
        ({"withheld": {"text": "No"}}, {"withheld": {"text": "Never"}}, Direction.NEITHER),
    ],
)
def test_a_difference_says_which_way_it_goes(before, after, direction):
    assert [change.direction for change in changes(again(**before), again(**after))] == [direction]
