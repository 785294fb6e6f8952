"""Make pictures of x̂0 at all noise levels with the finished text-to-image model, for training the VLM.

The latents of a rendered scene are noised to a random timestep, and x̂0 is predicted in one step from a caption of the
scene, with classifier-free guidance. The scene is the label. The evaluation detector has no part in this.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from dnp_guard.lab.train.data import to_bytes
from dnp_guard.steering.guidance import classifier_free

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

GUIDANCE_SCALE = 5.0
_CHUNK = 2000
_BATCH = 100


def predictions(pipeline: Path, latents: Path, n: int, seed: int, processes: int) -> tuple[Tensor, Tensor]:
    """Predict x̂0 from noised training latents, and decode it to pictures.

    Args:
        pipeline: folder of the finished text-to-image model.
        latents: file with the model's training latents and caption tokens.
        n: number of pictures, a multiple of 2000.
        seed: seed of scenes, captions, timesteps and noise.
        processes: number of CPU processes; it does not change the result.

    Returns:
        Pictures, uint8 [n, 3, 32, 32], and the indices of their scenes, int64 [n].
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(partial(_predict, pipeline, latents, seed), range(n // _CHUNK)))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@torch.no_grad()
def _predict(pipeline: Path, latents: Path, seed: int, chunk: int) -> tuple[Tensor, Tensor]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipe = StableDiffusionPipeline.from_pretrained(pipeline, safety_checker=None, dtype=torch.float32).to(device)
    saved = torch.load(latents, weights_only=True)
    rng = np.random.default_rng([seed, chunk])
    origin = torch.from_numpy(rng.integers(len(saved["latents"]), size=_CHUNK))
    wording = torch.from_numpy(rng.integers(saved["captions"].shape[1], size=_CHUNK))
    timesteps = torch.from_numpy(rng.integers(1, 1000, size=_CHUNK))
    noises = torch.from_numpy(rng.standard_normal((_CHUNK, *saved["latents"].shape[1:]), dtype="float32"))
    nothing = pipe.text_encoder(saved["empty"].to(device)).last_hidden_state
    alphas = pipe.scheduler.alphas_cumprod.to(device)
    pictures = []
    for part in torch.arange(_CHUNK).split(_BATCH):
        z0, noise, t = (x.to(device) for x in (saved["latents"][origin[part]], noises[part], timesteps[part]))
        tokens = saved["captions"][origin[part], wording[part]].long().to(device)
        alpha, sigma = (x.sqrt()[:, None, None, None] for x in (alphas[t], 1 - alphas[t]))
        x_t = alpha * z0 + sigma * noise
        e_u = pipe.unet(x_t, t, nothing.expand(len(part), -1, -1)).sample
        e_c = pipe.unet(x_t, t, pipe.text_encoder(tokens).last_hidden_state).sample
        x0 = alpha * x_t - sigma * classifier_free(e_u, e_c, GUIDANCE_SCALE)
        pictures.append(to_bytes(pipe.vae.decode(x0 / pipe.vae.config.scaling_factor).sample).cpu())
    return torch.cat(pictures), origin
