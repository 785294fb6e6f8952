import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.generation.judge import (
    History,
    find,
    judge,
    judge_final,
    settle,
    stricter,
    waive,
    with_actions,
    with_words,
)
from dnp_guard.policy import allowed_questions, questions
from dnp_guard.types import Action, Outcome
from tests.policies import bolt, policy, star


def look(of, history=None, **seen):
    """Judge one look under a policy; ``seen`` are the probabilities by term, with underscores for spaces."""
    asked = questions(of)
    row = [seen.get(question.term.replace(" ", "_"), 0.0) for question in asked]
    findings, probabilities = find(of, asked, row)
    return judge(of, history or History(), findings, probabilities)


def final(of, **seen):
    asked = questions(of)
    findings, probabilities = find(of, asked, [seen.get(q.term.replace(" ", "_"), 0.0) for q in asked], final=True)
    return judge_final(of, findings, probabilities)


def test_a_probability_at_the_threshold_is_found_and_just_under_it_is_not():
    assert look(policy(), a_star=0.5)[0].findings
    assert not look(policy(), a_star=0.499)[0].findings


def test_a_category_is_as_probable_as_its_likeliest_term():
    decision, _ = look(policy(), a_bolt=0.2, a_storm=0.7)
    assert decision.probabilities["bolt"] == 0.7


def test_only_what_was_found_is_negated_and_found_terms_are_filled_in():
    decision, _ = look(policy(), a_storm=0.9)
    assert decision.negative.words == ("bolt", "a storm")
    assert decision.negative.categories == ("bolt",)


def test_several_categories_give_one_negative_in_policy_order():
    decision, _ = look(policy(), a_storm=0.9, a_star=0.9)
    assert decision.negative.text == "star, bolt, a storm"


def test_nothing_seen_clears_the_negative_at_once_without_hold():
    _, history = look(policy(), a_star=0.9)
    assert look(policy(), history)[0].negative is None


def test_a_held_negative_stays_for_that_many_looks():
    held = policy(guidance={"hold": 2})
    decision, history = look(held, a_star=0.9)
    texts = []
    for _ in range(3):
        decision, history = look(held, history)
        texts.append(decision.negative is not None)
    assert texts == [True, True, False]


def test_seeing_it_again_starts_the_hold_anew():
    held = policy(guidance={"hold": 1})
    _, history = look(held, a_star=0.9)
    _, history = look(held, history)
    _, history = look(held, history, a_star=0.9)
    assert look(held, history)[0].negative is not None


def test_monitor_records_and_injects_nothing():
    decision, _ = look(policy(categories=[star(action="monitor")]), a_star=0.9)
    assert decision.action == Action.MONITOR
    assert decision.negative is None


def test_severity_weighs_the_scale():
    decision, _ = look(policy(guidance={"strength": "severity"}), a_star=0.9)
    assert decision.negative.scale == 6 * 0.75


def test_a_categorys_own_scale_counts_and_the_strongest_wins():
    strong = policy(categories=[star(guidance={"scale": 11}), bolt()])
    assert look(strong, a_star=0.9, a_bolt=0.9)[0].negative.scale == 11


def test_replace_has_no_scale_of_its_own():
    replacing = policy(guidance={"mode": "replace", "scale": None, "strength": None})
    assert look(replacing, a_star=0.9)[0].negative.scale is None


def test_a_rule_over_two_categories_is_stricter_than_either():
    of = policy(rules=[{"all": ["star", "bolt"], "action": "block"}])
    assert look(of, a_star=0.9)[0].action is Action.STEER
    assert look(of, a_star=0.9, a_bolt=0.9)[0].action is Action.BLOCK


def test_a_category_in_shadow_appears_only_in_would():
    decision, history = look(policy(categories=[star(mode="shadow"), bolt()]), a_star=0.9)
    assert decision.action is None
    assert decision.negative is None
    assert decision.would_action == Action.STEER
    assert decision.would_negative.text == "star"
    assert not history.found


def test_a_category_in_shadow_triggers_no_rule():
    of = policy(categories=[star(mode="shadow"), bolt()], rules=[{"all": ["star", "bolt"], "action": "block"}])
    decision, _ = look(of, a_star=0.9, a_bolt=0.9)
    assert decision.action == Action.STEER
    assert decision.would_action == Action.BLOCK
    assert final(of, a_star=0.9, a_bolt=0.1).action is None


def test_a_policy_in_shadow_does_nothing_and_says_what_it_would():
    decision, _ = look(policy(mode="shadow"), a_star=0.9)
    assert decision.negative is None
    assert decision.would_negative.text == "star"


def test_an_allowed_case_waives_its_category_alone():
    of = policy(categories=[star(allowed=["a flag"]), bolt(allowed=["a weather map"])])
    asked = questions(of)
    findings, _ = find(of, asked, [0.9] * len(asked))
    waived = waive(of, findings, [*allowed_questions(of, "star"), *allowed_questions(of, "bolt")], [(0.8, 0.79)])
    assert {finding.category for finding in waived} == {"star"}


def test_an_excuse_waives_its_own_term_and_no_other():
    of = policy(categories=[bolt(allowed={"a bolt": ["a foam bolt"]})])
    asked = questions(of)
    findings, probabilities = find(of, asked, [0.85, 0.99])
    waived = waive(of, findings, allowed_questions(of, "bolt", ["a bolt", "a storm"]), [[0.85]])
    decision, _ = judge(of, History(), findings, probabilities, waived)
    assert [finding.term for finding in waived] == ["a bolt"]
    assert decision.negative.text == "bolt, a storm"


def test_a_list_of_excuses_waives_every_term():
    of = policy(categories=[bolt(allowed=["a foam bolt"])])
    findings, _ = find(of, questions(of), [0.85, 0.99])
    waived = waive(of, findings, allowed_questions(of, "bolt"), [[0.85]])
    assert [finding.term for finding in waived] == ["a bolt", "a storm"]


def test_only_what_excuses_a_found_term_is_asked_about():
    of = policy(categories=[bolt(allowed={"a bolt": ["a foam bolt", "a sign"], "a storm": ["a film", "a sign"]})])
    assert [question.term for question in allowed_questions(of, "bolt", ["a storm"])] == ["a film", "a sign"]
    assert [question.term for question in allowed_questions(of, "bolt")] == ["a foam bolt", "a sign", "a film"]


def test_a_waived_finding_leads_to_nothing():
    of = policy(categories=[star(allowed=["a flag"]), bolt()])
    asked = questions(of)
    findings, probabilities = find(of, asked, [0.9] + [0.0] * (len(asked) - 1))
    decision, _ = judge(
        of, History(), findings, probabilities, waive(of, findings, allowed_questions(of, "star"), [[0.95]])
    )
    assert decision.action is None
    assert decision.negative is None
    assert len(decision.waived) == 1


def test_paired_questions_count_the_stricter_answer():
    assert stricter([0.2, 0.7], [0.1, 0.9]) == pytest.approx((0.9, 0.7))


@pytest.mark.parametrize("still_present", ["monitor", "blur", "block"])
def test_the_final_look_does_what_still_present_says(still_present):
    decision = final(policy(categories=[star(still_present=still_present)]), a_star=0.9)
    assert decision.action == still_present


def test_the_final_look_has_a_threshold_of_its_own():
    of = policy(categories=[star(threshold=0.3, final_threshold=0.8)])
    assert final(of, a_star=0.7).action is None
    assert final(of, a_star=0.8).action is Action.BLOCK


def test_a_block_confirmed_at_the_end_is_carried_out_whatever_still_present_says():
    of = policy(categories=[star(action="block", still_present="monitor")])
    assert final(of, a_star=0.9).action is Action.BLOCK


def test_a_block_found_during_the_run_is_not_carried_out_when_the_end_is_clean():
    of = policy(categories=[star(action="block")])
    decision, history = look(of, a_star=0.9)
    assert decision.negative is not None
    assert settle(final(of), history, final=True, steered=True) is Outcome.STEERED


def test_without_a_final_look_the_last_answered_one_settles_it():
    of = policy(queries={"final": False}, categories=[star(action="block")])
    decision, history = look(of, a_star=0.9)
    assert settle(decision, history, final=False, steered=True) is Outcome.BLOCKED


def test_an_image_in_which_nothing_was_found_is_clean():
    decision, history = look(policy())
    assert settle(final(policy()), history, final=True, steered=False) is Outcome.CLEAN
    assert decision.why == "nothing of the policy was seen"


def test_a_plugin_makes_a_decision_stricter_and_never_looser():
    decision, _ = look(policy(), a_star=0.9)
    assert with_actions(decision, [Action.MONITOR]) is decision
    assert with_actions(decision, [Action.BLUR, Action.BLOCK]).action is Action.BLOCK


def test_a_plugin_adds_words_of_the_vocabulary_and_no_others():
    decision, _ = look(policy(), a_star=0.9)
    added, refused = with_words(policy(), decision, ["bolt", "anything else"])
    assert added.negative.words == ("star", "bolt")
    assert refused == ("anything else",)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), max_size=8), st.integers(0, 3))
def test_whatever_is_answered_only_words_of_the_policy_are_injected(rows, hold):
    of = policy(guidance={"hold": hold})
    asked, history = questions(of), History()
    for row in rows:
        findings, probabilities = find(of, asked, row)
        decision, history = judge(of, history, findings, probabilities)
        words = decision.negative.words if decision.negative else ()
        assert set(words) <= set(of.vocabulary())


def test_a_look_that_does_not_ask_about_a_category_neither_sees_nor_misses_it():
    held = policy(guidance={"hold": 0})
    _, history = look(held, a_star=0.9)
    for_bolt = [question for question in questions(held) if question.category == "bolt"]
    findings, probabilities = find(held, for_bolt, [0.0, 0.0])
    decision, history = judge(held, history, findings, probabilities)
    assert decision.negative.words == ("star",)
    assert look(held, history)[0].negative is None


def retried(otherwise="block", **more):
    categories = [star(still_present="retry", **more), bolt(still_present="blur")]
    return policy(categories=categories, retries={"otherwise": otherwise})


def test_an_image_that_shows_what_is_retried_is_made_again_or_blocked():
    decision = final(retried(), a_star=0.9)
    assert decision.action == Action.RETRY
    assert decision.otherwise == Action.BLOCK


def test_an_image_is_not_made_again_where_another_category_blocks():
    of = policy(categories=[star(still_present="retry"), bolt(still_present="block")])
    assert final(of, a_star=0.9, a_bolt=0.9).action is Action.BLOCK


@pytest.mark.parametrize(("seen", "otherwise"), [({}, Action.MONITOR), ({"a_bolt": 0.9}, Action.BLUR)])
def test_the_action_in_place_of_a_retry_is_as_strict_as_the_other_categories(seen, otherwise):
    of = retried(otherwise="monitor")
    assert final(of, a_star=0.9, **seen).otherwise is otherwise


def test_a_finding_that_blurs_during_the_run_blurs_at_least_after_a_retry():
    of = retried(otherwise="monitor", action="blur")
    assert final(of, a_star=0.9).otherwise is Action.BLUR


def test_a_plugin_makes_what_is_done_instead_of_a_retry_stricter():
    of = retried(otherwise="monitor")
    assert with_actions(final(of, a_star=0.9), [Action.BLUR]).otherwise is Action.BLUR


def test_an_image_that_is_not_made_again_meets_what_is_done_instead():
    assert settle(final(retried(), a_star=0.9), History(), final=True, steered=True) is Outcome.BLOCKED
