import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.ablations import ABLATIONS, ablation
from dnp_guard.policy import load_policy


@pytest.mark.parametrize("row", ABLATIONS, ids=lambda row: row.name)
def test_every_row_changes_what_it_names_and_nothing_else(row):
    shipped = load_policy("glyphs")
    before, after = shipped.resolved(), row.of(shipped).resolved()
    changed = {part for part in before.keys() | after.keys() if before.get(part) != after.get(part)}
    assert changed - {"categories"} == set(row.changes)


def test_one_row_is_the_policy_itself():
    assert ablation("as shipped").of(load_policy("glyphs")).digest == load_policy("glyphs").digest


def test_the_cheapest_row_is_the_light_policy():
    light = load_policy("glyphs-light")
    cheapest = ablation("all that is cheap").of(load_policy("glyphs"))
    assert cheapest.queries == light.queries
    assert cheapest.guidance == light.guidance
    assert cheapest.categories == light.categories


def test_names_are_told_apart():
    assert len({row.name for row in ABLATIONS}) == len(ABLATIONS)


def test_a_name_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(DnpGuardError, match="every step"):
        ablation("every stop")
