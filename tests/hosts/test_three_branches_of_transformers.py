"""The guidance mode ``separate`` equals the equation written out, however a transformer receives both branches."""

import numpy as np
import pytest
import torch

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),  # diffusers' own use of it
]

PROMPT, STEPS, G, S, START = "a red circle", 10, 5.0, 6.0, 4
SHORT = {"max_sequence_length": 16}
PLAIN = {"use_resolution_binning": False, "clean_caption": False, **SHORT}
CALLS = {
    "PixArtSigmaPipeline": PLAIN,
    "SanaPipeline": {**PLAIN, "complex_human_instruction": None},
    "AuraFlowPipeline": SHORT,
    "CogView4Pipeline": SHORT,
    "ChromaPipeline": SHORT,
    "ZImagePipeline": {**SHORT, "cfg_normalization": False},
}


@pytest.mark.parametrize("name", CALLS)
def test_separate_equals_a_hand_written_three_branch_loop(name):
    pipe = tiny(name)
    of = policy(queries={"steps": [START - 1], "of": STEPS, "final": False}, guidance={"hold": 9, "scale": S})
    sizes = {"num_inference_steps": STEPS, "guidance_scale": G, "height": 32, "width": 32, "output_type": "latent"}

    def make():
        return pipe(PROMPT, generator=torch.Generator().manual_seed(0), **sizes, **CALLS[name])[0]

    with Guard(of, vlm=ScriptedBackend([{"star": 0.9}])).attached(pipe):
        guarded = make()
    plain, expected = make(), three_branches(pipe, *WRITTEN[name])
    scale = expected.abs().max()
    assert (guarded - plain).abs().max() > 1e-3 * scale
    torch.testing.assert_close(guarded / scale, expected / scale, rtol=0, atol=1e-4)


@torch.no_grad()
def three_branches(pipe, denoise, schedule, sign=1, strength=G):
    """Run a pipeline's denoising loop by hand, with e_u + g (e_c - e_u) - s (e_n - e_u) from the fourth step on.

    Args:
        pipe: the pipeline whose parts are used.
        denoise: returns the prediction, given pipeline, x, timestep and text.
        schedule: sets up the pipeline's scheduler, and returns the timesteps.
        sign: sign of the scheduler's input relative to the denoiser's output.
        strength: factor of e_c - e_u: g, or g + 1 for a pipeline that adds g (e_c - e_u) to e_c.
    """
    schedule(pipe)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    packed = type(pipe).__name__ == "ChromaPipeline"
    x = pipe._pack_latents(x, 1, 4, 16, 16) if packed else x * getattr(pipe.scheduler, "init_noise_sigma", 1.0)
    for k, t in enumerate(pipe.scheduler.timesteps):
        e_u, e_c = denoise(pipe, x, t, ""), denoise(pipe, x, t, PROMPT)
        guided = e_u + strength * (e_c - e_u)
        if k >= START:
            guided = guided - S * (denoise(pipe, x, t, "star") - e_u)
        x = pipe.scheduler.step(sign * guided, t, x, return_dict=False)[0]
    return x


def embed(pipe, text, **more):
    """Return the denoiser's conditioning for a text, encoded as a negative prompt unless it is ``PROMPT``."""
    embeddings, mask, negative, negative_mask = pipe.encode_prompt(
        PROMPT, True, negative_prompt=text, device="cpu", max_sequence_length=16, **more
    )[:4]
    return (embeddings, mask) if text == PROMPT else (negative, negative_mask)


def pixart(pipe, x, t, text):
    embeddings, mask = embed(pipe, text)
    conditions = {"resolution": None, "aspect_ratio": None}
    output = pipe.transformer(
        x, encoder_hidden_states=embeddings, encoder_attention_mask=mask, timestep=t[None], added_cond_kwargs=conditions
    ).sample
    return output.chunk(2, dim=1)[0]


def sana(pipe, x, t, text):
    embeddings, mask = embed(pipe, text, complex_human_instruction=None)
    scale = pipe.transformer.config.timestep_scale
    return pipe.transformer(
        x, encoder_hidden_states=embeddings, encoder_attention_mask=mask, timestep=t[None] * scale
    ).sample


def auraflow(pipe, x, t, text):
    embeddings = pipe.encode_prompt(PROMPT, text, True, device="cpu", max_sequence_length=16)
    own, _, negative, _ = embeddings[:4]
    return pipe.transformer(
        x, encoder_hidden_states=own if text == PROMPT else negative, timestep=t[None] / 1000
    ).sample


def cogview4(pipe, x, t, text):
    own, negative = pipe.encode_prompt(PROMPT, text, True, 1, device="cpu", max_sequence_length=16)
    size = torch.tensor([[32.0, 32.0]])
    return pipe.transformer(
        hidden_states=x,
        encoder_hidden_states=own if text == PROMPT else negative,
        timestep=t[None],
        original_size=size,
        target_size=size,
        crop_coords=torch.zeros(1, 2),
    ).sample


def chroma(pipe, x, t, text):
    own, ids, mask, negative, negative_ids, negative_mask = pipe.encode_prompt(
        PROMPT, text, device="cpu", do_classifier_free_guidance=True, max_sequence_length=16
    )
    if text != PROMPT:
        own, ids, mask = negative, negative_ids, negative_mask
    return pipe.transformer(
        hidden_states=x,
        timestep=t[None] / 1000,
        encoder_hidden_states=own,
        txt_ids=ids,
        img_ids=pipe._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32),
        attention_mask=pipe._prepare_attention_mask(1, x.shape[1], x.dtype, mask),
    ).sample


def z_image(pipe, x, t, text):
    own, negative = pipe.encode_prompt(
        [PROMPT], "cpu", do_classifier_free_guidance=True, negative_prompt=[text], max_sequence_length=16
    )
    given = own if text == PROMPT else negative
    output = pipe.transformer(list(x.unsqueeze(2).unbind()), (1000 - t[None]) / 1000, given, return_dict=False)[0]
    return torch.stack([part.float() for part in output]).squeeze(2)


def by_count(pipe):
    pipe.scheduler.set_timesteps(STEPS)


def by_sigmas(pipe):
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS), mu=0.5)


def by_cogview(pipe):
    from diffusers.pipelines.cogview4.pipeline_cogview4 import calculate_shift

    config = pipe.scheduler.config
    mu = calculate_shift(8 * 8, config.base_image_seq_len, config.base_shift, config.max_shift)
    timesteps = np.linspace(config.num_train_timesteps, 1.0, STEPS).astype(np.int64).astype(np.float32)
    sigmas = timesteps / config.num_train_timesteps
    pipe.scheduler.set_timesteps(timesteps=timesteps, sigmas=sigmas, mu=mu)


def by_z_image(pipe):
    from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

    pipe.scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(STEPS))


WRITTEN = {
    "PixArtSigmaPipeline": (pixart, by_count),
    "SanaPipeline": (sana, by_count),
    "AuraFlowPipeline": (auraflow, by_count),
    "CogView4Pipeline": (cogview4, by_cogview),
    "ChromaPipeline": (chroma, by_sigmas),
    "ZImagePipeline": (z_image, by_z_image, -1, G + 1),
}
