"""The guard works with calls that end before the images are fully denoised, so that a refiner can continue."""

import numpy as np
import pytest

from dnp_guard import Guard
from tests.hosts.tiny import draw, tiny
from tests.policies import policy, star

pytestmark = pytest.mark.models

LARGE = {"height": 136, "width": 136, "num_inference_steps": 3}
"""A size of 68 × 68 latents; a look decodes 64 × 64."""


class Watches:
    """A model that keeps the pictures of its queries, and sees a star in the second image from a chosen query on."""

    def __init__(self, seen_from=99):
        self.shown, self.seen_from = [], seen_from

    def ask(self, images, questions):
        self.shown.append([np.asarray(image) for image in images])
        seen = len(self.shown) >= self.seen_from
        return [[0.9 if seen and at == 1 else 0.0 for _ in questions] for at in range(len(images))]


def run(backend, steps, of=None, **arguments):
    of = of or policy(queries={"steps": steps, "of": 8, "final": True})
    pipe = tiny("StableDiffusionXLPipeline")
    with Guard(of, vlm=backend).attached(pipe) as guard:
        return guard, draw(pipe, **arguments)


def test_the_final_look_is_at_the_prediction():
    whole, half = Watches(), Watches()
    run(whole, [3])  # the last step above 0.4 of the schedule
    run(half, [0], denoising_end=0.6, output_type="latent")
    assert [np.array_equal(a, b) for a, b in zip(whole.shown[0], half.shown[-1], strict=True)] == [True, True, True]


def test_latents_of_a_call_that_was_interrupted_are_looked_at_as_predicted():
    def interrupts(pipe, step, _timestep, tensors):
        pipe._interrupt = step >= 3
        return tensors

    whole, half = Watches(), Watches()
    run(whole, [3])
    run(half, [0], output_type="latent", callback_on_step_end=interrupts)
    assert [np.array_equal(a, b) for a, b in zip(whole.shown[0], half.shown[-1], strict=True)] == [True, True, True]


def test_a_finding_of_the_final_look_is_withheld():
    plain = draw(tiny("StableDiffusionXLPipeline"), denoising_end=0.6, output_type="latent")
    guard, latents = run(Watches(seen_from=2), [0], denoising_end=0.6, output_type="latent")
    assert [image.decision for image in guard.last.images] == ["clean", "blocked", "clean"]
    assert [bool((a == b).all()) for a, b in zip(plain, latents, strict=True)] == [True, False, True]


def test_a_call_that_ends_at_the_last_step_after_all_is_looked_at_as_it_is_returned():
    watching = Watches()
    _, images = run(watching, [0], denoising_end=1.0, **LARGE)
    assert np.array_equal(np.stack(watching.shown[-1]), np.round(images * 255).astype(np.uint8))


def test_a_large_image_that_is_blurred_keeps_its_size():
    blurs = policy(
        queries={"steps": [0], "of": 8, "final": True},
        categories=[star(action="blur", still_present="blur", severity="medium")],
    )
    guard, latents = run(Watches(seen_from=2), [0], blurs, denoising_end=0.6, output_type="latent", **LARGE)
    assert [image.decision for image in guard.last.images] == ["clean", "blurred", "clean"]
    assert latents.shape[-2:] == (68, 68)


def test_a_prediction_that_fails_at_the_end_is_withheld_and_raises_nothing(monkeypatch):
    def broken(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr("dnp_guard.hosts.diffusers.prediction.predict", broken)
    guard, _ = run(Watches(), [], denoising_end=0.6, output_type="latent")
    assert [image.decision for image in guard.last.images] == ["failed_closed"] * 3


def test_the_call_argument_looks_at_the_prediction_too():
    attached, argued = Watches(), Watches()
    run(attached, [2], denoising_end=0.6, output_type="latent")
    with Guard(policy(queries={"steps": [2], "of": 8, "final": True}), vlm=argued) as guard:
        draw(tiny("StableDiffusionXLPipeline"), denoising_end=0.6, output_type="latent", callback_on_step_end=guard)
    assert [np.array_equal(a, b) for a, b in zip(attached.shown[-1], argued.shown[-1], strict=True)] == [True] * 3
