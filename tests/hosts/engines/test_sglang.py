"""The guard's plugin for SGLang-Diffusion guards or refuses requests; the tests use a stand-in for the engine."""

import json
import os
import sys
from functools import cache, partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dnp_guard import CannotSteer, DnpGuardError, RequestRefused, engine
from dnp_guard.hosts.engines import attestation, sglang
from dnp_guard.hosts.engines.sglang_request import check
from dnp_guard.hosts.engines.worker import WORKER
from tests.hosts import engines_stand_in
from tests.hosts.engines.conftest import ATTENTION, arguments
from tests.policies import policy, star

SEES = [{"star": 0.99}]
IMAGE = {"prompt": "a lake", "num_outputs_per_prompt": 1}


@pytest.fixture
def lang(monkeypatch):
    module = engines_stand_in.sglang()
    monkeypatch.setitem(sys.modules, sglang.RUNNER, module)
    return module


def request(**asked):
    extra = {"diffusers_kwargs": {"dnp_guard": asked}} if asked else {}
    return SimpleNamespace(arguments=arguments(), extra=extra, usage=None)


def loaded(lang, pipeline):
    engine.sglang()
    worker = lang.GPUWorker(pipeline)
    worker.init_device_and_model()
    return worker


def drawn(lang, pipe, **asked):
    (result,) = loaded(lang, lang.DiffusersPipeline(pipe)).execute_forward([request(**asked)])
    return result


def test_a_clean_image_comes_out_as_it_does_unguarded(lang, pipe, configured):
    plain = pipe(**arguments()).images
    configured()
    assert np.array_equal(drawn(lang, pipe).output, plain)


def test_an_image_in_which_something_is_seen_is_steered_or_withheld(lang, pipe, configured):
    plain = pipe(**arguments()).images
    configured(looks=SEES)
    assert not np.array_equal(drawn(lang, pipe).output, plain)


def test_a_result_says_which_guard_and_policy_were_in_force(lang, pipe, configured):
    state = configured()
    result = drawn(lang, pipe)
    assert result.usage == {"dnp_guard": attestation.header(attestation.reports(state))}


def test_the_http_server_says_by_itself_what_is_in_force(configured, monkeypatch):
    attestation.say(configured(), attestation.Attestation("sglang", "guarded", os.getpid()))
    module = ModuleType(sglang.SERVER)
    module.create_app = FastAPI
    monkeypatch.setitem(sys.modules, sglang.SERVER, module)
    engine.sglang()
    engine.sglang()
    answer = TestClient(module.create_app()).get("/dnp-guard")
    assert answer.status_code == 200
    assert answer.json()["guarded"] is True


def test_an_application_that_another_package_wraps_gets_the_middleware(configured, monkeypatch):
    configured()
    module = ModuleType(sglang.SERVER)
    module.create_app = cache(partial(FastAPI))  # a wrapper that has `__wrapped__` too
    monkeypatch.setitem(sys.modules, sglang.SERVER, module)
    engine.sglang()
    assert TestClient(module.create_app()).get("/dnp-guard").status_code == 503


def test_a_result_names_the_policy_that_applied_although_a_reload_replaced_it(lang, pipe, configured, tmp_path):
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps(policy(mode="shadow").resolved()))
    configured(policy=str(file))

    class Reloading(lang.DiffusersPipeline):
        def forward(self, batch, server_args):
            result = super().forward(batch, server_args)
            file.write_text(json.dumps(policy(mode="shadow", categories=[star()]).resolved()))
            assert guard.reload()
            return result

    worker = loaded(lang, Reloading(pipe))
    guard = vars(lang.GPUWorker)[WORKER].guard
    before = guard.policy.digest
    (result,) = worker.execute_forward([request()])
    assert result.usage["dnp_guard"].endswith(f"@{before}")


def test_every_image_of_a_request_is_guarded_by_the_policy_that_it_names(lang, pipe, configured, stricter):
    configured(looks=SEES, policy=stricter("mild", action="monitor"), stricter=[stricter("strict")])
    worker = loaded(lang, lang.DiffusersPipeline(pipe))
    asked = request(policy="strict")
    in_force = [result.usage["dnp_guard"] for result in worker.execute_forward([asked, asked])]
    (unasked,) = worker.execute_forward_sequentially([request()])
    assert in_force[0] == in_force[1] != unasked.usage["dnp_guard"]


def test_a_request_may_name_a_policy_that_a_variable_offers(lang, pipe, configured, stricter, monkeypatch):
    configured(looks=SEES, policy=stricter("mild", action="monitor"))
    monkeypatch.setenv("DNP_GUARD_ENGINE_STRICTER", os.pathsep.join(["strict", stricter("kids")]))
    plain = drawn(lang, pipe)
    assert not np.array_equal(drawn(lang, pipe, policy="kids").output, plain.output)


def test_two_policies_of_one_name_end_the_worker(lang, pipe, configured, stricter):
    configured(stricter=["strict", stricter("strict")])
    with pytest.raises(DnpGuardError, match="'strict'"):
        loaded(lang, lang.DiffusersPipeline(pipe))


def test_a_milder_policy_that_a_request_names_changes_nothing(lang, pipe, configured, stricter):
    configured(looks=SEES, policy=stricter("strict"), stricter=[stricter("mild", action="monitor")])
    assert np.array_equal(drawn(lang, pipe, policy="mild").output, drawn(lang, pipe).output)


@pytest.mark.parametrize(("asked", "reason"), [({"policy": "strict"}, "'strict'"), ({"polcy": "x"}, "'polcy'")])
def test_a_request_that_asks_for_what_is_not_offered_is_refused(lang, pipe, configured, asked, reason):
    configured()
    with pytest.raises(RequestRefused, match=reason):
        drawn(lang, pipe, **asked)


def test_a_policy_that_requests_may_name_and_that_does_not_check_ends_the_worker(lang, pipe, configured):
    configured(stricter=["no-such-policy"])
    with pytest.raises(DnpGuardError, match="no-such-policy"):
        loaded(lang, lang.DiffusersPipeline(pipe))


@pytest.mark.parametrize("given", [{"num_gpus": 2}, {"caches": True}])
def test_what_no_verdict_can_be_trusted_for_is_refused(lang, pipe, configured, given):
    state = configured()
    with pytest.raises(CannotSteer):
        loaded(lang, lang.DiffusersPipeline(pipe, **given))
    assert [worker.serving for worker in attestation.reports(state)] == ["refusing"]


def test_replicas_of_one_gpu_each_are_guarded(lang, pipe, configured):
    state = configured()
    loaded(lang, lang.DiffusersPipeline(pipe, num_gpus=2, dp_size=2))
    assert attestation.guarded(attestation.reports(state))


@pytest.mark.parametrize("given", [{"image": False}, {"comfyui": True}, {"role": "DENOISER"}])
def test_a_pipeline_of_which_a_part_or_a_video_is_served_is_refused(lang, configured, given):
    configured()
    with pytest.raises(CannotSteer):
        loaded(lang, lang.ImagePipeline([lang.DenoisingStage()], **given))


@pytest.mark.parametrize("kinds", [["WanCausalDenoisingStage"], ["DenoisingStage", "DenoisingStage"], []])
def test_a_pipeline_whose_denoising_is_not_the_standard_one_is_refused(lang, configured, kinds):
    configured()
    with pytest.raises(CannotSteer, match="not the standard ones"):
        loaded(lang, lang.ImagePipeline([getattr(lang, kind)() for kind in kinds]))


def test_a_policy_that_steers_in_attention_only_is_refused_when_stages_are_loaded(lang, configured, tmp_path):
    file = tmp_path / "attention.yaml"
    file.write_text(json.dumps(policy(guidance=ATTENTION).resolved()))
    configured(policy=str(file))
    with pytest.raises(CannotSteer, match="'attention'"):
        loaded(lang, lang.ImagePipeline([lang.DenoisingStage()]))


@pytest.mark.parametrize("run", ["execute_forward", "execute_forward_sequentially"])
def test_a_worker_without_a_guard_refuses_to_generate(lang, pipe, configured, run):
    configured(policy="no-such-policy")
    engine.sglang()
    worker = lang.GPUWorker(lang.DiffusersPipeline(pipe))
    with pytest.raises(DnpGuardError):
        worker.init_device_and_model()
    with pytest.raises(CannotSteer, match="refuses to generate"):
        getattr(worker, run)([request()])


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": ["a lake", "a hill"]},
        {"prompt": None},
        {"num_outputs_per_prompt": 2},
        {"enable_teacache": True},
        {"rollout": True},
        {"task_type": SimpleNamespace(is_image_gen=lambda: False)},
    ],
)
def test_a_request_whose_steps_or_pictures_would_not_be_seen_is_refused(given):
    with pytest.raises(CannotSteer):
        check(SimpleNamespace(**{**IMAGE, **given}))


def test_a_request_for_one_image_is_drawn():
    check(SimpleNamespace(**IMAGE))
