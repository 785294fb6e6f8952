"""The denoiser's extra evaluation of the negative may be reused, batched or masked, in the embedded pipeline."""

import numpy as np
import pytest
import torch
from diffusers import HeunDiscreteScheduler

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.conftest import STEPS, draw
from tests.policies import policy

pytestmark = pytest.mark.models

PLAIN = STEPS * 6
"""Rows that the denoiser evaluates for three images in both branches."""

SEEN = [[{}, {"star": 0.9}, {}]]
"""The answers of a look that sees a star in the second image of three."""


def steered(pipe, seen=SEEN[0], **guidance):
    of = policy(queries={"steps": [1], "of": STEPS, "final": False}, guidance={"hold": 9, **guidance})
    rows = []
    counter = pipe.unet.conv_in.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        with Guard(of, vlm=ScriptedBackend([seen])).attached(pipe):
            images = draw(pipe)
    finally:
        counter.remove()
    return images, rows


def test_reuse_halves_the_extra_evaluations_and_still_steers(pipe):
    plain = draw(pipe)
    full, rows = steered(pipe)
    half, fewer = steered(pipe, reuse=2)
    assert sum(rows) == PLAIN + 6
    assert sum(fewer) == PLAIN + 3
    assert np.abs(half[1] - full[1]).mean() < np.abs(plain[1] - full[1]).mean()


@pytest.mark.parametrize("more", [{}, {"batched": True}])
def test_reuse_counts_the_steps_of_a_scheduler_that_takes_two_evaluations_for_one(pipe, more):
    plain, pipe.scheduler = pipe.scheduler, HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    try:
        _, rows = steered(pipe, reuse=2, **more)
    finally:
        pipe.scheduler = plain
    assert sum(rows) == 6 * (2 * STEPS - 1) + 3  # every second one of the six steered steps


@pytest.mark.parametrize("more", [{}, {"batched": True}])
def test_nothing_is_reused_after_a_pause(pipe, more):
    of = policy(queries={"steps": [1, 2, 4], "of": STEPS, "final": False}, guidance={"reuse": 9, **more})
    looks = [SEEN[0], [{}, {}, {}], SEEN[0]]
    rows = []
    counter = pipe.unet.conv_in.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        with Guard(of, vlm=ScriptedBackend(looks)).attached(pipe):
            draw(pipe)
    finally:
        counter.remove()
    assert sum(rows) == PLAIN + 2  # at the first step of both times


def test_reuse_leaves_the_other_images_bit_identical(pipe):
    plain, (half, _) = draw(pipe), steered(pipe, reuse=2)
    assert (half[[0, 2]] == plain[[0, 2]]).all()


def test_batched_gives_the_same_pictures_in_one_call_a_step(pipe):
    apart, _ = steered(pipe)
    together, rows = steered(pipe, batched=True)
    assert rows == [6, 6] + [7] * 6
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_batched_changes_nothing_while_nothing_is_found(pipe):
    plain = draw(pipe)
    together, _ = steered(pipe, seen=[{}, {}, {}], batched=True)
    assert (together == plain).all()


def test_batched_and_reuse_go_together(pipe):
    half, _ = steered(pipe, reuse=2)
    together, rows = steered(pipe, reuse=2, batched=True)
    assert rows == [6, 6] + [7, 6] * 3
    np.testing.assert_allclose(together, half, atol=1e-4)


def test_a_mask_changes_less_of_the_picture(pipe):
    plain, (full, _), (masked, _) = draw(pipe), steered(pipe), steered(pipe, mask=0.25)
    changed = [(np.abs(pictures[1] - plain[1]).max(-1) > 0.1).mean() for pictures in (full, masked)]
    assert 0 < changed[1] < changed[0]


def test_a_batched_call_that_fails_goes_on_unbatched_and_says_so(pipe, monkeypatch):
    from dnp_guard.hosts.diffusers.asking import arguments

    def broken(*_):
        raise RuntimeError("no room")

    full, _ = steered(pipe)
    monkeypatch.setattr(arguments, "appended", broken)
    of = policy(
        queries={"steps": [1], "of": STEPS, "final": False},
        guidance={"hold": 9, "batched": True},
        on_failure="open",
    )
    guard = Guard(of, vlm=ScriptedBackend([SEEN[0]]))
    with guard.attached(pipe):
        images = draw(pipe)
    assert guard.last.degraded
    assert (images[1] == full[1]).all()
    assert torch.is_tensor(pipe.scheduler.timesteps)
