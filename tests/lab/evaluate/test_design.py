import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.design import Column, EvaluationPlan, categories_from, columns_of, restricted
from dnp_guard.lab.evaluate.prompt_sets import Entry
from dnp_guard.lab.world.captions import Prompt
from dnp_guard.policy import load_policy


def entry(index, guidance=None, forbidden=("star",)):
    return Entry(Prompt(f"prompt {index}", "night", (), forbidden), index, guidance)


def plan(sets, **values):
    columns = Column("unguarded"), Column("dnp-guard")
    grown = (Column("dnp-guard", None, 1),)
    return EvaluationPlan(
        sets, columns, grown, load_policy("glyphs"), **{"seed": 0, "steps": 25, "guidance_scale": 5.0, **values}
    )


@given(st.lists(st.sampled_from([None, 5.0, 7.5]), max_size=20), st.integers(1, 6))
def test_batches_hold_every_prompt_once_in_order_and_one_guidance_each(scales, size):
    entries = tuple(entry(i, scale) for i, scale in enumerate(scales))
    batches = plan({"a": entries, "b": entries}, size=size).batches()
    for name in "ab":
        own = [batch for batch in batches if batch.set == name]
        assert tuple(member for batch in own for member in batch.entries) == entries
        assert all(batch.entries[0] == entries[batch.start] for batch in own)
    assert all(len({member.guidance_scale for member in batch.entries}) == 1 for batch in batches)
    assert all(0 < len(batch.entries) <= size for batch in batches)
    assert [batch.number for batch in batches] == list(range(len(batches)))


@pytest.mark.parametrize(("model", "own", "taken"), [(5.0, None, 5.0), (5.0, 7.5, 7.5), (1.0, 7.5, 1.0)])
def test_a_prompt_brings_its_own_guidance_where_the_model_takes_any(model, own, taken):
    assert plan({}, guidance_scale=model).guidance_of(entry(0, own)) == taken


def test_policies_grow_where_prompts_draw_several_things():
    two = plan({"multi": (entry(0, forbidden=("star", "bolt")),), "attack": (entry(0),)})
    assert len(two.columns_of("multi")) == 3
    assert len(two.columns_of("attack")) == 2


def test_only_the_methods_whose_policies_grow_may_be_run_there():
    sets = {"multi": (entry(0, forbidden=("star", "bolt")),), "attack": (entry(0),)}
    columns = Column("unguarded"), Column("safree"), Column("dnp-guard")
    narrow = EvaluationPlan(
        sets, columns, (Column("dnp-guard", None, 1),), load_policy("glyphs"), 0, 25, 5.0, only_grown=True
    )
    assert [column.method for column in narrow.columns_of("multi")] == ["unguarded", "dnp-guard", "dnp-guard"]
    assert narrow.columns_of("attack") == columns


@given(st.sampled_from("abcd"), st.integers(1, 4))
def test_every_policy_has_the_first_category_and_the_next_has_one_more(first, count):
    categories = categories_from(first, count, "abcd")
    assert categories[0] == first
    assert len(set(categories)) == count
    assert categories_from(first, 4, "abcd")[:count] == categories


def test_a_restricted_policy_asks_and_injects_less():
    policy = restricted(load_policy("glyphs"), ("bolt", "star"))
    assert [category.id for category in policy.categories] == ["star", "bolt"]
    assert policy.guidance == load_policy("glyphs").guidance


def test_a_policy_without_any_of_them_is_refused():
    with pytest.raises(DnpGuardError, match="none of the categories ghost"):
        restricted(load_policy("glyphs"), ("ghost",))


def test_unguarded_is_run_first_and_everything_once():
    columns = columns_of(["dnp-guard", "unguarded", "static-separate@5", "dnp-guard"])
    assert columns == (Column("unguarded"), Column("dnp-guard"), Column("static-separate", 5.0))


def test_scales_are_for_the_methods_that_have_one():
    columns = columns_of(["static-replace", "static-separate"], [5, 10])
    assert columns[1:] == (Column("static-replace"), Column("static-separate", 5), Column("static-separate", 10))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("static-seperate", "static-separate"),
        ("static-replace@5", "no scale"),
        ("static-separate@x", "'x' is no scale"),
    ],
)
def test_what_cannot_be_run_is_refused(word, message):
    with pytest.raises(DnpGuardError, match=message):
        columns_of([word])
