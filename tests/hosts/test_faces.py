"""The guard queries pictures with transparency in every way in which they may be shown, and delivers what it judged."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dnp_guard.displayed import NotAsShown
from dnp_guard.hosts.backgrounds import faces
from dnp_guard.hosts.diffusers.showing.output import Output
from dnp_guard.types import Outcome
from dnp_guard.vlm.local.backend import TransformersBackend
from dnp_guard.vlm.local.generated import TextBackend
from tests.policies import policy

SIZE = (32, 32)
CORNER, MIDDLE = (0, 0), (16, 16)


def star():
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).regular_polygon((*MIDDLE, 12), 3, fill=255)
    return mask


def hidden(colour):
    """Return a picture of a single colour, in which only the transparency shows a star."""
    picture = Image.new("RGB", SIZE, colour).convert("RGBA")
    picture.putalpha(star())
    return picture


def palette():
    picture = star().point(lambda level: level // 255).convert("P")
    picture.putpalette([0] * 6)
    picture.info["transparency"] = 0
    return picture


def shows(picture):
    return picture.getpixel(CORNER) != picture.getpixel(MIDDLE)


HIDDEN = {
    "rgba, black": hidden("black"),
    "rgba, white": hidden("white"),
    "rgba, grey": hidden("grey"),
    "la": hidden("black").convert("LA"),
    "palette": palette(),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_drawing_in_the_transparency_only_is_queried(name):
    seen = faces([HIDDEN[name]])
    assert {picture.mode for picture in seen} == {"RGB"}
    assert any(map(shows, seen))


def test_a_drawing_under_the_transparency_is_queried():
    picture = star().convert("RGB")
    picture.putalpha(Image.new("L", SIZE))
    assert shows(faces([picture])[0])


def test_pictures_beside_one_that_can_be_seen_through_are_shown_as_often():
    assert len(faces([Image.new("RGB", SIZE), hidden("black")])) == 6


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_an_opaque_picture_is_shown_once(mode):
    assert [picture.mode for picture in faces([Image.new("RGB", SIZE, "red").convert(mode)])] == ["RGB"]


class Ended:
    """A stand-in for a pipeline's call that ended without failures."""

    images = 1

    def ended(self):
        return ()


def array(picture):
    return np.asarray(picture)[None].astype(np.float32) / 255


def forms(picture):
    """Return a picture in every output form of a pipeline: PIL, NumPy and PyTorch."""
    return {"pil": [picture], "np": array(picture), "pt": torch.from_numpy(array(picture)).movedim(-1, -3)}


FORMS = forms(hidden("black"))
WITHOUT_A_STAR = forms(Image.new("RGB", SIZE, "black").convert("RGBA"))


@pytest.mark.parametrize("kind", FORMS)
def test_the_output_of_a_call_is_asked_about_as_it_is_shown(kind):
    seen = Output((FORMS[kind],), kind, Ended()).pictures()
    assert len(seen) == 3
    assert any(map(shows, seen))


@pytest.mark.parametrize("outcome", [Outcome.BLOCKED, Outcome.BLURRED])
@pytest.mark.parametrize("kind", FORMS)
def test_nothing_of_a_transparency_survives_what_is_done_to_the_image(kind, outcome):
    shown = [
        Output((Output((form,), kind, Ended()).delivered([outcome], policy())[0],), kind, Ended()).pictures()
        for form in (FORMS[kind], WITHOUT_A_STAR[kind])
    ]
    assert [picture.tobytes() for picture in shown[0]] == [picture.tobytes() for picture in shown[1]]


@pytest.mark.parametrize("name", HIDDEN)
def test_a_model_in_process_is_shown_no_picture_that_can_be_seen_through(name):
    # The model in process refuses before it needs its weights.
    with pytest.raises(NotAsShown, match="transparent"):
        TransformersBackend.__new__(TransformersBackend).ask([HIDDEN[name]], ["Is there a star?"])
    with pytest.raises(NotAsShown, match="transparent"):
        TextBackend.__new__(TextBackend).ask([HIDDEN[name]], ["Is there a star?"])
