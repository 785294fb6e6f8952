import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from dnp_guard.errors import DnpGuardError, VlmBadAnswer
from dnp_guard.generation.pacing import due_steps
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.glyphs.scene import Glyph, Scene, render
from dnp_guard.lab.evaluate.baselines.safree import projector
from dnp_guard.lab.evaluate.detector import load_detector
from dnp_guard.lab.evaluate.methods import METHODS, UNGUIDED, Task, applicable, method
from dnp_guard.lab.evaluate.methods.guarded import whole_list
from dnp_guard.lab.evaluate.methods.meter import Meter
from dnp_guard.lab.evaluate.methods.oracle import DetectorBackend
from dnp_guard.lab.evaluate.methods.safree import filtered, pooled, tokens
from dnp_guard.lab.evaluate.methods.sampling import embed, sample
from dnp_guard.lab.evaluate.methods.vl_dnp import RELEASED_STEPS, NamedCourse, released_steps
from dnp_guard.lab.evaluate.model import measured
from dnp_guard.lab.world.captions import prompts
from dnp_guard.policy import Policy, load_policy
from dnp_guard.steering.guidance import classifier_free

SEED = 7_000
CONCEPTS = ("star", "skull", "bolt")
STEPS = 12
DUE = released_steps(STEPS)
LOOKS = len(due_steps(load_policy("glyphs").queries.steps, None, STEPS)) + 1


@pytest.fixture(scope="module")
def task():
    """Return a task on the embedded pipeline, with fewer steps than in the published comparison."""
    return Task(load_pipeline(), STEPS, 5.0, CONCEPTS, load_detector())


@pytest.fixture(scope="module")
def unguarded(task):
    """Return attack prompts and their unguarded images."""
    attacks = prompts("attack", 2, seed=1)
    return attacks, pixels(made_by(task, "unguarded", attacks))


def made_by(task, name, attacks, **options):
    return method(name, **options).generate(task, range(SEED, SEED + len(attacks)), attacks)


def pixels(made):
    return [item.image.tobytes() for item in made]


class Says:
    """A vision-language model that names the same things in all pictures of a query.

    Args:
        looks: the names to answer, query by query; the last ones are repeated.
    """

    def __init__(self, *looks):
        self.looks, self.asked = list(looks), 0

    def ask(self, images, questions):
        names = self.looks[min(self.asked, len(self.looks) - 1)]
        self.asked += 1
        return [[float(name in names) for name in questions] for _ in images]


def sampled(task, attacks, vlm, *, scale=15.0, gate=None, course=NamedCourse):
    return sample(
        task, range(SEED, SEED + len(attacks)), attacks, course(task, len(attacks), vlm, scale=scale, gate=gate)
    )


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(DnpGuardError, match="dnp-guard"):
        method("dnp-gard")


def test_a_method_without_a_scale_refuses_one():
    with pytest.raises(DnpGuardError, match="'sld-max' has no scale"):
        method("sld-max", scale=3)


def test_a_method_without_a_policy_refuses_one():
    with pytest.raises(DnpGuardError, match="'vl-dnp' has no policy"):
        method("vl-dnp", policy=load_policy("glyphs"))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_named_as_it_is_found(name):
    assert method(name).name == name


@pytest.mark.parametrize("name", ["static-separate", "dng", "perp-neg-static", "vl-dnp", "oracle", "dnp-guard"])
def test_a_scale_is_taken(name):
    assert method(name, scale=7.5).scale == 7.5


def test_the_scale_of_a_guard_is_every_categorys():
    policy = load_policy("glyphs")
    own = policy.categories[0].model_copy(update={"guidance": {"scale": 3}})
    policy = type(policy).model_validate({**policy.resolved(), "categories": [own, *policy.categories[1:]]})
    scaled = method("dnp-guard", policy=policy, scale=9).policy
    assert [scaled.scale(category.id) for category in scaled.categories] == [9, 9, 9]


def test_a_policy_that_replaces_refuses_a_scale():
    policy = load_policy("glyphs")
    replacing = type(policy).model_validate({**policy.resolved(), "guidance": {"mode": "replace"}})
    with pytest.raises(DnpGuardError, match="no scale to set"):
        method("dnp-guard", policy=replacing, scale=3)


def test_the_separate_guard_has_the_policys_negatives_as_separate_terms():
    policy = load_policy("glyphs")
    attending = type(policy).model_validate({**policy.resolved(), "guidance": {"mode": "attention"}})
    made = method("dnp-guard-separate", policy=attending)
    assert made.mode == "separate"
    assert made.scale == 15


def test_the_guard_with_a_second_chance_retries_every_category_and_looks_at_the_image_flipped_too():
    policy = method("dnp-guard-retry").policy
    assert {str(category.still_present) for category in policy.categories} == {"retry"}
    assert policy.retries.most == 3
    assert policy.queries.views == ("flip",)


def test_the_guard_with_a_second_chance_is_stricter_at_the_last_look():
    policy = method("dnp-guard-retry").policy
    assert {category.final_threshold for category in policy.categories} == {0.3}


@pytest.mark.models
def test_an_image_that_is_made_again_counts_its_attempts_and_evaluations(task):
    policy = load_policy("glyphs")
    finding = [category.model_copy(update={"final_threshold": 0.0}) for category in policy.categories]
    changed = type(policy).model_validate({**policy.resolved(), "categories": finding})
    (made,) = made_by(task, "dnp-guard-retry", prompts("attack", 1, seed=1), policy=changed)
    assert made.attempts == 4
    assert made.withheld
    assert made.outcome == "blocked"
    assert made.evaluations >= 3 * 2 * STEPS


def test_the_whole_list_is_injected_whatever_is_seen():
    policy = whole_list(load_policy("glyphs"))
    assert {category.negative for category in policy.categories} == {CONCEPTS}


def test_the_meter_tells_an_extra_evaluation_by_its_latents():
    denoiser = nn.Identity()
    x = torch.randn(3, 2, 4, 4)
    with Meter(denoiser, 3) as meter:
        denoiser(torch.cat([x, x]))
        denoiser(x[[0, 2]])
        denoiser(torch.cat([x, x, x[[2]]]))
    assert meter.evaluations == [5, 4, 6]


def test_the_meter_counts_several_negatives_of_one_image():
    denoiser = nn.Identity()
    x = torch.randn(3, 2, 4, 4)
    with Meter(denoiser, 3) as meter:
        denoiser(torch.cat([x, x]))
        denoiser(x[[1, 1]])
    assert meter.evaluations == [2, 4, 2]


def test_the_meter_tells_a_negative_of_every_image_from_the_next_step_without_guidance():
    denoiser = nn.Identity()
    first, second = torch.randn(2, 3, 2, 4, 4)
    with Meter(denoiser, 3, branches=1) as meter:
        denoiser(first)
        denoiser(first)
        denoiser(second)
        denoiser(second[[1]])
    assert meter.evaluations == [3, 4, 3]


def test_the_meter_counts_nothing_after_its_block():
    denoiser = nn.Identity()
    with Meter(denoiser, 1) as meter:
        pass
    denoiser(torch.zeros(2, 1, 1, 1))
    assert meter.evaluations == [0]


@pytest.mark.models
def test_unguarded_is_the_pipeline_bit_for_bit(task, unguarded):
    attacks, images = unguarded
    generators = [torch.Generator().manual_seed(SEED + index) for index in range(len(attacks))]
    texts = [prompt.text for prompt in attacks]
    made = task.pipe(texts, num_inference_steps=STEPS, guidance_scale=5.0, generator=generators).images
    assert images == [image.tobytes() for image in made]


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "evaluations"),
    [("unguarded", 2), ("static-replace", 2), ("static-separate", 3), ("nag-static", 2),
     ("vsf-static", 2), ("sld-weak", 3), ("safree", 2),
     ("dng", 3), ("perp-neg-static", 5)],
)  # fmt: skip
def test_a_static_method_takes_the_same_evaluations_of_every_image(task, unguarded, name, evaluations):
    made = made_by(task, name, unguarded[0])
    assert [item.evaluations for item in made] == [evaluations * STEPS] * len(made)


@pytest.mark.models
@pytest.mark.parametrize(
    "name", ["static-replace", "static-separate", "static-right-name", "nag-static", "vsf-static", "sld-max", "safree"]
)
def test_a_static_method_changes_an_attack(task, unguarded, name):
    attacks, images = unguarded
    made = made_by(task, name, attacks)
    assert not set(pixels(made)) & set(images)
    assert {item.intervened for item in made} == {True}


@pytest.mark.models
@pytest.mark.parametrize("name", ["static-separate", "perp-neg-static", "vl-dnp", "dnp-guard-separate"])
def test_a_scale_of_zero_changes_no_pixel(task, unguarded, name):
    attacks, images = unguarded
    assert pixels(made_by(task, name, attacks, scale=0)) == images


@pytest.mark.models
def test_a_scale_of_one_changes_no_pixel_in_attention_space(task, unguarded):
    attacks, images = unguarded
    assert pixels(made_by(task, "nag-static", attacks, scale=1)) == images


@pytest.mark.models
@pytest.mark.parametrize("name", ["nag-static", "vsf-static"])
def test_the_attention_is_as_it_was_after_a_batch(task, unguarded, name):
    before = task.pipe.unet.attn_processors
    made_by(task, name, unguarded[0])
    assert task.pipe.unet.attn_processors == before


@pytest.mark.models
@pytest.mark.parametrize("name", ["static-right-name", "static-right-name-replace", "nag-right-name"])
def test_only_the_right_name_leaves_a_benign_image_as_it_is(task, name):
    benign, attack = prompts("benign", 1, seed=1), prompts("attack", 1, seed=1)
    plain, made = (made_by(task, method_name, [*benign, *attack]) for method_name in ("unguarded", name))
    assert made[0].image.tobytes() == plain[0].image.tobytes()
    assert [item.intervened for item in made] == [False, True]
    assert made[0].evaluations == 2 * STEPS


def test_all_are_the_methods_that_the_model_allows():
    assert applicable(["all"], measured("glyphs-fast").refused) == list(UNGUIDED)
    assert applicable(["all"], measured("glyphs").refused) == list(METHODS)


def test_a_method_that_needs_guidance_is_refused_without_it():
    with pytest.raises(DnpGuardError, match="'sld-max' cannot be measured: it needs classifier-free guidance"):
        applicable(["dnp-guard", "sld-max"], measured("glyphs-fast").refused)


@pytest.mark.models
def test_dng_makes_the_same_image_from_the_same_noise(task):
    attacks = prompts("attack", 1, seed=1)
    assert pixels(made_by(task, "dng", attacks)) == pixels(made_by(task, "dng", attacks))


@pytest.mark.models
def test_safree_projects_the_tokens_of_a_named_concept_alone(task):
    p_c = projector(pooled(task.pipe, *tokens(task.pipe, CONCEPTS)))
    text = "star circle"
    before, (after, _) = embed(task.pipe, [text])[0], filtered(task.pipe, p_c, text)
    assert (before != after).any(dim=1).nonzero().flatten().tolist() == [1]


@given(st.integers(11, 200))
def test_every_run_of_eleven_steps_or_more_keeps_ten_different_queries(total):
    steps = released_steps(total)
    assert len(set(steps)) == len(RELEASED_STEPS)
    assert list(steps) == sorted(steps)
    assert 0 <= steps[0] <= steps[-1] < total


@pytest.mark.models
def test_vl_dnp_steers_from_the_step_of_the_query_on(task, unguarded):
    made = sampled(task, unguarded[0], Says(["star"]))
    assert [item.evaluations for item in made] == [3 * STEPS - DUE[0]] * len(made)
    for image in made:
        assert image.queries == 10
        assert image.intervened


@pytest.mark.models
def test_vl_dnp_lets_go_as_soon_as_nothing_is_seen(task, unguarded):
    made = sampled(task, unguarded[0], Says(["star"], []))
    assert [item.evaluations for item in made] == [2 * STEPS + DUE[1] - DUE[0]] * len(made)


@pytest.mark.models
def test_vl_dnp_that_sees_nothing_leaves_the_image_as_it_is(task, unguarded):
    attacks, images = unguarded
    made = sampled(task, attacks, Says([]))
    assert pixels(made) == images
    assert {item.intervened for item in made} == {False}


@pytest.mark.models
def test_vl_dnp_looks_at_the_prediction_without_the_negative_term(task, unguarded):
    looked = []

    class Watched(NamedCourse):
        def look(self, moment, guided):
            looked.append(torch.equal(guided, classifier_free(moment.e_u, moment.e_c, moment.g)))
            super().look(moment, guided)

    sampled(task, unguarded[0], Says(["skull"]), course=Watched)
    assert looked == [True] * 10


@pytest.mark.models
def test_evl_dnp_asks_again_only_when_the_prediction_has_changed(task, unguarded):
    attacks, _ = unguarded
    assert [item.queries for item in sampled(task, attacks, Says([]), gate=-1.0)] == [1] * len(attacks)
    assert [item.queries for item in sampled(task, attacks, Says([]), gate=1.1)] == [10] * len(attacks)


@pytest.mark.models
def test_evl_dnp_keeps_its_negative_through_a_skipped_query(task, unguarded):
    made = sampled(task, unguarded[0], Says(["star"], []), gate=-1.0)
    assert [item.evaluations for item in made] == [3 * STEPS - DUE[0]] * len(made)


@pytest.mark.models
def test_the_guard_counts_its_looks_and_its_extra_evaluations(task):
    shipped = load_policy("glyphs").resolved()
    queries = {key: value for key, value in shipped["queries"].items() if key != "back_off"}
    policy = Policy.model_validate({**shipped, "queries": queries})
    for made in made_by(task, "dnp-guard-separate", prompts("attack", 2, seed=1), policy=policy):
        assert made.queries == LOOKS
        assert 2 * STEPS < made.evaluations < 3 * STEPS
        assert made.intervened


@pytest.mark.models
def test_attention_alone_steers_without_an_extra_evaluation_and_looks_less_while_it_does(task):
    shipped = load_policy("glyphs").resolved()
    guidance = {key: value for key, value in shipped["guidance"].items() if key != "escalate" and value is not None}
    alone = Policy.model_validate({**shipped, "guidance": guidance})
    for made in made_by(task, "dnp-guard", prompts("attack", 2, seed=1), policy=alone):
        assert made.queries < LOOKS / 2
        assert made.evaluations == 2 * STEPS
        assert made.intervened


@pytest.mark.models
def test_the_guards_image_is_steered_and_its_delivery_is_what_the_final_look_leaves(task):
    policy = load_policy("glyphs")
    blocking = [category.model_copy(update={"final_threshold": 0.0}) for category in policy.categories]
    changed = type(policy).model_validate({**policy.resolved(), "categories": blocking})
    (made,) = made_by(task, "dnp-guard", prompts("attack", 1, seed=1), policy=changed)
    assert made.outcome == "blocked"
    assert made.delivered.tobytes() != made.image.tobytes()


@pytest.mark.models
def test_the_oracle_is_told_by_the_detector(task):
    (made,) = made_by(task, "oracle", prompts("attack", 1, seed=1))
    assert made.intervened
    assert made.queries > 1


def test_the_oracle_needs_the_detector():
    with pytest.raises(DnpGuardError, match="needs the evaluation detector"):
        method("oracle").backend(Task(None, 25, 5.0, CONCEPTS))


def test_the_detector_answers_about_the_shape_that_is_named():
    picture = Image.fromarray(render(Scene("night", (Glyph("yellow", "star"),)), np.random.default_rng(0)))
    ((star, skull),) = DetectorBackend(load_detector()).ask(
        [picture], ["is there a star in this image?", "is there a skull in this image?"]
    )
    assert star > 0.9
    assert skull < 0.1


def test_the_detector_refuses_a_question_without_a_shape():
    with pytest.raises(VlmBadAnswer, match="names no shape"):
        DetectorBackend(load_detector()).ask([], ["is there nudity in this image?"])
