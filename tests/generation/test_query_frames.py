"""A look may show several pictures per image, such as frames of a video."""

import pytest
from PIL import Image

from dnp_guard import Guard, RequestRefused
from dnp_guard.audit import MemorySink
from dnp_guard.generation.host import Pictures
from tests.policies import bolt, policy, star
from tests.sampler import denoise, start

FRAMES = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 60, 10)]
"""Three frames of both videos."""


class Sees:
    """A backend that sees a star, or an allowed drawing, in chosen frames of six."""

    def __init__(self, star_in=(), allowed_in=()):
        self.star_in, self.allowed_in, self.asked = star_in, allowed_in, []

    def ask(self, images, questions):
        places = [image.getpixel((0, 0))[0] // 10 for image in images]
        self.asked.append(places)
        where = {"star": self.star_in, "drawing": self.allowed_in}
        return [
            [0.9 if any(word in q and at in in_ for word, in_ in where.items()) else 0.0 for q in questions]
            for at in places
        ]


def looked(sees, of=None, **arguments):
    """Generate two videos of three frames with one look; return their negatives and their outcomes."""
    with Guard(of or policy(queries={"steps": [0.2]}), vlm=sees, **arguments) as guard:
        driver = start(guard, 2, shows=3)
        denoise(driver, view=lambda index: Pictures(FRAMES))
        held = [negative.text if negative else None for negative in driver.negatives]
        return held, driver.final(lambda: FRAMES)


@pytest.mark.parametrize("frame", [3, 4, 5])
def test_a_finding_in_one_frame_is_a_finding_of_the_video(frame):
    held, outcomes = looked(Sees(star_in=[frame]))
    assert held == [None, "star"]
    assert outcomes[0] == "clean"


def test_each_frame_is_asked_about_singly():
    sees = Sees()
    looked(sees)
    assert sees.asked == [[0, 1, 2, 3, 4, 5]] * 2


@pytest.mark.parametrize(("allowed", "steered"), [([3, 4, 5], False), ([3, 4], True)])
def test_an_excuse_must_hold_in_every_frame(allowed, steered):
    of = policy(categories=[star(allowed=["a drawing"]), bolt()], queries={"steps": [0.2]})
    held, _ = looked(Sees(star_in=[3], allowed_in=allowed), of)
    assert (held[1] is not None) is steered


def test_one_record_is_written_for_each_video():
    sink = MemorySink()
    looked(Sees(), audit=sink)
    assert [(r["image"], r.get("step")) for r in sink.records if r["event"] == "query"] == [
        (0, 2),
        (1, 2),
        (0, None),
        (1, None),
    ]


def test_every_frame_counts_as_asked_about():
    with Guard(policy(queries={"max_questions": 80}), vlm=Sees()) as guard:
        with pytest.raises(RequestRefused, match="may need 90 questions"):
            start(guard, 2, shows=3)
        start(guard, 2)
