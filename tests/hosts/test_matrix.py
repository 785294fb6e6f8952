"""One pipeline class of every kind is steered or refused, by the code that ``make matrix`` runs for all classes."""

import pytest

from dnp_guard import CannotSteer, Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts import matrix
from tests.hosts.tiny import everything
from tests.policies import policy

pytestmark = pytest.mark.models

MIXES = "Kandinsky5I2VPipeline"
"""A class that normalises the first frames of all videos together, after they are denoised."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Kandinsky5T2IPipeline", id="a list of factors as long as the batch"),
        pytest.param("QwenImage21Pipeline", id="pictures as videos of one frame"),
    ],
)
def test_one_image_of_three_is_steered_and_the_others_keep_every_bit(name):
    row = matrix.row(name)
    assert row["steerable"]
    assert matrix.as_it_should(row)


def test_an_end_that_mixes_the_images_of_a_batch_is_refused():
    subject = everything.subject(MIXES)
    with (
        Guard(policy(), vlm=ScriptedBackend([{}])).attached(subject.pipe),
        pytest.raises(CannotSteer, match="mixes the images of a batch"),
    ):
        subject.draw()


def test_a_class_that_is_refused_for_several_images_is_steered_for_one():
    row = matrix.row(MIXES)
    assert row["steerable"]
    assert row["images"] == 1
