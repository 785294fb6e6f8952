import pytest

from dnp_guard.evaluate.processes import in_processes
from dnp_guard.evaluate.runner import World, here
from tests.evaluate.test_runner import planned

pytestmark = pytest.mark.models


def test_two_processes_give_the_rows_of_one():
    plan = planned(n=3, size=2, steps=4)
    batches = plan.batches()
    spread = list(in_processes(plan, 2)(batches))
    alone = list(here(World(plan))(batches))
    assert [each.batch for each in spread] == batches
    assert [each.rows for each in spread] == [each.rows for each in alone]


def test_nothing_to_do_starts_no_process():
    assert list(in_processes(planned(n=1), 2)([])) == []
