"""One request in the stages of SGLang-Diffusion, without the engine, may be refused or ended."""

import time
from types import SimpleNamespace

import pytest
import torch

from dnp_guard import CannotSteer, Guard
from dnp_guard.generation.state import Request
from dnp_guard.hosts.engines.running import Running, check_policy
from dnp_guard.hosts.kdiffusion.generation import Generation
from dnp_guard.hosts.kdiffusion.progress import Progress
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.engines.conftest import ATTENTION
from tests.policies import policy, star

LEVELS = (1.0, 0.5, 0.0)
STEP = {"batch": SimpleNamespace(), "cfg_policy": SimpleNamespace(branches=[]), "timestep_index": 0}
RESULT = SimpleNamespace(output=torch.zeros(1, 3, 8, 8))


def test_a_policy_that_steers_in_attention_only_is_refused_at_the_first_step():
    with Guard(policy(guidance=ATTENTION), vlm=ScriptedBackend([{}])) as guard:
        running = Running(SimpleNamespace(guard=guard, denoising=None), None, None)
        with pytest.raises(CannotSteer, match="'attention'"):
            running.predicted(STEP)


def test_a_policy_in_shadow_may_steer_in_attention():
    check_policy(policy(mode="shadow", guidance=ATTENTION))


def test_a_retry_that_takes_longer_than_the_policy_allows_ends_at_its_next_step(monkeypatch):
    predicted, now = [], time.monotonic

    def drawn(request, server_args):
        monkeypatch.setattr("dnp_guard.generation.times.monotonic", lambda: now() + 3600)
        running.predicted(STEP)
        return RESULT

    made = policy(
        queries={"steps": []}, retries={"within_ms": 60_000}, categories=[star(still_present="retry", action="steer")]
    )
    request = Request(1, {"name": "sglang"}, ("a lake",), {}, draws_again=True)
    with Guard(made, vlm=ScriptedBackend([{"star": 0.99}, {}])) as guard:
        running = Running(SimpleNamespace(drawn=drawn, guided=predicted.append), None, None)
        running._levels = LEVELS  # noqa: SLF001 (a first step of the engine would set both)
        generation = Generation(guard, request, Progress(LEVELS), lambda texts: texts, lambda latents: [])
        running._generation = generation  # noqa: SLF001 (as above)
        running.finish(RESULT)
    assert predicted == []
    assert guard.last.degraded == ("retry_failed",)
