"""An evaluation runs on a real Ray cluster of two workers on this machine."""

import pytest

from dnp_guard.lab.evaluate.runner import World, here
from tests.lab.evaluate.test_runner import planned

pytest.importorskip("ray", reason="Ray has no wheel for this Python")
pytestmark = pytest.mark.models


def test_a_cluster_of_two_workers_gives_the_rows_of_one_process():
    from dnp_guard.lab.evaluate.cluster import on_ray

    plan = planned(n=3, size=2, steps=4)
    batches = plan.batches()
    spread = list(on_ray(plan, None, workers=2)(batches))
    alone = list(here(World(plan))(batches))
    assert [part.batch for part in spread] == batches
    assert [part.rows for part in spread] == [part.rows for part in alone]


def test_nothing_to_do_starts_no_cluster():
    import ray

    from dnp_guard.lab.evaluate.cluster import on_ray

    assert list(on_ray(planned(n=1), None)([])) == []
    assert not ray.is_initialized()
