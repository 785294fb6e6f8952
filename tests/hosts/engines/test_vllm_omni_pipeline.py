"""vLLM-Omni's own pipelines are guarded or refused; the tests use a stand-in, ``make engines`` runs the real ones."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler

from dnp_guard import CannotSteer, Guard, Outcome
from dnp_guard.hosts.engines.vllm_omni_pipeline import attach
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.engines.conftest import ATTENTION
from tests.hosts.engines_stand_in import StableDiffusion3Pipeline
from tests.policies import policy, star

SEES = {"star": 0.99}
STEPS = 4
pytestmark = pytest.mark.usefixtures("omni_installed")
REPLACING = {"guidance": {"mode": "replace", "scale": None, "strength": None}}


def batch(*prompts, images=1, **more):
    """Build a batch of the engine: one request per prompt, with the prompt's index as its seed."""
    requests = []
    for seed, prompt in enumerate(prompts):
        sampling = {
            "num_inference_steps": STEPS,
            "num_outputs_per_prompt": images,
            "guidance_scale": 5.0,
            "seed": seed,
            "width": 8,
            "height": 8,
            "output_type": None,
            "return_trajectory_latents": False,
            "return_trajectory_decoded": False,
            "extra_args": {},
            "generator": torch.Generator().manual_seed(seed),
        }
        requests.append(SimpleNamespace(prompt=prompt, sampling_params=SimpleNamespace(**{**sampling, **more})))
    return SimpleNamespace(requests=requests)


def images(pipeline, given=None):
    """Run a pipeline on a batch, by default one request, and return the images of all its requests."""
    with torch.inference_mode():
        return torch.cat([output.output for output in pipeline.forward(given or batch("a lake"))]).numpy()


@pytest.fixture
def guarded():
    """Return a function that guards a pipeline with a scripted backend, and returns the pipeline and the guard."""
    guards = []

    def attached(*looks, made=None, pipeline=None):
        pipeline = pipeline or StableDiffusion3Pipeline()
        guards.append(Guard(made or policy(), vlm=ScriptedBackend(list(looks))))
        attach(pipeline, guards[-1])
        return pipeline, guards[-1]

    yield attached
    for guard in guards:
        guard.close()


def test_images_in_which_nothing_is_seen_come_out_as_they_do_unguarded(guarded):
    pipeline, _ = guarded({})
    assert np.array_equal(images(pipeline), images(StableDiffusion3Pipeline()))


def test_an_image_in_which_something_is_seen_is_steered(guarded):
    pipeline, guard = guarded(SEES, {})
    assert not np.array_equal(images(pipeline), images(StableDiffusion3Pipeline()))
    assert guard.last.decision is Outcome.STEERED


def test_a_steered_step_evaluates_the_model_once_more(guarded):
    pipeline, _ = guarded(SEES)
    images(pipeline)
    assert pipeline.evaluated == 2 * STEPS + 2  # the first look is after the second of four steps


def test_without_guidance_a_negative_is_pushed_away_from_the_prompt(guarded):
    pipeline, guard = guarded(SEES, {})
    images(pipeline, batch("a lake", guidance_scale=1.0))
    assert guard.last.decision is Outcome.STEERED


def test_only_the_image_with_the_finding_is_steered(guarded):
    pipeline, _ = guarded([{}, SEES], {})
    plain, made = (images(drawing, batch("a lake", "a hill")) for drawing in (StableDiffusion3Pipeline(), pipeline))
    assert [np.array_equal(one, other) for one, other in zip(plain, made, strict=True)] == [True, False]


def test_every_image_of_a_request_is_looked_at(guarded):
    pipeline, guard = guarded([{}, SEES], {})
    images(pipeline, batch("a lake", images=2))
    assert [image.decision for image in guard.last.images] == [Outcome.CLEAN, Outcome.STEERED]


def test_the_policy_that_was_checked_applies_although_a_reload_replaced_it(guarded, tmp_path):
    """Change the policy's file while the prompts are encoded again, after the policy was checked."""
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps(policy(mode="shadow").resolved()))
    pipeline, guard = guarded({}, made=file)
    before, encode, calls = guard.policy.digest, pipeline.encode, []

    def encoded(texts):
        calls.append(texts)
        if len(calls) == 3:  # after the request's own prompt and negative
            file.write_text(json.dumps(policy(mode="shadow", categories=[star()]).resolved()))
            assert guard.reload()
        return encode(texts)

    pipeline.encode = encoded
    images(pipeline)
    assert guard.last.digest == before != guard.policy.digest


def test_an_image_whose_final_look_fails_is_drawn_again(guarded):
    made = policy(queries={"steps": []}, categories=[star(still_present="retry")])
    pipeline, guard = guarded(SEES, {}, made=made)
    assert not np.array_equal(images(pipeline), images(StableDiffusion3Pipeline()))
    assert guard.last.images[0].attempts == 2


def test_a_withheld_image_is_replaced_in_the_output_of_its_request(guarded):
    blocking = policy(queries={"steps": []}, categories=[star(action="block")])
    pipeline, _ = guarded([{}, SEES], made=blocking)
    plain, made = (images(drawing, batch("a lake", "a hill")) for drawing in (StableDiffusion3Pipeline(), pipeline))
    assert [np.array_equal(one, other) for one, other in zip(plain, made, strict=True)] == [True, False]


def test_looking_leaves_the_pipeline_as_it_was(guarded):
    pipeline, _ = guarded(SEES, {})
    before = dict(vars(pipeline))
    images(pipeline)
    del before["evaluated"], vars(pipeline)["evaluated"]
    assert vars(pipeline) == before


def test_looking_draws_nothing_from_the_generators_of_a_request(guarded):
    states = []
    for pipeline in (StableDiffusion3Pipeline(), guarded(SEES, {})[0]):
        given = batch("a lake")
        images(pipeline, given)
        states.append(given.requests[0].sampling_params.generator.get_state())
    assert torch.equal(*states)


def test_a_negative_that_replaces_takes_the_place_of_the_users(guarded):
    pipeline, guard = guarded(SEES, {}, made=policy(**REPLACING))
    images(pipeline)
    assert guard.last.decision is Outcome.STEERED
    assert pipeline.evaluated == 2 * STEPS


@pytest.mark.parametrize(("more", "reason"), [({"guidance_scale": 1.0}, "guidance"), ({"images": 2}, "one image")])
def test_a_negative_that_cannot_replace_refuses_the_request(guarded, more, reason):
    pipeline, _ = guarded({}, made=policy(**REPLACING))
    with pytest.raises(CannotSteer, match=reason):
        images(pipeline, batch("a lake", **more))


@pytest.mark.parametrize(
    "given",
    [
        batch({"prompt": None}),
        batch({"prompt": "a lake", "prompt_embeds": torch.zeros(1)}),
        batch({"prompt": "a lake", "additional_information": {"prompt_embeds": [torch.zeros(1)]}}),
        batch("a lake", output_type="latent"),
        batch("a lake", return_trajectory_latents=True),
        batch("a lake", return_trajectory_decoded=True),
    ],
)
def test_a_request_that_bypasses_the_guard_is_refused(guarded, given):
    pipeline, _ = guarded({})
    with pytest.raises(CannotSteer):
        images(pipeline, given)


def test_a_prompt_that_is_not_encoded_again_the_same_refuses_the_request(guarded):
    class Rewriting(StableDiffusion3Pipeline):
        def encode(self, texts):
            return torch.randn(len(texts), 4)

    Rewriting.__name__ = StableDiffusion3Pipeline.__name__
    pipeline, _ = guarded({}, pipeline=Rewriting())
    with pytest.raises(CannotSteer, match="again"):
        images(pipeline)


def test_a_scheduler_of_two_evaluations_per_step_refuses_the_request(guarded):
    pipeline, _ = guarded({})
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(CannotSteer, match="order"):
        images(pipeline)


def test_a_pipeline_that_predicts_without_the_mixin_delivers_nothing(guarded):
    class Aside(StableDiffusion3Pipeline):
        def forward(self, given):
            return [SimpleNamespace(output=torch.zeros(1, 3, 8, 8))]

    Aside.__name__ = StableDiffusion3Pipeline.__name__
    pipeline, _ = guarded({}, pipeline=Aside())
    with pytest.raises(CannotSteer, match="mixin"):
        images(pipeline)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"cache_backend": "tea_cache"}, "'tea_cache'"),
        ({"step_execution": True}, "step-wise"),
        ({"output_type": "latent"}, "latents"),
        ({"data": 2}, "data and pipeline"),
        ({"stages": 2}, "data and pipeline"),
    ],
)
def test_settings_of_the_engine_that_bypass_the_guard_are_refused(guarded, config, reason):
    with pytest.raises(CannotSteer, match=reason):
        guarded({}, pipeline=StableDiffusion3Pipeline(**config))


def test_a_pipeline_that_is_not_known_is_refused_although_it_derives_from_one_that_is(guarded):
    class Distilled(StableDiffusion3Pipeline):
        pass

    with pytest.raises(CannotSteer, match="Distilled"):
        guarded({}, pipeline=Distilled())


def test_a_policy_that_steers_in_attention_only_is_refused(guarded):
    with pytest.raises(CannotSteer, match="'attention'"):
        guarded({}, made=policy(guidance=ATTENTION))
