"""Compare choices of the steps to query, in runs of one to eight steps.

Run it as ``python -m dnp_guard.lab.evaluate.few_steps [MODEL]``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from diffusers import DDIMScheduler

from dnp_guard.glyphs.loading import embedded, load_embedded
from dnp_guard.guard import Guard
from dnp_guard.lab.evaluate.album import Album
from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.world.captions import prompts
from dnp_guard.policy import Policy, load_policy
from dnp_guard.policy.model.sections import DEFAULT_STEPS
from dnp_guard.preview.autoencoder import to_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.lab.evaluate.detector import Detector
    from dnp_guard.lab.world.captions import Prompt

STEPS: Final = (1, 2, 4, 8)
_PROMPTS, _BATCH = 64, 16
_PROMPT_SEED, _NOISE_SEED = 77, 5_000


@dataclass(frozen=True, slots=True)
class FewStepRow:
    """Result of one choice of queried steps.

    Attributes:
        steps: number of steps of the run.
        looks: name of the choice, from :func:`looks`; empty for a run without a guard.
        forbidden: number of images with a forbidden glyph, before any is withheld.
        kept: number of images with all requested glyphs.
        queries: number of answered queries per image, the query of the finished image included.
    """

    steps: int
    looks: str
    forbidden: int
    kept: int
    queries: float


def looks(steps: int) -> dict[str, dict[str, Any]]:
    """Return the choices of queried steps to compare: by name, the value of a policy's ``queries``."""
    return {
        "steps of the defaults": {"steps": DEFAULT_STEPS},
        "every step but the last": {"steps": list(range(steps - 1)) or [0], "of": steps},
        "sigmas 1, .9, .8 … .2": {"steps": [], "sigmas": [tenths / 10 for tenths in range(10, 1, -1)]},
        "sigmas .95, .8, .6, .4, .2": {"steps": [], "sigmas": [0.95, 0.8, 0.6, 0.4, 0.2]},
    }


def measure(name: str, steps: int, count: int = _PROMPTS) -> list[FewStepRow]:
    """Generate images of attack prompts without a guard, and under a guard with every choice of queried steps.

    Args:
        name: name of an embedded model. The ordinary one runs with DDIM and trailing timesteps, the distilled one with
            its own scheduler.
        steps: number of steps of the run.
        count: number of prompts.

    Returns:
        One row without a guard, and one row per choice.
    """
    pipe, detector, entries = load_embedded(name), load_detector(), prompts("attack", count, _PROMPT_SEED)
    if name == "glyphs":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    scale, base = embedded(name).guidance_scale, load_policy("glyphs").resolved()
    rows = [_row(detector, entries, _drawn(pipe, entries, steps, scale), steps, "", 0.0)]
    for choice, queries in looks(steps).items():
        album, count_queries, images = Album(), 0, []
        policy = Policy.model_validate({**base, "queries": queries})
        with Guard(policy, vlm="glyphs", plugins=[album]) as guard, guard.attached(pipe):
            for at in range(0, count, _BATCH):
                _drawn(pipe, entries[at : at + _BATCH], steps, scale, at)
                images += list(album.final)
                count_queries += sum(len(image.queries) for image in guard.last.images) if guard.last is not None else 0
        rows.append(_row(detector, entries, images, steps, choice, count_queries / count))
    return rows


def _drawn(pipe: Any, entries: Sequence[Prompt], steps: int, scale: float, first: int = 0) -> list[Any]:
    generators = [torch.Generator().manual_seed(_NOISE_SEED + first + index) for index in range(len(entries))]
    texts = [prompt.text for prompt in entries]
    return list(pipe(texts, num_inference_steps=steps, guidance_scale=scale, generator=generators).images)


def _row(
    detector: Detector, entries: Sequence[Prompt], images: list[Any], steps: int, choice: str, queries: float
) -> FewStepRow:
    seen = detect(detector, to_tensor(images) * 2 - 1)
    kept = sum(view.shows(prompt.requested) for view, prompt in zip(seen, entries, strict=True))
    return FewStepRow(steps, choice, sum(bool(view.forbidden) for view in seen), kept, queries)


def main(name: str = "glyphs") -> None:
    """Measure a model with all choices of queried steps, and print one line per result."""
    for steps in STEPS:
        for row in measure(name, steps):
            figures = f"{row.looks or 'unguarded'}: {row.forbidden} forbidden, {row.kept} kept, {row.queries:g} queries"
            sys.stdout.write(f"{row.steps} steps, {figures}, of {_PROMPTS}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
