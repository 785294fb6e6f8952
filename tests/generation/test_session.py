"""A session applies the rules of one generation; the tests pass it answers as values, without guard and backend."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dnp_guard.errors import VlmError
from dnp_guard.generation import events, judge, pacing
from dnp_guard.generation.query import Answer
from dnp_guard.generation.session import Session
from dnp_guard.generation.state import Request
from dnp_guard.server.state import dumps, loads
from dnp_guard.types import Action, Outcome, Step
from tests.policies import bolt, policy, star
from tests.sampler import PICTURE, STEPS

STAR, NOTHING = {"star": 0.9}, {}
DOWN = VlmError("no answer")


def session(images=1, of=None, **request):
    return Session(of or policy(), Request(images, {"name": "test"}, **request))


def step(index, *, effective=True):
    return Step(index, STEPS, 1.0, None, effective=effective)


def answer(asked, plan, *rows):
    """Build a backend's answer to a session's planned query; ``rows`` are probabilities by category, per image."""
    seen = [
        judge.find(
            asked.policy,
            plan.questions,
            [row.get(question.category, 0.0) for question in plan.questions],
            final=plan.step is None,
            progress=pacing.progress(plan.step),
        )
        for row in rows
    ]
    findings_per_image, probabilities = [findings for findings, _ in seen], [highest for _, highest in seen]
    return Answer([PICTURE] * len(rows), plan.categories, findings_per_image, probabilities, [()] * len(rows), 5.0)


def ask(asked, at, *rows, now=None):
    """Have a session plan the query of a step, give it the answer at once, and return the plan."""
    plan = asked.plan(at)
    asked.asking(plan)
    asked.answered(plan, answer(asked, plan, *rows), now or at)
    return plan


def conclude(asked, *rows):
    plan = asked.plan_final()
    asked.answered(plan, answer(asked, plan, *rows))
    return asked.settle()


def kinds(event_list):
    return [type(event) for event in event_list]


def texts(asked):
    return [negative.text if negative else None for negative in asked.negatives]


def test_a_session_that_begins_tells_nothing():
    begun = session()
    assert begun.events() == ()
    assert not begun.refused


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_a_session_that_could_need_too_many_questions_tells_that_alone(mode):
    of = policy(mode=mode, queries={"max_questions": 3})
    begun = session(of=of)
    assert begun.events() == (events.Degraded("max_questions", None, f"{begun.needed} questions"),)
    assert begun.refused == (mode == "enforce")
    assert not begun.due(2, STEPS)
    assert begun.plan_final() is None


def test_a_session_that_goes_on_tells_no_refusal_again():
    of = policy(queries={"max_questions": 3})
    begun = session(of=of)
    assert Session(of, Request(1, {}), begun.state).events() == ()


def test_planning_changes_nothing():
    asked = session(2, policy(queries={"skip_similar": 0.9}))
    ask(asked, step(2), STAR, NOTHING)
    asked.events()
    before = asked.state
    plans = [asked.plan(step(4), [0.1, 0.95]) for _ in range(2)] + [asked.plan_final()]
    assert plans[0] == plans[1] != plans[2]
    assert asked.state is before
    assert asked.events() == ()


def test_a_plan_is_about_the_categories_that_are_due():
    of = policy(categories=[star(), bolt(queries={"steps": [0.3]})])
    asked = session(of=of)
    assert [asked.plan(step(index)).categories for index in (2, 3)] == [{"star"}, {"star", "bolt"}]


def test_an_answer_steers_the_image_in_which_something_was_found():
    asked = session(2)
    ask(asked, step(2), STAR, NOTHING)
    event_list = asked.events()
    assert texts(asked) == ["star", None]
    assert kinds(event_list) == [events.Answered, events.Decided, events.Decided, events.Injected]
    assert event_list[3].image == 0
    assert event_list[3].step == step(2)
    assert event_list[3].applied == 3


def test_an_answered_query_is_due_no_more():
    asked = session()
    ask(asked, step(2), NOTHING)
    assert [index for index in range(STEPS) if asked.due(index, STEPS)] == [4, 5, 6, 7, 8, 9]


def test_steering_ends_when_the_finding_is_gone():
    asked = session()
    ask(asked, step(2), STAR)
    asked.events()
    ask(asked, step(4), NOTHING)
    assert texts(asked) == [None]
    assert asked.events()[-1] == events.Cleared(0, step(4), 5)


def test_events_are_told_once():
    asked = session()
    ask(asked, step(2), STAR)
    assert len(asked.events()) == 3
    assert asked.events() == ()


def test_an_image_that_is_passed_over_is_told_and_the_query_counts_as_answered():
    asked = session(of=policy(queries={"skip_similar": 0.9}))
    ask(asked, step(2), NOTHING)
    asked.events()
    asked.asking(asked.plan(step(4), [0.95]))
    assert asked.events() == (events.Skipped(0, step(4), "similar"),)
    assert not asked.due(5, STEPS)


def test_a_query_without_an_answer_stays_due_and_nothing_is_passed_over_for_likeness():
    asked = session(of=policy(queries={"skip_similar": 0.9}))
    ask(asked, step(2), NOTHING)
    asked.events()
    plan = asked.plan(step(4))
    asked.asking(plan)
    asked.unanswered(plan, DOWN)
    assert asked.events() == (events.Unanswered(1), events.Degraded("vlm_error", step(4), str(DOWN)))
    assert asked.due(5, STEPS)
    assert asked.plan(step(5), [0.95]).images == (0,)


def test_a_query_without_an_answer_counts_the_images_that_it_asked_about():
    asked = session(2, policy(queries={"skip_similar": 0.9}))
    ask(asked, step(2), NOTHING, NOTHING)
    plan = asked.plan(step(4), [0.95, 0.2])
    asked.asking(plan)
    asked.unanswered(plan, DOWN)
    assert events.Unanswered(1) in asked.events()


@pytest.mark.parametrize(("later", "outcome"), [(True, Outcome.CLEAN), (False, Outcome.FAILED_CLOSED)])
def test_a_miss_fails_closed_unless_a_later_query_is_answered(later, outcome):
    asked = session(of=policy(queries={"steps": [0.2], "final": False}))
    plan = asked.plan(step(2))
    asked.asking(plan)
    asked.unanswered(plan, DOWN)
    if later:
        ask(asked, step(3), NOTHING)
    assert asked.settle() == (outcome,)


def test_a_negative_that_the_host_could_not_apply_is_taken_back_and_its_finding_stays():
    asked = session(of=policy(on_failure="last", categories=[star(action="block")]))
    ask(asked, step(2), NOTHING)
    before = asked.negatives
    plan = ask(asked, step(4), STAR)
    asked.events()
    asked.unsteered(plan, RuntimeError("no text encoder"))
    assert asked.negatives == before
    assert asked.due(5, STEPS)
    assert [query.step for query in asked.state.images[0].queries] == [2, 4]
    assert asked.state.images[0].last.action is Action.BLOCK


def test_no_change_of_steering_is_told_that_the_host_could_not_make():
    asked = session()
    plan = ask(asked, step(2), STAR)
    asked.unsteered(plan, RuntimeError("no text encoder"))
    event_list = asked.events()
    assert kinds(event_list) == [events.Answered, events.Decided, events.Degraded]
    assert asked.state.degraded == ("guard_error",)


def test_an_earlier_late_negative_stays_reported_when_a_later_one_is_taken_back():
    asked = session(of=policy(guidance={"hold": 9}))
    ask(asked, step(2, effective=False), STAR)
    plan = ask(asked, step(4), {"star": 0.9, "bolt": 0.9})
    asked.unsteered(plan, RuntimeError("no text encoder"))
    assert asked.state.degraded == ("not_effective", "guard_error")
    injected = [event for event in asked.events() if isinstance(event, events.Injected)]
    assert [(event.step.index, event.effective) for event in injected] == [(2, False)]


def test_while_an_answer_is_awaited_a_due_step_is_passed_over():
    asked = session(of=policy(queries={"wait": False}), takes_up=True)
    asked.asking(asked.plan(step(2)))
    assert not asked.due(3, STEPS)
    assert asked.plan(step(4)).skipped == {0: ("in_flight", None)}


def test_a_late_answer_steers_from_the_step_after_the_one_that_runs():
    asked = session(of=policy(queries={"wait": False}), takes_up=True)
    ask(asked, step(2), STAR, now=step(5))
    event_list = asked.events()
    assert [event.applied for event in event_list if isinstance(event, events.Decided | events.Injected)] == [6, 6]
    assert not asked.state.in_flight


def test_a_finding_at_the_end_is_reported_and_blocked():
    asked = session()
    ask(asked, step(2), STAR)
    asked.events()
    assert conclude(asked, STAR) == (Outcome.BLOCKED,)
    assert kinds(asked.events()) == [events.Answered, events.StillPresent, events.Decided, events.Finished]


def test_an_image_whose_finding_is_gone_at_the_end_is_steered():
    asked = session(2)
    ask(asked, step(2), STAR, NOTHING)
    assert conclude(asked, NOTHING, NOTHING) == (Outcome.STEERED, Outcome.CLEAN)
    assert [image.decision for image in asked.report.images] == [Outcome.STEERED, Outcome.CLEAN]


def test_an_abandoned_generation_is_told_once_and_delivers_nothing():
    asked = session(2)
    for _ in range(2):
        asked.abandon("stopped")
    assert asked.events() == (events.Abandoned("stopped"),)
    assert asked.state.outcomes == (Outcome.FAILED_CLOSED,) * 2


@pytest.mark.parametrize(("required", "outcome"), [(True, Outcome.FAILED_CLOSED), (False, Outcome.CLEAN)])
def test_a_record_that_could_not_be_written_withholds_where_the_policy_requires_it(required, outcome):
    asked = session(of=policy(audit={"required": required}))
    conclude(asked, NOTHING)
    for _ in range(2):
        asked.unrecorded()
    assert asked.state.outcomes == (outcome,)
    assert asked.state.degraded == ("audit_required",) * required


def test_a_decision_is_tightened_before_it_is_judged_by():
    def tighten(request, image, at, decision):
        return replace(decision, action=Action.BLOCK), [events.Degraded("plugin_error", at, "asked for a rainbow")]

    of = policy(queries={"final": False})
    asked = Session(of, Request(1, {}), tighten=tighten)
    ask(asked, step(8), NOTHING)
    assert kinds(asked.events()) == [events.Answered, events.Degraded, events.Decided]
    assert asked.settle() == (Outcome.BLOCKED,)


@dataclass(frozen=True)
class Move:
    """The random circumstances of one denoising step, for property tests.

    Attributes:
        likeness: per image, similarity of its picture to the one of the previous look.
        rows: per image, the probabilities by category that the query answers; None for no answer.
        steers: whether the host can steer by the answer.
        effective: whether a negative can still change the image at the steps that follow.
        reloads: whether another process takes over the session before the step.
        comes: whether the answer to an earlier query has arrived by this step.
    """

    likeness: tuple[float, ...]
    rows: tuple[dict[str, float], ...] | None
    steers: bool
    effective: bool
    reloads: bool
    comes: bool


ROWS = st.fixed_dictionaries(dict.fromkeys(("star", "bolt", "nova"), st.sampled_from([0.0, 0.05, 0.5, 0.9])))
MOVES = st.builds(
    Move,
    likeness=st.tuples(*[st.sampled_from([0.1, 0.95])] * 2),
    rows=st.none() | st.tuples(ROWS, ROWS),
    steers=st.sampled_from([True, True, False]),
    effective=st.sampled_from([True, True, False]),
    reloads=st.booleans(),
    comes=st.booleans(),
)
RAMP = [{"from": 0, "to": 0.5, "value": 0.9}, {"from": 0.5, "to": 1, "value": 0.4}]
NOVA = {"id": "nova", "look_for": ["a nova"], "sensitive": True, "action": "block", "still_present": "block"}
OF = policy(
    queries={"steps": [0.1, 0.2, 0.3, 0.5, 0.7, 0.9], "wait": False, "skip_similar": 0.9, "back_off": {}},
    guidance={"hold": 1, "strength": "controller"},
    categories=[star(), bolt(threshold=RAMP), {**NOVA, "queries": {"steps": [0.3]}}],
)


def taken(asked, plan, move, now):
    """End a planned query in a session as a move describes: with an answer, without one, or without steering."""
    if move.rows is None:
        asked.unanswered(plan, DOWN, 7.0)
        return
    asked.answered(plan, answer(asked, plan, *(move.rows[index] for index in plan.images)), now, 7.0)
    if plan.step is not None and not move.steers:
        asked.unsteered(plan, RuntimeError("no text encoder"))


def played(moves, takes_up, reloading):
    """Run a session of two images through moves; return its outcomes, its events and its final state.

    Args:
        moves: one move per step.
        takes_up: whether the host can use an answer that arrives at a later step.
        reloading: whether to save and reload the session where a move says so.
    """
    request = Request(2, {"name": "test"}, takes_up=takes_up)
    asked, event_list, late = Session(OF, request), [], None
    for index, move in enumerate(moves):
        if reloading and move.reloads:
            asked = Session(OF, request, loads(dumps(asked.state)))
        now = step(index, effective=move.effective) if index < STEPS else None
        if late is not None and (move.comes or now is None):
            taken(asked, *late, now)
            late = None
        plan = asked.plan_final()
        if now is not None:
            plan = asked.plan(now, move.likeness) if asked.due(index, STEPS) else None
        if plan is not None:
            asked.asking(plan)
        if plan is not None and plan.images:
            if asked.waits or now is None:
                taken(asked, plan, move, now)
            else:
                late = plan, move
        event_list += asked.events()
    outcomes = asked.settle()
    return outcomes, [*event_list, *asked.events()], replace(asked.state, id="")


@given(st.lists(MOVES, min_size=STEPS + 1, max_size=STEPS + 1), st.booleans())
def test_a_session_that_another_process_goes_on_with_goes_on_identically(moves, takes_up):
    there = played(moves, takes_up, reloading=True)
    event(f"outcome {there[0][0]}")
    assert there == played(moves, takes_up, reloading=False)


def test_a_state_of_another_version_is_not_gone_on_with():
    with pytest.raises(ValueError, match="version 1"):
        loads(dumps(replace(session().state, version=1)))


AUTO = {"mode": "auto", "attention": {"phi": 8}}
ESCALATES = {**AUTO, "hold": 9, "escalate": 2}


def test_auto_is_separate_until_the_host_says_that_it_reaches_the_attention():
    asked = session(of=policy(guidance=AUTO))
    plan = asked.plan(step(2))
    asked.answered(plan, answer(asked, plan, STAR), step(2))
    assert asked.negatives[0].mode == "separate"
    assert asked.negatives[0].scale == 6


def test_auto_is_attention_once_the_host_reaches_it_under_the_same_digest():
    asked = session(of=policy(guidance=AUTO))
    asked.steers_attention()
    plan = asked.plan(step(2))
    asked.answered(plan, answer(asked, plan, STAR), step(2))
    negative = asked.negatives[0]
    assert negative.mode == "attention"
    assert negative.scale is None
    assert negative.attention.phi == 8
    assert asked.policy.digest == policy(guidance=AUTO).digest


def escalated(looks, **guidance):
    """Return, after looks at steps 2, 4, 6 and 8, the scale of every image's separate term in addition to attention.

    Args:
        looks: probabilities by category, per look and image.
        guidance: further keys of the policy's guidance.
    """
    asked = session(2, of=policy(guidance={**ESCALATES, **guidance}))
    asked.steers_attention()
    for index, rows in zip((2, 4, 6, 8), looks, strict=False):
        plan = asked.plan(step(index))
        asked.answered(plan, answer(asked, plan, *rows), step(index))
    return [negative and negative.scale for negative in asked.negatives]


def test_a_finding_that_outlasts_attention_gets_a_separate_term_in_its_image_only():
    assert escalated([(STAR, STAR), (STAR, NOTHING), (STAR, NOTHING)]) == [6, None]


def test_a_finding_below_the_policys_count_is_steered_by_attention_only():
    assert escalated([(STAR, NOTHING), (STAR, NOTHING)]) == [None, None]


def test_a_finding_that_outlasted_attention_keeps_its_separate_term_while_held():
    assert escalated([(STAR, NOTHING)] * 3 + [(NOTHING, NOTHING)]) == [6, None]


def test_several_categories_at_once_get_a_separate_term_at_once():
    assert escalated([({"star": 0.9, "bolt": 0.9}, STAR)]) == [6, None]


def test_without_escalate_nothing_gets_a_separate_term_beside_attention():
    assert escalated([({"star": 0.9, "bolt": 0.9}, STAR)] * 4, escalate=None) == [None, None]


def test_a_host_without_an_unconditional_prediction_steers_by_attention_alone():
    asked = session(of=policy(guidance=ESCALATES))
    asked.steers_attention(guided=False)
    ask(asked, step(2), {"star": 0.9, "bolt": 0.9})
    assert asked.negatives[0].scale is None


@pytest.mark.parametrize(("guided", "mask"), [(True, 0.4), (False, 1.0)])
def test_a_mask_needs_a_separate_term_to_meet_what_outlasts_it(guided, mask):
    asked = session(of=policy(guidance={**ESCALATES, "attention": {"mask": 0.4}}))
    asked.steers_attention(guided=guided)
    ask(asked, step(2), STAR)
    assert asked.negatives[0].attention.mask == mask
