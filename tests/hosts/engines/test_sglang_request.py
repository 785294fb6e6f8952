"""The guard may refuse or end a request in the stages of SGLang-Diffusion; the tests run without the engine."""

import json
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dnp_guard import CannotSteer, Guard
from dnp_guard.hosts.engines.sglang_request import Running, check_policy
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.engines.conftest import ATTENTION
from tests.policies import policy, star


@dataclass
class Conditional:
    """A stand-in for one branch (conditional or not) of the engine's guidance policy."""

    kwargs: dict[str, Any]
    is_conditional: bool = True


@dataclass
class CFGPolicy:
    """A stand-in for the engine's guidance policy."""

    branches: list[Conditional]


NOISE = torch.zeros(1, 4, 8, 8)
BATCH = SimpleNamespace(
    prompt="a lake",
    negative_prompt=None,
    scheduler=FlowMatchEulerDiscreteScheduler(),
    timesteps=[1000.0, 500.0],
    image_path=None,
    condition_image=None,
    seed=0,
    width=8,
    height=8,
)
STEP = {
    "batch": BATCH,
    "cfg_policy": CFGPolicy([Conditional({"words": "a lake"})]),
    "timestep_index": 0,
    "latents": NOISE,
    "server_args": SimpleNamespace(pipeline_config=SimpleNamespace(slice_noise_pred=lambda noise, latents: noise)),
}
FIRST = {"cfg_gate_state": None, "current_guidance_scale": 1.0}
STAGES = {
    "denoising": SimpleNamespace(_cache_dit_enabled=False),
    "pipeline": None,
    "guided": lambda arguments: NOISE,
    "shown": lambda *_: torch.zeros(1, 3, 8, 8),
}
RESULT = SimpleNamespace(output=torch.zeros(1, 3, 8, 8))


def test_a_policy_that_steers_in_attention_only_is_refused_at_the_first_step():
    with Guard(policy(guidance=ATTENTION), vlm=ScriptedBackend([{}])) as guard:
        running = Running(guard, SimpleNamespace(denoising=None), None, None)
        with pytest.raises(CannotSteer, match="'attention'"):
            running.predicted(STEP)


def test_the_policy_that_was_checked_applies_although_a_reload_replaced_it(monkeypatch, tmp_path):
    """Change the policy's file while the prompt is encoded again, after the policy was checked."""
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps(policy(mode="shadow").resolved()))

    def encoded(_, words, *__):
        file.write_text(json.dumps(policy(mode="shadow", categories=[star()]).resolved()))
        assert guard.reload()
        return {"words": words}

    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")  # the engine is not installed here
    with Guard(file, vlm=ScriptedBackend([{}])) as guard:
        before = guard.policy.digest
        running = Running(guard, SimpleNamespace(**STAGES, encoded=encoded), None, None)
        running.predicted({**STEP, **FIRST})
        running.finish(SimpleNamespace(output=torch.zeros(1, 3, 8, 8)))
        assert guard.last.digest == before != guard.policy.digest


def test_a_policy_in_shadow_may_steer_in_attention():
    check_policy(policy(mode="shadow", guidance=ATTENTION))


@pytest.fixture
def retried(monkeypatch):
    """Return a function that runs a request whose image is generated again, and returns the guard's report.

    The function takes ``drawn``, which generates again and gets the running request, and ``guided``, which computes the
    guidance.
    """

    def run(drawn, guided):
        def noted(arguments):
            running.branches.append(guided(arguments))
            return running.branches[-1]

        stages = SimpleNamespace(
            **STAGES, encoded=lambda _, words, *__: {"words": words}, drawn=lambda *_: drawn(running)
        )
        running = Running(guard, stages, None, None)
        running.predicted({**STEP, **FIRST})
        stages.guided = noted
        running.finish(RESULT)
        return guard.last

    made = policy(
        queries={"steps": []}, retries={"within_ms": 60_000}, categories=[star(still_present="retry", action="steer")]
    )
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")  # the engine is not installed here
    with Guard(made, vlm=ScriptedBackend([{"star": 0.99}, {}])) as guard:
        yield run


@pytest.fixture
def an_hour_later(monkeypatch):
    """Return a function that sets the clock which requests read an hour ahead."""
    now = time.monotonic
    return lambda: monkeypatch.setattr("dnp_guard.generation.times.monotonic", lambda: now() + 3600)


def test_a_retry_that_takes_longer_than_the_policy_allows_ends_at_its_next_step(retried, an_hour_later):
    predicted = []

    def drawn(running):
        an_hour_later()
        running.predicted(STEP)
        return RESULT

    assert retried(drawn, guided=predicted.append).degraded == ("retry_failed",)
    assert predicted == []


def test_a_retry_that_runs_out_of_time_within_a_step_ends_with_it(retried, an_hour_later):
    returned = []

    def guided(arguments):
        an_hour_later()
        return NOISE

    def drawn(running):
        returned.append(running.predicted(STEP))
        return RESULT

    assert retried(drawn, guided=guided).degraded == ("retry_failed",)
    assert returned == []


def test_a_prediction_that_cannot_be_computed_is_counted_and_the_engine_goes_on(retried):
    returned = []

    def drawn(running):
        returned.append(running.predicted({**STEP, "latents": None}))
        return RESULT

    assert retried(drawn, guided=lambda arguments: NOISE).degraded == ("guard_error",)
    assert len(returned) == 1
