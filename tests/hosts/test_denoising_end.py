"""A call that ends before its images are denoised, so that a refiner goes on."""

import numpy as np
import pytest

from dnp_guard import Guard
from tests.hosts.tiny import draw, tiny
from tests.policies import policy

pytestmark = pytest.mark.models


class Watches:
    """Keeps what it is shown, and sees a star in the second image from some look on."""

    def __init__(self, seen_from=99):
        self.shown, self.seen_from = [], seen_from

    def ask(self, images, questions):
        self.shown.append([np.asarray(image) for image in images])
        seen = len(self.shown) >= self.seen_from
        return [[0.9 if seen and at == 1 else 0.0 for _ in questions] for at in range(len(images))]


def run(backend, steps, **arguments):
    of = policy(queries={"steps": steps, "of": 8, "final": True})
    pipe = tiny("StableDiffusionXLPipeline")
    with Guard(of, vlm=backend).attached(pipe) as guard:
        return guard, draw(pipe, **arguments)


def test_the_final_look_is_at_the_prediction():
    whole, half = Watches(), Watches()
    run(whole, [3])  # the last of the steps above 0.4 of the schedule
    run(half, [0], denoising_end=0.6, output_type="latent")
    assert [np.array_equal(a, b) for a, b in zip(whole.shown[0], half.shown[-1], strict=True)] == [True, True, True]


def test_what_the_final_look_sees_is_withheld():
    plain = draw(tiny("StableDiffusionXLPipeline"), denoising_end=0.6, output_type="latent")
    guard, latents = run(Watches(seen_from=2), [0], denoising_end=0.6, output_type="latent")
    assert [image.decision for image in guard.last.images] == ["clean", "blocked", "clean"]
    assert [bool((a == b).all()) for a, b in zip(plain, latents, strict=True)] == [True, False, True]
