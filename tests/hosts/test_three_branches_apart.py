"""The guidance mode ``separate`` equals the equation written out, in pipelines that evaluate every branch by itself."""

import pytest
import torch

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy

pytestmark = pytest.mark.models

PROMPT, STEPS, G, S, START = "a red circle", 10, 5.0, 6.0, 4
CALLS = {
    "WanPipeline": {"guidance_scale": G, "num_frames": 9},
    "QwenImagePipeline": {"true_cfg_scale": G, "negative_prompt": ""},
    "Lumina2Pipeline": {"guidance_scale": G, "cfg_normalization": True, "cfg_trunc_ratio": 0.7},
}


@pytest.mark.parametrize("name", CALLS)
def test_separate_equals_a_hand_written_three_branch_loop(name):
    pipe = tiny(name)
    of = policy(queries={"steps": [START - 1], "of": STEPS, "final": False}, guidance={"hold": 9, "scale": S})
    options = {"num_inference_steps": STEPS, "height": 32, "width": 32, "max_sequence_length": 16, **CALLS[name]}

    def make():
        return pipe(PROMPT, generator=torch.Generator().manual_seed(0), output_type="pt", **options)[0]

    with Guard(of, vlm=ScriptedBackend([{"star": 0.9}])).attached(pipe):
        guarded = make()
    plain, expected = make(), LOOPS[name](pipe)
    assert (guarded - plain).abs().max() > 5e-4
    torch.testing.assert_close(guarded, expected, rtol=0, atol=1e-4 if name == "WanPipeline" else 2e-5)


def guided(denoise, x, t, k):
    """Return the guided prediction e_u + g (e_c - e_u) - s (e_n - e_u), and the prompt's prediction e_c.

    The last term, of the negative, is left out before step ``START``.
    """
    e_u, e_c = denoise(x, t, ""), denoise(x, t, PROMPT)
    out = e_u + G * (e_c - e_u)
    return (out - S * (denoise(x, t, "star") - e_u) if k >= START else out), e_c


@torch.no_grad()
def wan(pipe):
    def denoise(x, t, text):
        embeddings, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=16)
        return pipe.transformer(x, t.expand(1), embeddings).sample

    pipe.scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for k, t in enumerate(pipe.scheduler.timesteps):
        x = pipe.scheduler.step(guided(denoise, x, t, k)[0], t, x, return_dict=False)[0]
    mean, std = (torch.tensor(pipe.vae.config[f"latents_{of}"]).view(1, -1, 1, 1, 1) for of in ("mean", "std"))
    return pixels(pipe.vae.decode(x * std + mean).sample).transpose(1, 2)


@torch.no_grad()
def qwen(pipe):
    side = 16 // 2

    def denoise(x, t, text):
        embeddings, mask = pipe.encode_prompt(text, max_sequence_length=16)
        return pipe.transformer(
            hidden_states=x,
            timestep=t.expand(1) / 1000,
            encoder_hidden_states=embeddings,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, side, side)]],
        ).sample

    pipe.scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / STEPS, STEPS).tolist())
    x = torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    x = pipe._pack_latents(x, 1, 4, 16, 16)
    for k, t in enumerate(pipe.scheduler.timesteps):
        out, e_c = guided(denoise, x, t, k)
        out = out * e_c.norm(dim=-1, keepdim=True) / out.norm(dim=-1, keepdim=True)
        x = pipe.scheduler.step(out, t, x, return_dict=False)[0]
    x = pipe._unpack_latents(x, 32, 32, pipe.vae_scale_factor)
    mean, std = (torch.tensor(pipe.vae.config[f"latents_{of}"]).view(1, -1, 1, 1, 1) for of in ("mean", "std"))
    return pixels(pipe.vae.decode(x * std + mean).sample[:, :, 0])


@torch.no_grad()
def lumina2(pipe):
    def denoise(x, t, text):
        prompt = text if text in {"", "star"} else f"{pipe.system_prompt} <Prompt Start> {text}"
        embeddings, mask = pipe._get_gemma_prompt_embeds(prompt=[prompt], max_sequence_length=16)
        return pipe.transformer(x, 1 - t.expand(1) / 1000, embeddings, mask).sample

    pipe.scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / STEPS, STEPS).tolist())
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for k, t in enumerate(pipe.scheduler.timesteps):
        if (k + 1) / STEPS > 0.7:  # the host stops guiding here, and the negative pushes its only branch
            out = denoise(x, t, PROMPT)
            out = out - S * (denoise(x, t, "star") - out)
        else:
            out, e_c = guided(denoise, x, t, k)
            out = out * e_c.norm(dim=-1, keepdim=True) / out.norm(dim=-1, keepdim=True)
        x = pipe.scheduler.step(-out, t, x, return_dict=False)[0]
    return pixels(pipe.vae.decode(x / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample)


def pixels(decoded):
    return (decoded / 2 + 0.5).clamp(0, 1)


LOOPS = {"WanPipeline": wan, "QwenImagePipeline": qwen, "Lumina2Pipeline": lumina2}
