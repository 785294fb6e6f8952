from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.policy import strictest
from dnp_guard.policy.compare.change import Direction
from dnp_guard.policy.compare.diff import changes
from tests.policies import bolt, policy, star

ACTIONS = ["monitor", "steer", "blur", "block"]


@st.composite
def policies(draw):
    of_star = star(
        threshold=draw(st.sampled_from([0.2, 0.5, 0.8])),
        final_threshold=draw(st.sampled_from([0.3, 0.6])),
        allowed_threshold=draw(st.sampled_from([0.7, 0.9])),
        action=draw(st.sampled_from(ACTIONS)),
        still_present=draw(st.sampled_from(["monitor", "blur", "block"])),
        severity=draw(st.sampled_from(["low", "medium", "high"])),
        allowed=draw(st.lists(st.sampled_from(["a badge", "a flag"]), unique=True)),
        **draw(st.sampled_from([{}, {"guidance": {"scale": 5}}])),
        **draw(st.sampled_from([{}, {"more_than_input": 0.2}, {"more_than_input": 0.4}])),
        **draw(st.sampled_from([{}, {"queries": {"steps": [0.2]}}, {"queries": {"of": 10, "steps": [3]}}])),
        look_for=draw(st.lists(st.sampled_from(["a star", "a nova"]), min_size=1, unique=True)),
    )
    return policy(
        categories=draw(st.sampled_from([[of_star], [of_star, bolt()], [bolt(), of_star]])),
        on_failure=draw(st.sampled_from(["open", "last", "closed"])),
        queries={
            "steps": draw(st.sampled_from([[0.2], [0.2, 0.4], [0.5]])),
            "final": True,
            **draw(st.sampled_from([{}, {"skip_similar": 0.9}])),
            **draw(st.sampled_from([{}, {"sigmas": [0.9]}, {"sigmas": [0.9, 0.5]}])),
            **draw(st.sampled_from([{}, {"wait": False}, {"budget_ms": 50}])),
            **draw(st.sampled_from([{}, {"back_off": {"factor": 2, "below": 0.1}}, {"back_off": {}}])),
            **draw(st.sampled_from([{}, {"skip_probe": {"max_miss": 0.01}}, {"skip_probe": {"max_miss": 0.1}}])),
        },
        guidance={
            "scale": draw(st.sampled_from([3, 6])),
            "hold": draw(st.sampled_from([0, 2])),
            **draw(st.sampled_from([{}, {"mask": 0.5}, {"mask": 0.2}, {"reuse": 2}, {"reuse": 3, "mask": 0.3}])),
        },
        rules=draw(st.sampled_from([[], [{"all": ["star"], "action": "block"}]])),
    )


@given(policies(), policies())
def test_the_strictest_of_two_is_never_milder_than_either(one, other):
    both = strictest(one, other)
    for part in (one, other):
        losses = [str(change) for change in changes(part, both) if change.direction is Direction.MILDER]
        assert losses == []


@given(policies())
def test_a_policy_with_itself_is_itself(one):
    assert strictest(one, one).digest == one.digest


@given(policies(), policies())
def test_order_does_not_change_what_is_decided(one, other):
    here, there = strictest(one, other), strictest(other, one)
    assert [c for c in changes(here, there) if c.direction is not Direction.NEITHER] == []


def test_a_policy_in_shadow_adds_nothing_to_one_that_is_enforced():
    shadow = policy(mode="shadow", categories=[star(threshold=0.1)])
    assert strictest(policy(), shadow).digest == policy().digest
    assert strictest(shadow, policy()).mode == "enforce"


ATTENTION = {"guidance": {"mode": "attention", "scale": None}}


@pytest.mark.parametrize("mode", ["separate", "auto"])
def test_attention_without_escalate_is_merged_without_a_scale(mode):
    merged = strictest(policy(**ATTENTION), policy(guidance={"mode": mode}))
    assert merged.guidance.mode == "attention"
    assert merged.guidance.scale is None


@pytest.mark.parametrize("mode", ["separate", "auto"])
def test_attention_merged_into_another_mode_leaves_the_scale(mode):
    merged = strictest(policy(guidance={"mode": mode}), policy(**ATTENTION))
    assert merged.guidance.mode == mode
    assert merged.guidance.scale == 6


def test_attention_takes_escalate_and_the_scale_of_the_other():
    escalating = policy(guidance={"mode": "attention", "escalate": 1, "scale": 7})
    merged = strictest(policy(**ATTENTION), escalating)
    assert merged.guidance.escalate == 1
    assert merged.guidance.scale == 7


def test_attention_that_takes_escalate_takes_a_categorys_own_scale_too():
    guidance = {"mode": "attention", "escalate": 1, "scale": 7}
    escalating = policy(guidance=guidance, categories=[star(), bolt(guidance={"scale": 9})])
    merged = strictest(policy(**ATTENTION), escalating)
    assert merged.scale("star") == 7
    assert merged.scale("bolt") == 9


def test_a_category_in_shadow_gives_way_to_the_same_one_enforced():
    one = policy(categories=[star(mode="shadow", threshold=0.1)])
    merged = strictest(one, policy(categories=[star(threshold=0.6)]))
    assert merged.category("star").mode == "enforce"
    assert merged.category("star").threshold == 0.6


def test_a_sensitive_category_stays_sensitive():
    sensitive = policy(categories=[star(sensitive=True, action="block", still_present="block")])
    merged = strictest(policy(categories=[star(allowed=["a badge"])], audit={"prompt": "plain"}), sensitive)
    assert merged.category("star").sensitive
    assert merged.category("star").allowed == ()
    assert merged.audit.prompt == "none"


def test_whole_steps_and_fractions_are_looked_at_together():
    merged = strictest(policy(queries={"of": 10, "steps": [2, 4]}), policy(queries={"steps": [0.4, 0.9]}))
    assert merged.queries.steps == (0.2, 0.4, 0.9)
    assert merged.queries.of is None


def test_a_merged_policy_excuses_a_term_by_what_excuses_it_wherever_it_is_looked_for():
    mine = policy(categories=[bolt(allowed={"a bolt": ["a sign", "foam"], "a storm": ["a film"]})])
    other = policy(categories=[bolt(look_for=["a bolt"], allowed={"a bolt": ["foam"]})])
    assert strictest(mine, other).category("bolt").allowed == {"a bolt": ("foam",), "a storm": ("a film",)}


def test_only_backends_that_both_allow_are_allowed():
    merged = strictest(policy(vlm={"allow": ["local", "http://a"]}), policy(vlm={"allow": ["local"]}))
    assert merged.vlm.allow == ("local",)


@pytest.mark.parametrize("mode", ["separate", "replace"])
def test_the_kind_of_guidance_is_the_first_ones(mode):
    own = {"mode": "replace", "scale": None, "strength": None} if mode == "replace" else {}
    merged = strictest(policy(guidance=own), policy(categories=[star(), bolt(guidance={"scale": 9})]))
    assert merged.guidance.mode == mode


def test_a_policy_in_shadow_beside_an_enforced_one_adds_what_it_looks_for_and_changes_no_image():
    enforced = policy(categories=[star()], on_failure="open", queries={"max_questions": 10})
    shadow = policy(
        mode="shadow",
        categories=[bolt(threshold=0.3)],
        queries={"steps": [0.5]},
        guidance={"scale": 9},
        preview={"user_previews": "withhold"},
        rules=[{"all": ["bolt"], "action": "block"}],
    )
    for merged in (strictest(enforced, shadow), strictest(shadow, enforced)):
        assert merged.mode == "enforce"
        assert merged.on_failure == "open"
        assert merged.preview == enforced.preview
        assert [merged.shadow(name) for name in ("star", "bolt")] == [False, True]
        assert merged.category("bolt").queries.steps == (0.5,)
        assert merged.scale("bolt") == 9
        assert merged.scale("star") == 6
        assert [rule.all for rule in merged.rules] == [("bolt",)]


def test_a_rule_of_a_policy_in_shadow_is_not_enforced_through_a_category_that_is():
    shadow = policy(mode="shadow", rules=[{"all": ["star", "bolt"], "action": "block"}])
    assert strictest(policy(categories=[star()]), shadow).rules == ()
