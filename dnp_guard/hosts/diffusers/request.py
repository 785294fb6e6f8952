"""A call of a pipeline as the session and the record have it."""

from __future__ import annotations

import hashlib
from importlib import metadata
from typing import Any

import torch


def host_of(pipe: Any) -> dict[str, str]:
    """``host{name, version, target}`` of the record."""
    return {"name": "diffusers", "version": metadata.version("diffusers"), "target": type(pipe).__name__}


def batch_of(wanted: dict[str, Any], *, one_each: bool) -> tuple[tuple[str, ...], list[str] | None, int]:
    """Prompts and negatives, one per image, and the number of images."""
    prompt, embeds = _text(wanted.get("prompt")), wanted.get("prompt_embeds")
    each = int(wanted.get("num_images_per_prompt") or wanted.get("num_videos_per_prompt") or 1)
    each = 1 if one_each else each
    texts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    count = len(texts) if texts else (len(embeds) if embeds is not None else 0)
    negative = _text(wanted.get("negative_prompt"))
    if negative is None and wanted.get("negative_prompt_embeds") is not None:
        negatives = None
    else:
        shared = [negative or ""] * count if negative is None or isinstance(negative, str) else list(negative)
        negatives = [text for text in shared for _ in range(each)]
    return tuple(text for text in texts for _ in range(each)), negatives, count * each


def _text(prompt: Any) -> Any:
    """A prompt, or one a video; that of a single video may change from frame to frame, by whose numbers it is then."""
    return ", ".join(map(str, prompt.values())) if isinstance(prompt, dict) else prompt


def run_of(pipe: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """``run{seed, latents, scheduler, steps, guidance_scale, size}`` of the record."""
    generator = wanted.get("generator")
    generators = generator if isinstance(generator, list) else [generator] if generator is not None else []
    seeds = [each.initial_seed() for each in generators]
    size = [wanted.get("height"), wanted.get("width")]
    schedule = next((wanted[name] for name in ("timesteps", "sigmas") if wanted.get(name) is not None), None)
    run = {
        "seed": seeds[0] if len(seeds) == 1 else seeds or None,
        "latents": _hash(wanted.get("latents")),
        "scheduler": type(pipe.scheduler).__name__,
        "steps": wanted.get("num_inference_steps") if schedule is None else len(schedule),
        "guidance_scale": wanted.get("guidance_scale"),
        "size": None if None in size else size,
    }
    return {key: value for key, value in run.items() if value is not None}


def _hash(latents: Any) -> str | None:
    """SHA-256, in hexadecimal, of latents that the call brought, as little-endian float32; None for none."""
    if not isinstance(latents, torch.Tensor):
        return None
    values = latents.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
