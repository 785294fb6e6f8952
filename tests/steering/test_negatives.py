import pytest

from dnp_guard.steering.negatives import negative_for
from dnp_guard.types import Part
from tests.policies import bolt, policy, star

BOTH = {"star": ["a star"], "bolt": ["a storm"]}


def of(combine=None, **changes):
    guidance = {"combine": combine} if combine else {}
    return policy(guidance={"strength": "severity", "scale": 8, **guidance}, **changes)


def test_by_default_all_words_make_one_negative_at_the_highest_scale():
    negative = negative_for(of(), BOTH)
    assert (negative.text, negative.scale, negative.parts) == ("star, bolt, a storm", 6, ())
    assert negative.terms == (Part(("star", "bolt", "a storm"), 6),)


def test_the_strongest_alone_is_the_likeliest():
    negative = negative_for(of("strongest"), BOTH, probabilities={"star": 0.6, "bolt": 0.9})
    assert (negative.text, negative.scale, negative.categories) == ("bolt, a storm", 4, ("bolt",))


def test_between_equals_the_strongest_has_the_highest_scale():
    assert negative_for(of("strongest"), BOTH).categories == ("star",)


def test_a_category_without_words_is_never_the_strongest():
    wordless = {**star(), "negative": [], "action": "block"}
    probabilities = {"star": 0.9, "bolt": 0.6}
    assert negative_for(of("strongest", categories=[wordless, bolt()]), BOTH, {}, probabilities).text == "bolt, a storm"


def test_a_sum_has_a_part_for_each_category_at_its_own_scale():
    negative = negative_for(of("sum"), BOTH)
    assert negative.parts == negative.terms == (Part(("star",), 6), Part(("bolt", "a storm"), 4))
    assert (negative.text, negative.scale) == ("star, bolt, a storm", 6)


def test_a_sum_pushes_a_word_of_two_categories_once():
    shared = [star(negative=["a sign", "star"]), bolt(negative=["bolt", "a sign"])]
    negative = negative_for(of("sum", categories=shared), BOTH)
    assert [part.words for part in negative.parts] == [("a sign", "star"), ("bolt",)]


def test_a_sum_of_one_category_has_no_parts():
    negative = negative_for(of("sum"), {"star": ["a star"]})
    assert (negative.parts, negative.terms) == ((), (Part(("star",), 6),))


@pytest.mark.parametrize("combine", [None, "strongest", "sum"])
def test_nothing_active_is_no_negative(combine):
    assert negative_for(of(combine), {}) is None
