"""The guard has images generated again in a sampler of k-diffusion, on the embedded model."""

from __future__ import annotations

import numpy as np
import pytest

from dnp_guard import Guard, Outcome
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.ksampling import Conditioning, Denoiser, run, target
from tests.policies import policy, star

pytestmark = pytest.mark.models

WORDS = ["a red circle at night", "a blue square in a room"]
CLEAN = {"star": 0.0}
SHOWN = [{}, {"star": 0.9}]


@pytest.mark.parametrize("name", ["euler", "euler_ancestral"])
def test_an_image_is_drawn_again_and_the_others_keep_their_bits(shared_pipe, name):
    host, words, sigmas = target(shared_pipe)[0], Conditioning(shared_pipe), Denoiser(shared_pipe).sigmas(8)
    plain = run(name, host, words, sigmas, WORDS, 0)
    of = policy(categories=[star(still_present="retry")])
    script = [*[CLEAN] * 4, SHOWN, CLEAN]
    with Guard(of, vlm=ScriptedBackend(script)) as guard, guard.attached(host):
        steps = []
        drawn = run(name, host, words, sigmas, WORDS, 0, callback=lambda info: steps.append(info["i"]))
    same = [bool((np.asarray(one) == np.asarray(other)).all()) for one, other in zip(plain, drawn, strict=True)]
    assert same == [True, False]
    assert [image.decision for image in guard.last.images] == [Outcome.CLEAN, Outcome.STEERED]
    assert steps == [*range(8), *range(8)]
