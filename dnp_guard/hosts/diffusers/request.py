"""Describe a call of a pipeline for the policy and the audit record: host, prompts, number of images, settings."""

from __future__ import annotations

import hashlib
import inspect
import re
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.hosts.diffusers.asking.prompts import prompt_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTS = ("num_images_per_prompt", "num_videos_per_prompt")


def host_of(pipe: Any) -> dict[str, str]:
    """Return the facts about diffusers and the pipeline for the audit record, ``host{name, version, target}``."""
    return {"name": "diffusers", "version": metadata.version("diffusers"), "target": type(pipe).__name__}


def batch_of(kind: type, given: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str] | None, int]:
    """Return a call's prompts and negative prompts, one per image, and the number of images that the call makes.

    The negative prompts are None if the call has only their embeddings.
    """
    prompt, embeds = _text(prompt_of(given)[1]), given.get("prompt_embeds")
    per_prompt = 1 if _makes_one(kind) else int(next((given[name] for name in _COUNTS if given.get(name)), 1))
    texts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    count = len(texts) if texts else (len(embeds) if embeds is not None else 1)
    negative = _text(given.get("negative_prompt"))
    if negative is None and given.get("negative_prompt_embeds") is not None:
        negatives = None
    else:
        shared = [negative or ""] * count if negative is None or isinstance(negative, str) else list(negative)
        negatives = [text for text in shared for _ in range(per_prompt)]
    return tuple(text for text in texts for _ in range(per_prompt)), negatives, count * per_prompt


@cache
def _makes_one(kind: type) -> bool:
    """Return whether a pipeline class makes one image per prompt, even if a call asks for more."""
    try:
        source = inspect.getsource(kind.__call__)
    except (OSError, TypeError):
        return False
    return any(re.search(rf"^\s+{name} = 1$", source, re.MULTILINE) for name in _COUNTS)


def _text(prompt: Any) -> Any:
    """Return a prompt as text; a video's prompt may change over frames, and is then a dictionary by frame number."""
    return ", ".join(map(str, prompt.values())) if isinstance(prompt, dict) else prompt


def run_of(pipe: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a call for the audit record, ``run{…}``; settings that are not known are left out."""
    generator = given.get("generator")
    generators = generator if isinstance(generator, list) else [generator] if generator is not None else []
    seeds = [source.initial_seed() for source in generators]
    size = [given.get("height"), given.get("width")]
    schedule = next((given[name] for name in ("timesteps", "sigmas") if given.get(name) is not None), None)
    run = {
        "seed": seeds[0] if len(seeds) == 1 else seeds or None,
        "latents": _hash(given.get("latents")),
        "scheduler": type(pipe.scheduler).__name__ if hasattr(pipe, "scheduler") else None,
        "steps": given.get("num_inference_steps") if schedule is None else len(schedule),
        "guidance_scale": given.get("guidance_scale"),
        "size": None if None in size else size,
    }
    return {key: value for key, value in run.items() if value is not None}


def _hash(latents: Any) -> str | None:
    """Return the SHA-256, in hexadecimal, of latents as little-endian float32; None for anything but a tensor."""
    if not isinstance(latents, torch.Tensor):
        return None
    values = latents.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
