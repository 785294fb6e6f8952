"""Stage 7: distil the finished model into a denoiser for four steps without classifier-free guidance.

The teacher, which is the finished model, denoises noise to latents with classifier-free guidance (DPM-Solver++, Lu et
al. 2022). The latents before and after its steps are the states of a trajectory. The student learns to predict the last
state from any other one, given the prompt alone. It is a consistency model (Song et al. 2023, eq. 4), and guidance is
distilled into it, because its targets were made with guidance (Meng et al. 2023). It samples as a latent consistency
model does (Luo et al. 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler

from dnp_guard.files import replacing
from dnp_guard.glyphs.loading import GUIDANCE_SCALE, load_pipeline
from dnp_guard.glyphs.scene import sample_scene
from dnp_guard.lab.train.loop import Draw, TrainingPlan
from dnp_guard.lab.world.captions import caption, mixed
from dnp_guard.steering.guidance import classifier_free

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import UNet2DConditionModel
    from torch import Tensor, nn

PLAN = TrainingPlan("few steps", samples=150_000, batch=32, learning_rate=4e-4, seed=15, hold=0.3, ema=0.998)
TRAJECTORIES = 12_800
STATES = 8
"""Number of steps of the teacher; the student can take any number of steps up to this."""
CHUNK = 640
BATCH = 64
_SEED = 600
_SCENES, _UNCONDITIONAL = 0.5, 0.04
_VISITED = (0.34, 0.04, 0.24, 0.04, 0.17, 0.04, 0.09, 0.04)
"""Share of the training samples per state; a run of four steps starts from the states with an even index."""
_HUBER = 0.1
_GLYPH_ROWS = slice(2, 6)


def scheduler(of: Any) -> LCMScheduler:
    """Build the sampler of the few-step model, with the timesteps of its training.

    Args:
        of: scheduler of the finished model; the sampler takes over its noise schedule.
    """
    keys = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "steps_offset")
    return LCMScheduler(**{name: of.config[name] for name in keys}, original_inference_steps=STATES, clip_sample=False)


def trajectories(pipeline: Path, work: Path, n: int) -> Path:
    """Let the teacher sample trajectories for training captions; an interrupted run continues at its next chunk.

    Args:
        pipeline: folder of the finished model.
        work: folder for the chunks and the result.
        n: number of trajectories, a multiple of :data:`CHUNK`.

    Returns:
        Path of a file with ``states`` [n, 9, 8, 8, 8], from pure noise to the finished latents, ``tokens`` [n, 24] of
        the captions, and ``timesteps`` [8].
    """
    path = work / "fast.data"
    if path.exists():
        return path
    chunks = [work / f"fast-{number}.data" for number in range(n // CHUNK)]
    pipe: Any = None
    for number, chunk in enumerate(chunks):
        if not chunk.exists():
            pipe = pipe or load_pipeline(pipeline)
            with replacing(chunk) as draft:
                torch.save(_sampled(pipe, number), draft)
    parts = [torch.load(chunk, weights_only=True) for chunk in chunks]
    whole = {name: torch.cat([part[name] for part in parts]) for name in ("states", "tokens")}
    with replacing(path) as draft:
        torch.save({**whole, "timesteps": parts[0]["timesteps"]}, draft)
    return path


class Jump:
    """Training task: predict the last state of a teacher's trajectory from an earlier one, given the prompt alone."""

    def __init__(self, pipeline: Path, data: Path, device: torch.device) -> None:
        saved = torch.load(data, weights_only=True)
        self.states: Tensor = saved["states"]
        self.tokens: Tensor = saved["tokens"]
        self.timesteps: Tensor = saved["timesteps"]
        pipe = load_pipeline(pipeline)
        self.text = pipe.text_encoder.to(device)
        self.unet: UNet2DConditionModel = pipe.unet.to(device).train()
        self.modules: list[nn.Module] = [self.unet]
        self.alphas: Tensor = pipe.scheduler.alphas_cumprod.to(device)
        weight = torch.full((self.states.shape[-2],), 0.4)
        weight[_GLYPH_ROWS] = 1.0
        self.weight = (weight / weight.mean()).view(1, 1, -1, 1).to(device)

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the pseudo-Huber distance of the predicted z0 from the teacher's, weighted per row of the latents.

        The distance is that of Song and Dhariwal 2023, sec. 3.
        """
        picked = torch.from_numpy(draw.numpy.integers(len(self.states), size=batch))
        at = torch.from_numpy(draw.numpy.choice(STATES, size=batch, p=_VISITED))
        x, z0 = (self.states[picked, where].float().to(draw.device) for where in (at, -1))
        t = self.timesteps[at].to(draw.device)
        with torch.no_grad():
            hidden = self.text(self.tokens[picked].long().to(draw.device)).last_hidden_state
        alpha, sigma = (a.sqrt()[:, None, None, None] for a in (self.alphas[t], 1 - self.alphas[t]))
        predicted = alpha * x - sigma * self.unet(x, t, hidden, return_dict=False)[0]
        return (self.weight * (((predicted - z0).square() + _HUBER**2).sqrt() - _HUBER)).mean()


def captions(n: int, seed: int) -> list[str]:
    """Make training captions: half for random scenes, half in the style of the prompt sets; a few are empty."""
    rng = np.random.default_rng(seed)
    kinds = mixed(n, seed + 1)
    scenes = rng.random(n) < _SCENES
    texts = [caption(sample_scene(rng), rng) if scenes[at] else kinds[at % len(kinds)] for at in range(n)]
    return ["" if rng.random() < _UNCONDITIONAL else text for text in texts]


@torch.no_grad()
def _sampled(pipe: Any, number: int) -> dict[str, Tensor]:
    """Sample one chunk of trajectories; return its ``states`` in float16, its ``tokens`` and the ``timesteps``."""
    encoded = pipe.tokenizer(
        captions(CHUNK, _SEED + 10 * number),
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    tokens = encoded.input_ids
    source = torch.Generator().manual_seed(_SEED * 1_000 + number)
    shape = (CHUNK, pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    noise = torch.randn(shape, generator=source)
    scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    states = [_trajectory(pipe, scheduler, *part) for part in zip(noise.split(BATCH), tokens.split(BATCH), strict=True)]
    return {"states": torch.cat(states), "tokens": tokens.short(), "timesteps": scheduler.timesteps.cpu()}


def _trajectory(pipe: Any, scheduler: Any, noise: Tensor, tokens: Tensor) -> Tensor:
    """Denoise a batch with the teacher; return the noise and the latents after every step, [B, 9, 8, 8, 8]."""
    device = pipe.device
    conditional = pipe.text_encoder(tokens.to(device)).last_hidden_state
    nothing = pipe.encode_prompt([""], device, 1, do_classifier_free_guidance=False)[0].expand_as(conditional)
    prompts = torch.cat([nothing, conditional])
    scheduler.set_timesteps(STATES, device=device)
    x = noise.to(device)
    states = [x]
    for t in scheduler.timesteps:
        e_u, e_c = pipe.unet(torch.cat([x, x]), t, prompts, return_dict=False)[0].chunk(2)
        x = scheduler.step(classifier_free(e_u, e_c, GUIDANCE_SCALE), t, x, return_dict=False)[0]
        states.append(x)
    return torch.stack(states, 1).half().cpu()
