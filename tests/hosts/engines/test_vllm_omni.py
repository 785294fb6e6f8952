"""The guard's plugin for vLLM-Omni guards or refuses requests; the tests use a stand-in for the engine."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from dnp_guard import CannotSteer, DnpGuardError, RequestRefused, engine
from dnp_guard.hosts.engines import attestation, vllm_omni
from dnp_guard.hosts.engines.worker import WORKER
from tests.hosts import engines_stand_in
from tests.hosts.engines.conftest import arguments
from tests.hosts.engines.test_vllm_omni_pipeline import batch

SEES = [{"star": 0.99}]
pytestmark = pytest.mark.usefixtures("omni_installed")


@pytest.fixture
def omni(monkeypatch):
    module = engines_stand_in.vllm_omni()
    monkeypatch.setitem(sys.modules, vllm_omni.RUNNER, module)
    return module


@pytest.fixture
def serving(monkeypatch):
    """Return an object of the engine's class that runs in its serving process and makes the results for clients."""
    module = ModuleType(vllm_omni.ENGINE)
    module.DiffusionEngine = type("DiffusionEngine", (engines_stand_in.DiffusionEngine,), {})
    monkeypatch.setitem(sys.modules, vllm_omni.ENGINE, module)
    engine.vllm_omni()
    return module.DiffusionEngine()


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
    (worker,) = attestation.reports(state)
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
        loaded(omni, omni.WanPipeline())
    assert [worker.serving for worker in attestation.reports(state)] == ["refusing"]


def test_an_open_worker_that_cannot_guard_serves_and_says_so(omni, configured):
    state = configured(on_failure="open")
    runner = loaded(omni, omni.WanPipeline())
    assert runner.execute_model(request()).output == ["a picture that nobody looked at"]
    assert [worker.serving for worker in attestation.reports(state)] == ["unguarded"]


def test_settings_that_cannot_be_read_do_not_open_a_worker(omni, configured):
    configured(on_failure="open", misspelt=True)
    with pytest.raises(DnpGuardError, match="misspelt"):
        loaded(omni, omni.WanPipeline())


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


def own(omni, *prompts, **more):
    """Run a batch in a worker with one of the engine's own pipelines; return its outputs."""
    return loaded(omni, omni.StableDiffusion3Pipeline()).pipeline.forward(batch(*prompts, **more))


def test_a_result_of_the_engines_own_pipelines_says_what_was_in_force(omni, serving, configured):
    state = configured()
    (output,) = own(omni, "a lake")
    (result,) = serving.postprocess_output(None, output)
    assert result.custom_output["dnp_guard"]["in_force"] == attestation.header(attestation.reports(state))


def test_a_worker_whose_ranks_are_out_of_step_says_that_it_refuses(omni, configured):
    state = configured()
    runner = loaded(omni, omni.StableDiffusion3Pipeline())
    getattr(runner, WORKER).ranks.broken = "one of them failed"
    with pytest.raises(CannotSteer, match="out of step"):
        runner.execute_model(batch("a lake").requests[0])
    assert [report.serving for report in attestation.reports(state)] == ["refusing"]


def test_a_result_of_the_adapter_says_the_outcome_of_its_request(omni, serving, pipe, configured):
    configured()
    output = loaded(omni, omni.DiffusersAdapterPipeline(pipe)).execute_model(request())
    output.custom_output = {}
    (result,) = serving.postprocess_output(None, output)
    assert result.custom_output["dnp_guard"]["outcomes"] == ["clean"]


def test_a_result_says_the_outcomes_of_its_own_images_only(omni, serving, configured):
    configured(looks=[[{}, {}, {"star": 0.99}, {}]])
    outputs = own(omni, "a lake", "a hill", images=2)
    first, second = (serving.postprocess_output(None, output)[0].custom_output["dnp_guard"] for output in outputs)
    assert first["outcomes"] == ["clean", "clean"]
    assert second["outcomes"][0] != "clean"


def test_a_result_of_an_unguarded_worker_says_nothing(omni, serving, configured):
    configured(on_failure="open")
    output = SimpleNamespace(output=None, custom_output={})
    assert serving.postprocess_output(None, output)[0].custom_output == {}


def test_a_request_to_the_engines_own_pipelines_may_name_a_stricter_policy(omni, configured, stricter):
    mild = stricter("mild", action="monitor")
    configured(looks=SEES, policy=mild, stricter=[stricter("strict")])
    (asked,) = own(omni, "a lake", extra_args={"dnp_guard": {"policy": "strict"}})
    (unasked,) = own(omni, "a lake")
    assert not np.array_equal(asked.output, unasked.output)
