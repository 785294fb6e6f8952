"""A query may show several views of a finished image, such as its mirror image."""

from __future__ import annotations

import pytest
from PIL import Image, ImageOps

from dnp_guard import Guard, Outcome
from dnp_guard.generation.views import views
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import policy
from tests.sampler import denoise, start

PICTURE = Image.linear_gradient("L").convert("RGB").rotate(90).resize((32, 16))


def test_views_begin_with_the_picture_itself():
    assert views(PICTURE, ["flip"])[0] is PICTURE


def test_a_flipped_view_is_mirrored():
    assert views(PICTURE, ["flip"])[1].tobytes() == ImageOps.mirror(PICTURE).tobytes()


def test_two_crops_overlap_and_reach_every_corner():
    _, first, last = views(PICTURE, ["crops"])
    assert first.size == (24, 12)
    assert last.size == (24, 12)
    assert first.getpixel((0, 0)) == PICTURE.getpixel((0, 0))
    assert last.getpixel((23, 11)) == PICTURE.getpixel((31, 15))


def test_a_double_view_is_twice_as_large():
    assert views(PICTURE, ["double"])[1].size == (64, 32)


@pytest.mark.parametrize(("names", "outcome"), [(["flip"], Outcome.BLOCKED), (["crops"], Outcome.CLEAN)])
def test_a_finding_in_one_view_is_a_finding_of_the_image(names, outcome):
    mirrored = ImageOps.mirror(PICTURE).tobytes()

    def answer(images, questions):
        return [[0.9 if image.tobytes() == mirrored else 0.0 for _ in questions] for image in images]

    with Guard(policy(queries={"final": {"views": names}}), vlm=ScriptedBackend(answer)) as guard:
        driver = start(guard, 2)
        denoise(driver)
        assert driver.final(lambda: [Image.new("RGB", (32, 16)), PICTURE]) == (Outcome.CLEAN, outcome)


def test_views_are_asked_about_in_one_query():
    asked = []

    def answer(images, questions):
        asked.append(len(images))
        return [[0.0] * len(questions) for _ in images]

    of = policy(queries={"final": {"views": ["flip", "crops", "double"]}})
    with Guard(of, vlm=ScriptedBackend(answer)) as guard:
        driver = start(guard, 2)
        denoise(driver)
        asked.clear()
        driver.final(lambda: [PICTURE, PICTURE])
    assert asked == [10]
