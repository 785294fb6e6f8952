from __future__ import annotations

import pytest
from PIL import Image

from dnp_guard.audit import MemorySink
from dnp_guard.errors import VlmChanged
from dnp_guard.guard import Guard
from dnp_guard.vlm.canary import Watched
from dnp_guard.vlm.known_pictures import read_known
from tests.policies import policy

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


class Brightness:
    """A model that sees a star in bright pictures, or in none if ``dull`` is set, and never a bolt."""

    dull = False

    def ask(self, images, questions):
        seen = [0.0 if self.dull else image.getpixel((0, 0))[0] / 255 for image in images]
        return [[p if "a star" in question else 0.0 for question in questions] for p in seen]


@pytest.fixture
def known(tmp_path):
    for name, colour in (("white", WHITE), ("black", BLACK)):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,star,bolt\nwhite.png,1,0\nblack.png,0,0\n")
    return read_known(tmp_path, tmp_path / "labels.csv", policy())


def test_a_model_that_is_right_about_known_pictures_is_taken(known):
    assert Watched(Brightness(), known=known).ask([known.pictures[0]], ["is there a star ?"]) == [[1.0]]


def test_a_model_that_is_wrong_about_one_is_refused_at_first(known):
    backend = Brightness()
    backend.dull = True
    with pytest.raises(VlmChanged, match=r"canary 0 does show 'star', but the answer was 0\.00"):
        Watched(backend, known=known)


def test_a_model_that_becomes_wrong_is_noticed_within_the_hour(known):
    backend, now = Brightness(), [0.0]
    watched = Watched(backend, known=known, clock=lambda: now[0])
    now[0], backend.dull = 3600.0, True
    with pytest.raises(VlmChanged):
        watched.ask([known.pictures[0]], ["is there a star ?"])


def test_a_guard_takes_a_folder_of_them_and_keeps_the_models_name(known, tmp_path):
    sink = MemorySink()
    Guard(policy(), vlm=Brightness(), audit=sink, canaries=tmp_path).close()
    assert sink.records[0]["vlm"]["name"] == "Brightness"


def test_a_guard_refuses_a_model_that_is_wrong(known, tmp_path):
    backend = Brightness()
    backend.dull = True
    with pytest.raises(VlmChanged, match="canary 0"):
        Guard(policy(), vlm=backend, canaries=tmp_path)
