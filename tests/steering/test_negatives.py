import pytest

from dnp_guard.steering.negatives import negative_for
from tests.policies import bolt, policy, star

BOTH = {"star": ["a star"], "bolt": ["a storm"]}


def of(**changes):
    return policy(guidance={"strength": "severity", "scale": 8}, **changes)


def test_all_words_make_one_negative_at_the_highest_scale():
    negative = negative_for(of(), BOTH)
    assert negative.text == "star, bolt, a storm"
    assert negative.scale == 6
    assert negative.categories == ("star", "bolt")


def test_a_word_of_two_categories_is_said_once():
    shared = [star(negative=["a sign", "star"]), bolt(negative=["bolt", "a sign"])]
    assert negative_for(of(categories=shared), BOTH).words == ("a sign", "star", "bolt")


def test_in_attention_the_words_of_each_category_are_a_group_of_their_own():
    shared = [star(negative=["a sign", "star"]), bolt(negative=["bolt", "a sign"])]
    attention = {"mode": "attention", "scale": None}
    negative = negative_for(policy(guidance=attention, categories=shared), BOTH)
    assert negative.groups == (("a sign", "star"), ("bolt",))


def test_nothing_active_is_no_negative():
    assert negative_for(of(), {}) is None


def test_categories_without_words_are_no_negative():
    assert negative_for(of(categories=[{**star(), "negative": [], "action": "block"}]), {"star": ["a star"]}) is None


def test_a_negative_in_attention_has_alpha_at_the_strongest_category_and_no_scale():
    attention = {"mode": "attention", "scale": None, "strength": "severity", "attention": {"phi": 8, "alpha": 0.8}}
    negative = negative_for(policy(guidance=attention), BOTH)
    assert negative.scale is None
    assert negative.attention.phi == 8
    assert negative.attention.alpha == pytest.approx(0.6)
