"""Withheld images are covered in pipelines that return every image as several layers, whose number may differ."""

import numpy as np

from dnp_guard.hosts.diffusers.showing.output import Output
from dnp_guard.types import Outcome
from tests.policies import policy


class Ended:
    """A stand-in for a pipeline's call of two images that has ended without failures."""

    images = 2

    def ended(self):
        return []


def test_items_of_unequal_layers_are_covered_each_in_its_own_shape():
    items = [np.ones((5, 8, 8, 3), np.float32), np.ones((2, 8, 8, 3), np.float32)]
    shown = Output((items,), "np", Ended()).delivered([Outcome.BLOCKED, Outcome.FAILED_CLOSED], policy())[0]
    assert [item.shape for item in shown] == [(5, 8, 8, 3), (2, 8, 8, 3)]
    assert not any((after == before).all() for after, before in zip(shown, items, strict=True))


def test_an_item_that_passes_keeps_every_bit():
    items = [np.ones((5, 8, 8, 3), np.float32), np.ones((2, 8, 8, 3), np.float32)]
    shown = Output((items,), "np", Ended()).delivered([Outcome.CLEAN, Outcome.BLOCKED], policy())[0]
    assert (shown[0] == items[0]).all()
    assert not (shown[1] == items[1]).all()
