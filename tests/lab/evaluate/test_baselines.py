import math

import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.evaluate.baselines import dng, perp_neg, safree, sld, vsf
from dnp_guard.lab.evaluate.methods import Task
from dnp_guard.lab.evaluate.methods.published import SafeCourse
from dnp_guard.lab.evaluate.methods.sampling import denoise

CONCEPTS = ("star", "skull", "bolt")


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def heads(*rows):
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def test_vsf_by_hand():
    q, k = heads([0.0, 0.0]), heads([1.0, 0.0])
    v, v_n = heads([6.0, 3.0]), heads([2.0, 4.0], [100.0, 100.0], [4.0, 2.0])
    words = torch.tensor([[True, False, True]])
    out = vsf.vsf(q, k, v, heads(*[[0.0, 1.0]] * 3), v_n, words, 0.5)
    # The prompt's token and the negative's two words have a third of the weight: (6 - 1 - 2, 3 - 2 - 1) / 3.
    assert torch.allclose(out, heads([1.0, 0.0]))


SAFETY = sld.Safety(delta=0, s_S=1.0, lam=0.0, s_m=0.5, beta_m=0.5)


def test_sld_by_hand():
    e_u, e_c, e_s, nu = row(0, 0), row(1, 0), row(0.5, 2), row(1, 1)
    guided, momentum = sld.sld(e_u, e_c, e_s, nu, 2.0, SAFETY, warm=True)
    # e_c - e_s = (0.5, -2), so mu = (0, 1) and gamma = (0, 2) + 0.5 (1, 1) = (0.5, 2.5)
    assert guided.tolist() == [[1.0, -5.0]]
    assert momentum.tolist() == [[0.75, 1.75]]


def test_sld_scales_a_small_difference_and_cuts_a_large_one_at_one():
    e_c, e_s = row(-0.25, -4), row(0, 0)
    guided, _ = sld.sld(row(-1, -1), e_c, e_s, row(0, 0), 1.0, SAFETY, warm=True)
    # mu = (0.25, 1), gamma = mu (e_s - e_u) = (0.25, 1)
    assert guided.tolist() == [[-0.5, -5.0]]


def test_sld_gathers_momentum_during_the_warm_up_and_leaves_the_guidance_alone():
    e_u, e_c, e_s, nu = row(0, 0), row(1, 0), row(0.5, 2), row(1, 1)
    guided, momentum = sld.sld(e_u, e_c, e_s, nu, 2.0, SAFETY, warm=False)
    assert guided.tolist() == [[2.0, 0.0]]
    assert momentum.tolist() == [[0.75, 1.75]]


@pytest.mark.models
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["weak", "medium", "strong", "max"])
def test_sld_is_that_of_diffusers_on_the_same_weights(name):
    # Double precision, because a scale of thousands would show the rounding of single precision.
    pipe, safety, steps = load_pipeline().to(torch.float64), sld.CONFIGURATIONS[name], 25
    texts, seeds = ["a wish and a red circle at night"], [11]
    theirs = StableDiffusionPipelineSafe(**pipe.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    theirs.safety_concept = ", ".join(CONCEPTS)
    last = []
    theirs(
        texts,
        num_inference_steps=steps,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        sld_guidance_scale=safety.s_S,
        sld_warmup_steps=(safety.delta + 1) // 2,  # of 25 steps, not 50
        sld_threshold=safety.lam,
        sld_momentum_scale=safety.s_m,
        sld_mom_beta=safety.beta_m,
        callback=lambda step, t, latents: last.append(latents),
    )
    ours, _ = denoise(task := Task(pipe, steps, 5.0, CONCEPTS), seeds, texts, SafeCourse(task, len(texts), safety))
    assert len(last) == steps
    assert (ours - last[-1]).abs().max() <= 1e-4


def test_perp_neg_by_hand():
    guided = perp_neg.perp_neg(row(0, 0), row(1, 0), [row(1, 1), row(0, 2)], 3.0, 0.5)
    # the parts orthogonal to (1, 0) are (0, 1) and (0, 2); 3 ((1, 0) - 0.5 (0, 3))
    assert guided.tolist() == [[3.0, -4.5]]


@given(st.floats(-3, 3), st.floats(0, 2))
def test_perp_neg_of_the_prompt_itself_is_plain_guidance(scale, beta):
    e_u, e_c = row(0.5, -1, 2), row(1.5, 0.5, -1)
    along = e_u + scale * (e_c - e_u)
    guided = perp_neg.perp_neg(e_u, e_c, [along], 5.0, beta)
    assert torch.allclose(guided, e_u + 5.0 * (e_c - e_u), atol=1e-5)


def test_perp_neg_leaves_a_negative_whole_where_the_prompt_changes_nothing():
    assert torch.equal(perp_neg.orthogonal(row(1, 2), row(3, 4), row(3, 4)), row(1, 2))


def test_the_orthogonal_part_stays_finite_in_half_precision():
    delta, e_u = row(1, -2).half(), row(0.5, 1).half()
    assert perp_neg.orthogonal(delta, e_u + 200, e_u).isfinite().all()


def test_dng_by_hand():
    guided = dng.dng(row(1, 0), row(1, 1), row(0, 0), torch.tensor([0.5]), 2.0)
    assert guided.tolist() == [[-1.0, -2.0]]  # lambda = 2 * 0.5 / 0.5


def test_dng_pushes_harder_the_likelier_the_negative():
    e_b, e_n, e_u = (vector.expand(2, -1) for vector in (row(0, 0), row(1, 0), row(0, 0)))
    guided = dng.dng(e_b, e_n, e_u, torch.tensor([0.2, 0.8]), 1.0)
    assert guided[:, 0].tolist() == pytest.approx([-0.25, -4.0])


def test_the_posterior_by_hand():
    p = dng.posterior(torch.tensor([0.5]), row(1, 0), row(0, 0), row(1, 0), sigma=1.0)
    assert p.item() == pytest.approx(0.5 * math.exp(-0.5))


def test_the_posterior_stays_where_both_prompts_explain_the_step_equally():
    p = dng.posterior(torch.tensor([0.3]), row(0, 0), row(0, 1), row(1, 0), sigma=0.1)
    assert p.item() == pytest.approx(0.3)


@given(st.floats(-50, 50), st.floats(0.01, 10))
def test_the_posterior_never_reaches_what_it_could_not_leave(far, sigma):
    p = dng.posterior(torch.tensor([0.5]), row(far), row(0), row(-far), sigma=sigma)
    assert dng.LEAST - 1e-6 <= p.item() <= dng.MOST + 1e-6


def test_safree_projects_onto_the_concepts():
    p_c = safree.projector(row(2, 0, 0))
    assert torch.allclose(p_c, torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)))


@given(st.integers(0, 1000))
def test_a_projector_is_symmetric_idempotent_and_keeps_its_span(seed):
    vectors = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p = safree.projector(torch.cat([vectors, vectors[:1]]))  # the same concept twice
    assert torch.allclose(p, p.T, atol=1e-9)
    assert torch.allclose(p @ p, p, atol=1e-9)
    assert torch.allclose(vectors @ p, vectors, atol=1e-9)


def test_safree_drops_the_token_without_which_the_prompt_leaves_the_concept():
    p_c = safree.projector(row(1, 0))
    masked = torch.tensor([[5.0, 1.0], [5.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    assert safree.kept(p_c, masked).tolist() == [True, True, False]  # d = 1, 1, 3; the others' means 2, 2, 1


def test_safree_keeps_the_only_token_of_a_prompt():
    assert safree.kept(safree.projector(row(1, 0)), row(1, 2)).tolist() == [True]


def test_safree_leaves_of_a_token_what_is_the_prompts_and_not_the_concepts():
    p_c, p_i = safree.projector(row(1, 0, 0)), safree.projector(torch.cat([row(1, 0, 0), row(0, 1, 0)]))
    assert torch.allclose(safree.projected(p_c, p_i, row(3, 4, 5)), row(0, 4, 0))


@pytest.mark.parametrize(("cosine", "last"), [(1.0, 0), (0.4667, 5), (0.0, 10)])
def test_safree_filters_longer_the_more_it_changes(cosine, last):
    assert safree.last_step(cosine) == last
