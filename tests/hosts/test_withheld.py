"""A grey picture with words on it replaces a withheld image."""

from __future__ import annotations

import pytest
from PIL import Image, ImageChops

from dnp_guard.hosts.withheld import cover, locale, words, written
from dnp_guard.types import Outcome
from tests.policies import policy, star

RED = Image.new("RGB", (64, 64), (255, 0, 0))


def grey(size):
    return Image.new("RGB", size, (128, 128, 128))


@pytest.mark.parametrize("side", [16, 32, 64, 512])
def test_a_withheld_image_is_never_a_bare_square(side):
    shown = cover(policy(), Outcome.BLOCKED, (side, side))
    assert ImageChops.difference(shown, grey((side, side))).getbbox() is not None


def test_the_policys_words_are_in_the_picture():
    one, other = (cover(policy(withheld={"text": text}), Outcome.BLOCKED, (128, 128)) for text in ("One", "Other"))
    assert ImageChops.difference(one, other).getbbox() is not None


@pytest.mark.parametrize("text", ["图像已被隐藏", "word " * 60])
def test_words_that_cannot_be_written_give_way_to_a_sign(text):
    assert written(grey((64, 64)), text).tobytes() == written(grey((64, 64)), "图").tobytes()


def test_an_image_that_could_not_be_checked_says_so():
    assert words(policy(), Outcome.FAILED_CLOSED) != words(policy(), Outcome.BLOCKED)


def test_an_image_that_is_delivered_says_nothing():
    assert words(policy(withheld={"text": "No"}), Outcome.STEERED) == ""


@pytest.mark.parametrize(("value", "named"), [("de_CH.UTF-8", "de-CH"), ("fr", "fr"), ("ca_ES@valencia", "ca-ES")])
def test_the_language_is_that_of_the_process(monkeypatch, value, named):
    monkeypatch.setenv("DNP_GUARD_LOCALE", value)
    assert locale() == named


def corner(of, outcome=Outcome.BLOCKED):
    return cover(of, outcome, (64, 64), lambda: RED).getpixel((0, 0))


def test_a_blurred_image_lies_under_the_words_where_the_policy_says_so():
    assert corner(policy(withheld={"style": "blur"})) == (255, 0, 0)


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        (policy(), Outcome.BLOCKED),
        (policy(withheld={"style": "blur"}), Outcome.FAILED_CLOSED),
        (policy(withheld={"style": "blur"}, categories=[star(sensitive=True)]), Outcome.BLOCKED),
    ],
)
def test_nothing_of_an_image_is_shown_that_was_not_looked_at_or_may_be_sensitive(of, outcome):
    assert corner(of, outcome) == (128, 128, 128)
