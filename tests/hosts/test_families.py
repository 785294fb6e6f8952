import copy

import pytest
from diffusers import AutoPipelineForImage2Image, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from dnp_guard import CannotSteer, Guard
from dnp_guard.audit import MemorySink
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.bits import same
from tests.hosts.tiny import draw, footprint, tiny
from tests.hosts.tiny.looks import SeesAStarOnce
from tests.policies import policy

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),  # diffusers' own use of it
]

REPLACE = {"mode": "replace", "scale": None, "strength": None}
SEES_A_STAR_ONCE = [[{}, {}, {}], [{}, {"star": 0.9}, {}], {"star": 0.0}]


REPRESENTATIVE = [
    "AnimateDiffPipeline",
    "AuraFlowPipeline",
    "ChromaPipeline",
    "CogVideoXPipeline",
    "CogView4Pipeline",
    "FluxKontextPipeline",
    "FluxPipeline",
    "HunyuanDiTPipeline",
    "LTXPipeline",
    "Lumina2Pipeline",
    "LatentConsistencyModelPipeline",
    "PixArtSigmaPipeline",
    "QwenImagePipeline",
    "SanaPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionPAGPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "WanPipeline",
    "ZImagePipeline",
]
"""Classes that the tests always run; ``make matrix`` runs the others."""


@pytest.fixture(params=REPRESENTATIVE)
def pipe(request):
    """Yield a pipeline of every class; fail the test if the test leaves changes on the pipeline."""
    made = tiny(request.param)
    made.callback_on_step_end = None
    draw(made, num_inference_steps=1)  # diffusers keeps the arguments of its latest call on the pipeline
    before = footprint(made)
    yield made
    assert footprint(made) == before


def guard(script, of=None, **arguments):
    return Guard(of or policy(guidance={"hold": 9}), vlm=ScriptedBackend(script), **arguments)


@pytest.mark.parametrize("mode", ["separate", "replace"])
def test_only_the_image_concerned_changes_and_one_injection_is_recorded(pipe, mode):
    if mode == "replace" and type(pipe).__name__ == "LatentConsistencyModelPipeline":
        pytest.skip("has no unconditional slot")
    plain, sink = draw(pipe), MemorySink()
    of = policy(guidance=(REPLACE if mode == "replace" else {"mode": mode}) | {"hold": 9})
    with Guard(of, vlm=SeesAStarOnce(), audit=sink).attached(pipe):
        steered = draw(pipe)
    assert same(plain, steered) == [True, False, True]
    assert abs(steered[1] - plain[1]).max() > 1e-4  # more than another order of the same sums could differ
    injected = [record for record in sink.records if record["event"] == "negative.injected"]
    assert [(record["image"], record["applied_step"]) for record in injected] == [(1, 4)]
    assert not [record for record in sink.records if record["event"] == "degraded"]


def test_a_guard_that_finds_nothing_leaves_every_bit(pipe):
    plain = draw(pipe)
    with guard([{"star": 0.0}]).attached(pipe):
        assert same(plain, draw(pipe)) == [True, True, True]


def test_branches_that_are_mixed_by_further_guidance_are_steered():
    pipe = tiny("StableDiffusion3Pipeline")
    more = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    plain = draw(pipe, **more)
    with guard(SEES_A_STAR_ONCE).attached(pipe):
        assert same(plain, draw(pipe, **more)) == [True, False, True]


def test_distilled_guidance_is_steered_by_the_extra_branch_alone():
    pipe = tiny("FluxPipeline")
    alone = {"true_cfg_scale": 1.0, "negative_prompt": None}
    plain = draw(pipe, **alone)
    with guard(SEES_A_STAR_ONCE).attached(pipe):
        assert same(plain, draw(pipe, **alone)) == [True, False, True]


def test_replace_of_distilled_guidance_is_refused():
    pipe = tiny("LatentConsistencyModelPipeline")
    with (
        guard([{}], policy(guidance=REPLACE)).attached(pipe),
        pytest.raises(CannotSteer, match="no unconditional slot"),
    ):
        draw(pipe)


@pytest.mark.parametrize("alone", [{"true_cfg_scale": 1.0}, {"negative_prompt": None}])
def test_replace_without_true_guidance_is_refused(alone):
    pipe = tiny("FluxPipeline")
    with (
        guard([{}], policy(guidance=REPLACE)).attached(pipe),
        pytest.raises(CannotSteer, match="no unconditional slot"),
    ):
        draw(pipe, **alone)


@pytest.mark.parametrize("name", ["CogVideoXPipeline", "FluxPipeline", "WanPipeline"])
def test_the_call_argument_reads_the_size_in_the_frame_of_the_call(name):
    pipe = tiny(name)
    plain = draw(pipe)
    steered = draw(pipe, callback_on_step_end=Guard(policy(guidance={"hold": 9}), vlm=SeesAStarOnce()))
    assert same(plain, steered) == [True, False, True]


ONE_EACH = ["AnimateDiffPipeline", "CogVideoXPipeline", "WanVideoToVideoPipeline"]


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_pipeline_that_makes_one_video_of_each_prompt_is_guarded_whatever_it_is_asked_for(name):
    pipe = tiny(name)
    with guard([{"star": 0.9}]).attached(pipe) as watching:
        videos = draw(pipe, num_videos_per_prompt=2, num_inference_steps=2)
    assert [image.decision for image in watching.last.images] == ["blocked"] * len(videos)


def test_a_prompt_that_changes_from_frame_to_frame_is_of_one_video():
    pipe, sink = copy.deepcopy(tiny("AnimateDiffPipeline")), MemorySink()
    pipe.enable_free_noise(context_length=2, context_stride=1)
    with guard([{"star": 0.9}], policy(audit={"prompt": "plain"}), audit=sink).attached(pipe) as watching:
        draw(pipe, prompt={0: "a circle", 2: "a cross"}, generator=None, num_inference_steps=2)
    assert [image.decision for image in watching.last.images] == ["blocked"]
    (started,) = [record for record in sink.records if record["event"] == "request.started"]
    assert "a circle, a cross" in str(started["prompt"])


def test_the_record_tells_the_steps_of_a_schedule_of_the_callers_own():
    pipe, sink = tiny("StableDiffusion3Pipeline"), MemorySink()
    with guard([{}], audit=sink).attached(pipe):
        draw(pipe, sigmas=[1.0, 0.8, 0.5])
    assert [record["run"]["steps"] for record in sink.records if "run" in record] == [3]


def test_a_prompt_of_embeddings_in_a_list_is_guarded():
    pipe = tiny("ZImagePipeline")
    embeds, negative = pipe.encode_prompt(["a", "b", "c"], do_classifier_free_guidance=True)
    with guard([{}]).attached(pipe) as watching:
        draw(pipe, prompt=None, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert [image.decision for image in watching.last.images] == ["clean"] * 3


@pytest.mark.parametrize("name", ["QwenImagePipeline", "SanaPipeline", "WanPipeline"])
def test_blocked_latents_are_looked_at_and_replaced(name):
    pipe = tiny(name)
    plain = draw(pipe, output_type="latent")
    with guard([{"star": 0.9}]).attached(pipe) as watching:
        latents = draw(pipe, output_type="latent")
    assert [image.decision for image in watching.last.images] == ["blocked"] * 3
    assert latents.shape == plain.shape
    assert (latents[0] == latents[1]).all()


def test_embeddings_of_the_callers_own_length_are_replaced():
    pipe, sink = tiny("PixArtSigmaPipeline"), MemorySink()
    with guard(SEES_A_STAR_ONCE, policy(guidance=REPLACE | {"hold": 9}), audit=sink).attached(pipe):
        draw(pipe, max_sequence_length=12)
    assert "degraded" not in {record["event"] for record in sink.records}


MADE_OF_THE_SAME_PARTS = {
    "from_pipe": StableDiffusionImg2ImgPipeline.from_pipe,
    "auto from_pipe": AutoPipelineForImage2Image.from_pipe,
    "components": lambda pipe: StableDiffusionPipeline(**pipe.components, requires_safety_checker=False),
}


@pytest.mark.parametrize("made", MADE_OF_THE_SAME_PARTS)
def test_a_pipeline_of_a_guarded_ones_parts_warns_that_it_is_not_guarded(made):
    pipe = tiny("StableDiffusionPipeline")
    with guard([{}]).attached(pipe), pytest.warns(UserWarning, match="is not guarded itself"):
        assert MADE_OF_THE_SAME_PARTS[made](pipe).callback_on_step_end is None


def test_a_pipeline_of_the_parts_of_one_that_was_let_go_does_not_warn():
    pipe = tiny("StableDiffusionPipeline")
    with guard([{}]).attached(pipe):
        pass
    assert MADE_OF_THE_SAME_PARTS["components"](pipe).callback_on_step_end is None


def test_steps_that_a_pipeline_leaves_guidance_out_of_are_told_under_replace():
    pipe, sink = tiny("Lumina2Pipeline"), MemorySink()
    of = policy(queries={"steps": [1], "of": 8, "final": False}, guidance=REPLACE | {"hold": 9})
    with guard([{"star": 0.9}], of, audit=sink).attached(pipe):
        draw(pipe, cfg_trunc_ratio=0.5)
    reasons = [record["reason"] for record in sink.records if record["event"] == "degraded"]
    assert len(reasons) == 4  # the last four of eight steps
    assert "without an unconditional half" in reasons[0]


def test_replace_does_not_drop_a_second_negative_prompt():
    pipe = tiny("StableDiffusionXLPipeline")
    with (
        guard([{}], policy(guidance=REPLACE)).attached(pipe),
        pytest.raises(CannotSteer, match="would drop negative_prompt_2"),
    ):
        draw(pipe, negative_prompt=["blue"] * 3, negative_prompt_2=["red"] * 3)


def test_replace_leaves_the_users_negative_to_the_controlnet():
    pipe, given = tiny("StableDiffusionControlNetPipeline"), []
    hook = pipe.controlnet.register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    try:
        with Guard(policy(guidance=REPLACE | {"hold": 9}), vlm=SeesAStarOnce()).attached(pipe):
            draw(pipe, negative_prompt=["a cross"] * 3)
    finally:
        hook.remove()
    assert len(given) == 8
    assert all((value == given[0]).all() for value in given)
