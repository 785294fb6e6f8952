"""A session lets the host try an image again; the tests pass it answers as values, without guard and backend."""

from __future__ import annotations

import pytest

from dnp_guard.generation import events, second_chance
from dnp_guard.generation.session import Session
from dnp_guard.generation.state import Request
from dnp_guard.server.state import dumps, loads
from dnp_guard.types import Action, Outcome
from tests.generation.test_session import NOTHING, STAR, answer, ask, session, step
from tests.policies import bolt, policy, star

BOLT = {"bolt": 0.9}


def retried(**retries):
    return policy(categories=[star(still_present="retry"), bolt(still_present="retry")], retries=retries)


def look(asked, *rows):
    """Give a session the answer to its final look, without settling the outcomes; return the plan of the look."""
    plan = asked.plan_final()
    asked.answered(plan, answer(asked, plan, *rows))
    return plan


def retry_begun(of=None, *rows, **request):
    """Return a session of two images at the start of its second attempt.

    Args:
        of: the policy.
        rows: answer to the final look per image; by default, a star in the first image and nothing in the second.
        request: further fields of the ``Request``.
    """
    asked = session(2, of or retried(), **{"draws_again": True, **request})
    look(asked, *(rows or (STAR, NOTHING)))
    asked.again()
    return asked


def test_an_image_that_still_shows_it_is_made_again_and_the_others_are_not():
    asked = session(2, retried(), draws_again=True)
    look(asked, STAR, NOTHING)
    assert asked.again() == (0,)


def test_nothing_is_made_again_where_no_final_look_asks_for_it():
    asked = session(2, retried(), draws_again=True)
    look(asked, NOTHING, NOTHING)
    assert asked.again() == ()


def test_a_retry_steers_away_from_what_was_seen_harder_and_from_the_first_step_on():
    asked = retry_begun(retried(scale=2))
    negative, _ = asked.negatives
    assert negative.text == "star"
    assert negative.scale == 12
    assert asked.state.images[0].negatives == ((0, negative),)


def test_a_retry_also_steers_away_from_findings_before_the_end():
    asked = session(1, retried(), draws_again=True)
    ask(asked, step(2), BOLT)
    look(asked, STAR)
    asked.again()
    assert asked.negatives[0].words == ("star", "bolt", "a bolt", "a storm")


def test_the_negatives_of_a_retry_stay_until_its_end():
    asked = retry_begun()
    for index in (2, 4, 6, 8):
        ask(asked, step(index), NOTHING)
    assert asked.negatives[0].text == "star"


def test_a_retry_also_steers_away_from_its_own_findings():
    asked = retry_begun()
    ask(asked, step(2), BOLT)
    assert asked.negatives[0].words == ("star", "bolt", "a bolt", "a storm")
    assert asked.negatives[0].scale == 9


def test_only_the_images_that_are_made_again_are_asked_about():
    asked = retry_begun()
    assert asked.plan(step(2)).images == (0,)
    assert asked.plan_final().images == (0,)


def test_an_image_that_comes_out_clean_is_delivered():
    asked = retry_begun()
    look(asked, NOTHING)
    assert asked.again() == ()
    assert asked.settle() == (Outcome.STEERED, Outcome.CLEAN)


@pytest.mark.parametrize(("otherwise", "outcome"), [("block", Outcome.BLOCKED), ("blur", Outcome.BLURRED)])
def test_an_image_that_shows_it_again_meets_what_is_done_otherwise(otherwise, outcome):
    asked = retry_begun(retried(otherwise=otherwise))
    look(asked, STAR)
    assert asked.again() == ()
    assert asked.settle() == (outcome, Outcome.CLEAN)


def test_an_image_is_made_again_as_often_as_the_policy_says():
    asked = retry_begun(retried(most=2))
    look(asked, STAR)
    assert asked.again() == (0,)
    look(asked, STAR)
    assert asked.again() == ()
    assert asked.state.images[0].attempts == 3


@pytest.mark.parametrize(
    ("request_", "in_time", "reason"),
    [({"draws_again": False}, True, second_chance.CANNOT), ({"draws_again": True}, False, second_chance.NO_TIME)],
)
def test_an_image_that_cannot_be_made_again_says_why(request_, in_time, reason):
    asked = session(1, retried(), **request_)
    look(asked, STAR)
    assert asked.again(in_time=in_time) == ()
    assert asked.settle() == (Outcome.BLOCKED,)
    assert asked.events()[-1].not_again == reason


def test_an_image_is_not_made_again_without_words_to_steer_it_by():
    of = policy(categories=[star(still_present="retry", action="blur", negative=[])])
    asked = session(1, of, draws_again=True)
    look(asked, STAR)
    assert asked.again() == ()
    assert asked.state.images[0].not_again == second_chance.NO_WORDS


def test_a_retry_that_fails_ends_as_otherwise_and_fails_nothing_else():
    asked = retry_begun(retried(otherwise="blur"))
    asked.retry_failed("it raised")
    assert asked.again() == ()
    assert asked.settle() == (Outcome.BLURRED, Outcome.CLEAN)


def test_a_picture_that_was_made_before_a_retry_that_fails_was_not_steered_by_it():
    asked = retry_begun(retried(otherwise="monitor"))
    asked.retry_failed("it raised")
    assert asked.settle() == (Outcome.MONITORED, Outcome.CLEAN)
    assert asked.report.images[0].negatives == ()


def test_a_miss_in_a_retry_that_fails_is_forgotten_with_it():
    asked = retry_begun()
    asked.missed("timeout", None, "no answer")
    asked.retry_failed("it was not looked at")
    assert asked.settle() == (Outcome.BLOCKED, Outcome.CLEAN)


def test_an_image_is_not_made_again_in_shadow():
    asked = session(1, retried().model_copy(update={"mode": "shadow"}), draws_again=True)
    look(asked, STAR)
    assert asked.again() == ()
    assert asked.settle() == (Outcome.CLEAN,)


def test_each_attempt_is_told_with_what_is_in_force():
    asked = session(1, retried(), draws_again=True)
    look(asked, STAR)
    asked.events()
    asked.again()
    (event,) = asked.events()
    assert isinstance(event, events.Retried)
    assert event.attempt == 2
    assert event.decision.action == Action.RETRY
    assert event.negative == asked.negatives[0]


@pytest.mark.parametrize(("row", "outcome"), [(NOTHING, "cleared"), (STAR, "still_present")])
def test_how_an_attempt_ends_is_told_once(row, outcome):
    asked = retry_begun()
    asked.events()
    look(asked, row)
    asked.again()
    asked.settle()
    assert [event.outcome for event in asked.events() if isinstance(event, events.RetryEnded)] == [outcome]


def test_the_report_counts_attempts_and_their_looks():
    asked = retry_begun()
    look(asked, NOTHING)
    asked.settle()
    first, other = asked.report.images
    assert first.attempts == 2
    assert [query.attempt for query in first.queries] == [1, 2]
    assert other.attempts == 1


def test_previews_of_images_that_are_thrown_away_are_withheld():
    assert retry_begun().user_previews == ("withhold", "withhold")


def test_another_process_goes_on_with_a_retry():
    asked = retry_begun()
    going = Session(asked.policy, Request(2, {}), loads(dumps(asked.state)))
    look(going, NOTHING)
    assert going.again() == ()
    assert going.settle() == (Outcome.STEERED, Outcome.CLEAN)


@pytest.mark.parametrize(
    ("key", "alpha", "raised"),
    [("alpha", 0.6, 0.9), ("mask", 0.6, 0.6), ("tau", 0.6, 2), ("alpha", 1, 1), ("tau", 1, 3)],
)
def test_a_retry_raises_alpha_and_the_mask_in_attention_and_tau_where_alpha_is_one(key, alpha, raised):
    asked = in_attention({"scale": 1.5}, attention={"alpha": alpha, "mask": 0.4, "tau": 2})
    (negative,) = asked.negatives
    assert getattr(negative.attention, key) == pytest.approx(raised)


def in_attention(retries, queries=None, **guidance):
    """Return a session of one image, steered in attention, at the start of its second attempt after a star was seen."""
    guidance = {"mode": "auto", "attention": {"mask": 0.4}, **guidance}
    of = policy(categories=[star(still_present="retry")], retries=retries, guidance=guidance, queries=queries or {})
    asked = session(1, of, draws_again=True)
    asked.steers_attention()
    look(asked, STAR)
    asked.again()
    return asked


@pytest.mark.parametrize("guidance", [{"escalate": 1}, {}])
def test_a_retry_in_attention_begins_without_the_separate_term(guidance):
    (negative,) = in_attention({"most": 2}, **guidance).negatives
    assert negative.scale is None


def test_a_retry_that_no_query_follows_has_the_separate_term_from_its_first_step_on():
    (negative,) = in_attention({"most": 1, "scale": 1.5}, queries={"steps": []}, escalate=1).negatives
    assert negative.scale == pytest.approx(6 * 1.5 / 2)


def joined(retry, most):
    """Return the scale of the separate term after the first query of retry number ``retry`` of at most ``most``."""
    asked = in_attention({"most": most, "scale": 1.5}, escalate=1)
    for _ in range(retry - 1):
        look(asked, STAR)
        asked.again()
    ask(asked, step(2), NOTHING)
    (negative,) = asked.negatives
    return negative.scale


@pytest.mark.parametrize(("retry", "most", "share"), [(1, 1, 1 / 2), (1, 3, 1 / 4), (2, 3, 2 / 4), (3, 3, 3 / 4)])
def test_the_separate_term_joins_at_the_first_query_and_grows_from_retry_to_retry(retry, most, share):
    assert joined(retry, most) == pytest.approx(6 * 1.5**retry * share)


def test_every_further_retry_is_stronger_than_the_one_before():
    asked = retry_begun(retried(most=2, scale=1.5))
    look(asked, STAR)
    asked.again()
    assert asked.negatives[0].scale == 6 * 1.5**2


def test_retries_get_no_stronger_than_ten_times():
    asked = retry_begun(retried(most=2, scale=10))
    look(asked, STAR)
    asked.again()
    assert asked.negatives[0].scale == 60
