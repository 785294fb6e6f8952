"""The guidance mode ``separate`` equals VL-DNP's equation written out: e_u + g (e_c - e_u) - s (e_n - e_u)."""

import pytest
import torch

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy

pytestmark = pytest.mark.models

PROMPT, STEPS, G, S = "a red circle", 10, 5.0, 6.0


@pytest.mark.parametrize(
    ("name", "rescale", "predicts"),
    [
        ("StableDiffusionPipeline", 0.0, ""),
        ("StableDiffusionPipeline", 0.7, ""),
        ("StableDiffusionPipeline", 0.0, "v_prediction"),
        ("StableDiffusionXLPipeline", 0.0, ""),
        ("StableDiffusionXLPipeline", 0.7, ""),
        ("StableDiffusion3Pipeline", 0.0, ""),
        ("FluxPipeline", 0.0, ""),
    ],
)
def test_separate_equals_a_hand_written_three_branch_loop(name, rescale, predicts, monkeypatch):
    pipe = tiny(name)
    if predicts:
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=predicts)
        monkeypatch.setattr(pipe, "scheduler", scheduler)
    of = policy(queries={"steps": [3], "of": STEPS, "final": False}, guidance={"hold": 9, "scale": S})
    more = {"guidance_rescale": rescale} if rescale else {}
    options = {"num_inference_steps": STEPS, "guidance_scale": G, "height": 32, "width": 32, "output_type": "latent"}
    if name == "FluxPipeline":
        options |= {"true_cfg_scale": G, "negative_prompt": "", "max_sequence_length": 16, "output_type": "pt"}
    with Guard(of, vlm=ScriptedBackend([{"star": 0.9}])).attached(pipe):
        guarded = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **options, **more)[0]
    plain = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **options, **more)[0]
    expected = three_branches(pipe, start=4, rescale=rescale)
    close = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(guarded, expected, rtol=0, atol=close)
    assert (guarded - plain).abs().max() > 20 * close


@torch.no_grad()
def three_branches(pipe, start, rescale):
    denoise = DENOISE[type(pipe).__name__](pipe)
    pipe.scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    if denoise.__name__ == "packed":
        x = pipe._pack_latents(x, 1, 4, 16, 16)
        pipe.scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / STEPS, STEPS).tolist())
    x = x * getattr(pipe.scheduler, "init_noise_sigma", 1.0)
    for k, t in enumerate(pipe.scheduler.timesteps):
        e_u, e_c = denoise(x, t, ""), denoise(x, t, PROMPT)
        guided = e_u + G * (e_c - e_u)
        if k >= start:
            guided = guided - S * (denoise(x, t, "star") - e_u)
        if rescale:  # Lin et al., arXiv 2305.08891, eq. 15 and 16
            guided = rescale * guided * e_c.std() / guided.std() + (1 - rescale) * guided
        x = pipe.scheduler.step(guided, t, x, return_dict=False)[0]
    if denoise.__name__ == "packed":
        x = pipe._unpack_latents(x, 32, 32, pipe.vae_scale_factor)
        x = pipe.vae.decode(x / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample
        return (x / 2 + 0.5).clamp(0, 1)
    return x


def sd(pipe):
    def denoise(x, t, text):
        return pipe.unet(x, t, encoder_hidden_states=pipe.encode_prompt(text, "cpu", 1, False)[0]).sample

    return denoise


def sdxl(pipe):
    ids = torch.tensor([[32.0, 32, 0, 0, 32, 32]])

    def denoise(x, t, text):
        embeddings, _, pooled, _ = pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)
        if not text:  # as the pipeline does under force_zeros_for_empty_prompt
            embeddings, pooled = torch.zeros_like(embeddings), torch.zeros_like(pooled)
        added = {"text_embeds": pooled, "time_ids": ids}
        return pipe.unet(x, t, encoder_hidden_states=embeddings, added_cond_kwargs=added).sample

    return denoise


def sd3(pipe):
    def denoise(x, t, text):
        embeddings, _, pooled, _ = pipe.encode_prompt(text, None, None, "cpu", do_classifier_free_guidance=False)
        return pipe.transformer(
            hidden_states=x, timestep=t.expand(1), encoder_hidden_states=embeddings, pooled_projections=pooled
        ).sample

    return denoise


def flux(pipe):
    ids = pipe._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)

    def packed(x, t, text):
        embeddings, pooled, text_ids = pipe.encode_prompt(text, device="cpu", max_sequence_length=16)
        return pipe.transformer(
            hidden_states=x,
            timestep=t.expand(1) / 1000,
            guidance=torch.tensor([G]),
            pooled_projections=pooled,
            encoder_hidden_states=embeddings,
            txt_ids=text_ids,
            img_ids=ids,
        ).sample

    return packed


DENOISE = {
    "StableDiffusionPipeline": sd,
    "StableDiffusionXLPipeline": sdxl,
    "StableDiffusion3Pipeline": sd3,
    "FluxPipeline": flux,
}
