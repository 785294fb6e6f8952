"""vLLM-Omni's plugin guards or refuses requests, on a stand-in for the engine."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from dnp_guard import CannotSteer, DnpGuardError, RequestRefused, engine
from dnp_guard.hosts.engines import attestation, vllm_omni
from tests.hosts import engines_stand_in
from tests.hosts.engines.conftest import arguments

SEES = [{"star": 0.99}]


@pytest.fixture
def omni(monkeypatch):
    module = engines_stand_in.vllm_omni()
    monkeypatch.setitem(sys.modules, vllm_omni.RUNNER, module)
    return module


def request(**extra):
    return SimpleNamespace(arguments=arguments(), sampling_params=SimpleNamespace(extra_args=extra))


def loaded(omni, model):
    engine.vllm_omni()
    runner = omni.DiffusionModelRunner(model)
    runner.load_model()
    return runner


def drawn(omni, pipe, **extra):
    return loaded(omni, omni.DiffusersAdapterPipeline(pipe)).execute_model(request(**extra)).output


def test_a_clean_image_comes_out_as_it_does_unguarded(omni, pipe, configured):
    plain = pipe(**arguments()).images
    configured()
    assert np.array_equal(drawn(omni, pipe), plain)


def test_an_image_in_which_something_is_seen_is_steered_or_withheld(omni, pipe, configured):
    plain = pipe(**arguments()).images
    configured(looks=SEES)
    assert not np.array_equal(drawn(omni, pipe), plain)


def test_the_audit_log_of_a_worker_may_carry_its_process(omni, pipe, configured, tmp_path):
    configured(audit=str(tmp_path / "audit-{pid}.jsonl"))
    drawn(omni, pipe)
    assert len(list(tmp_path.glob("audit-[0-9]*.jsonl"))) == 1


def test_a_worker_says_by_which_policy_it_guards(omni, pipe, configured):
    state = configured()
    loaded(omni, omni.DiffusersAdapterPipeline(pipe))
    (worker,) = attestation.said(state)
    assert worker.engine == "vllm-omni"
    assert worker.serving == "guarded"
    assert worker.policy == "glyphs"
    assert worker.digest


@pytest.mark.parametrize("broken", [{"policy": "no-such-policy"}, {"vlm": "no-such-backend:x"}, {"vlm": None}])
def test_a_guard_that_cannot_be_made_ends_the_loading_of_the_model(omni, pipe, configured, broken):
    configured(**broken)
    with pytest.raises(DnpGuardError):
        loaded(omni, omni.DiffusersAdapterPipeline(pipe))


@pytest.mark.parametrize("run", ["execute_model", "execute_model_batch", "execute_stepwise"])
def test_a_worker_without_a_guard_refuses_to_generate(omni, pipe, configured, run):
    configured(policy="no-such-policy")
    engine.vllm_omni()
    runner = omni.DiffusionModelRunner(omni.DiffusersAdapterPipeline(pipe))
    with pytest.raises(DnpGuardError):
        runner.load_model()
    with pytest.raises(CannotSteer, match="refuses to generate"):
        getattr(runner, run)(request())


def test_a_pipeline_of_the_engines_own_is_refused(omni, configured):
    state = configured()
    with pytest.raises(CannotSteer, match="--diffusion-load-format diffusers"):
        loaded(omni, omni.QwenImagePipeline())
    assert [worker.serving for worker in attestation.said(state)] == ["refusing"]


def test_an_open_worker_that_cannot_guard_serves_and_says_so(omni, configured):
    state = configured(on_failure="open")
    runner = loaded(omni, omni.QwenImagePipeline())
    assert runner.execute_model(request()).output == ["a picture that nobody looked at"]
    assert [worker.serving for worker in attestation.said(state)] == ["unguarded"]


def test_settings_that_cannot_be_read_do_not_open_a_worker(omni, configured):
    configured(on_failure="open", misspelt=True)
    with pytest.raises(DnpGuardError, match="misspelt"):
        loaded(omni, omni.QwenImagePipeline())


def test_a_model_that_is_not_loaded_yet_needs_no_settings(omni):
    engine.vllm_omni()
    omni.DiffusionModelRunner(None).load_model("dummy")


def test_loading_the_plugins_again_puts_nothing_twice(omni):
    engine.vllm_omni()
    once = omni.DiffusionModelRunner.execute_model
    engine.vllm_omni()
    assert omni.DiffusionModelRunner.execute_model is once


def test_a_request_may_name_a_stricter_policy(omni, pipe, configured, stricter):
    configured(looks=SEES, policy=stricter("mild", action="monitor"), stricter=[stricter("strict")])
    plain = pipe(**arguments()).images
    assert np.array_equal(drawn(omni, pipe), plain)
    assert not np.array_equal(drawn(omni, pipe, dnp_guard={"policy": "strict"}), plain)


@pytest.mark.parametrize(
    "others", [{"dnp_guard": {"region": "us"}}, {"dnp_guard": {"region": "de", "surface": "chat"}}, {}]
)
def test_a_batch_whose_requests_differ_in_region_or_surface_is_refused(omni, pipe, configured, others):
    configured()
    runner = loaded(omni, omni.DiffusersAdapterPipeline(pipe))
    batch = SimpleNamespace(requests=[request(dnp_guard={"region": "de"}), request(**others)])
    with pytest.raises(RequestRefused, match="region or surface"):
        runner.pipeline.forward(batch)


def test_a_batch_whose_requests_share_their_region_is_drawn(omni, pipe, configured):
    plain = pipe(**arguments()).images
    configured()
    runner = loaded(omni, omni.DiffusersAdapterPipeline(pipe))
    batch = SimpleNamespace(requests=[request(dnp_guard={"region": "de"}) for _ in range(2)])
    assert np.array_equal(runner.pipeline.forward(batch).output, plain)


def test_a_request_that_names_an_unknown_policy_is_refused(omni, pipe, configured):
    configured()
    with pytest.raises(RequestRefused, match="'strict'"):
        drawn(omni, pipe, dnp_guard={"policy": "strict"})
