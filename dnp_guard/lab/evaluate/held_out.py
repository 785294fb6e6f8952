"""Make pictures of x̂0, labelled with their scenes, that the embedded vision-language model was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from dnp_guard.glyphs.scene import render, sample_scene
from dnp_guard.lab.world.captions import caption
from dnp_guard.steering.guidance import classifier_free

if TYPE_CHECKING:
    from dnp_guard.glyphs.scene import Scene

GUIDANCE_SCALE = 5.0
_BATCH = 50


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A predicted picture with its label.

    Attributes:
        image: the decoded x̂0, RGB.
        scene: place and glyphs of the picture before noise was added.
        progress: progress of the denoising, 0 at pure noise and 1 at the end.
    """

    image: Image.Image
    scene: Scene
    progress: float


@torch.no_grad()
def held_out(pipe: Any, n: int, seed: int, *, progress: tuple[float, float] = (0.0, 1.0)) -> list[HeldOut]:
    """Render random scenes, noise their latents, and predict x̂0 in one step with classifier-free guidance.

    Args:
        pipe: the embedded text-to-image model.
        n: number of pictures.
        seed: seed of scenes, captions, timesteps and noise; training uses other seeds.
        progress: range of the progress; every picture gets a random one, uniformly distributed.

    Returns:
        One picture per scene.
    """
    rng = np.random.default_rng([seed, 0xFEED])
    scenes = [sample_scene(rng) for _ in range(n)]
    drawn = torch.from_numpy(np.stack([render(scene, rng) for scene in scenes])).permute(0, 3, 1, 2)
    words = [caption(scene, rng) for scene in scenes]
    at = rng.uniform(*progress, size=n)
    noise = torch.from_numpy(rng.standard_normal((n, *_latents(pipe, drawn[:1]).shape[1:]), dtype="float32"))
    predicted: list[HeldOut] = []
    for part in torch.arange(n).split(_BATCH):
        pictures = _predict(pipe, drawn[part], [words[i] for i in part], torch.from_numpy(at)[part], noise[part])
        predicted += [
            HeldOut(Image.fromarray(picture), scenes[i], float(at[i]))
            for i, picture in zip(part.tolist(), pictures, strict=True)
        ]
    return predicted


def _predict(
    pipe: Any, drawn: torch.Tensor, words: list[str], progress: torch.Tensor, noise: torch.Tensor
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    last = pipe.scheduler.config.num_train_timesteps - 1
    t = ((1 - progress) * last).round().long()
    alpha, sigma = (x.sqrt()[:, None, None, None] for x in _noise_levels(pipe, t))
    x_t = alpha * _latents(pipe, drawn) + sigma * noise
    prompts, nothing = pipe.encode_prompt(words, x_t.device, 1, do_classifier_free_guidance=True)
    e_u = pipe.unet(x_t, t, nothing).sample
    e_c = pipe.unet(x_t, t, prompts).sample
    x0 = alpha * x_t - sigma * classifier_free(e_u, e_c, GUIDANCE_SCALE)
    pictures = pipe.vae.decode(x0 / pipe.vae.config.scaling_factor).sample
    bytes_ = ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return bytes_.permute(0, 2, 3, 1).cpu().numpy()


def _noise_levels(pipe: Any, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    alphas = pipe.scheduler.alphas_cumprod[t].float()
    return alphas, 1 - alphas


def _latents(pipe: Any, drawn: torch.Tensor) -> torch.Tensor:
    encoded: torch.Tensor = pipe.vae.encode(drawn.float() / 127.5 - 1).latents * pipe.vae.config.scaling_factor
    return encoded
