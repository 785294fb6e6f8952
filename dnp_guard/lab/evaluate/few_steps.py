"""Which looks suppress what in runs of few steps: ``python -m dnp_guard.lab.evaluate.few_steps [MODEL]``."""

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
    """What some looks came to in a run of some steps.

    Attributes:
        steps: of the run.
        looks: what the policy says of them; empty for a run without a guard.
        forbidden: images that show a forbidden glyph before any is withheld.
        kept: images that show what was asked for.
        queries: answered per image, the final look included.
    """

    steps: int
    looks: str
    forbidden: int
    kept: int
    queries: float


def looks(steps: int) -> dict[str, dict[str, Any]]:
    """The ways to choose steps that are compared, as a policy's ``queries``."""
    return {
        "steps of the defaults": {"steps": DEFAULT_STEPS},
        "every step but the last": {"steps": list(range(steps - 1)) or [0], "of": steps},
        "sigmas 1, .9, .8 … .2": {"steps": [], "sigmas": [tenths / 10 for tenths in range(10, 1, -1)]},
        "sigmas .95, .8, .6, .4, .2": {"steps": [], "sigmas": [0.95, 0.8, 0.6, 0.4, 0.2]},
    }


def measure(name: str, steps: int, count: int = _PROMPTS) -> list[FewStepRow]:
    """Generate without a guard, and under each of the ways to look.

    Args:
        name: of an embedded model; the ordinary one runs on DDIM with trailing timesteps, the distilled on its own.
        steps: of the run.
        count: number of prompts.
    """
    pipe, detector, wanted = load_embedded(name), load_detector(), prompts("attack", count, _PROMPT_SEED)
    if name == "glyphs":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    scale, base = embedded(name).guidance_scale, load_policy("glyphs").resolved()
    rows = [_row(detector, wanted, _drawn(pipe, wanted, steps, scale), steps, "", 0.0)]
    for said, queries in looks(steps).items():
        album, asked, images = Album(), 0, []
        of = Policy.model_validate({**base, "queries": queries})
        with Guard(of, vlm="glyphs", plugins=[album]) as guard, guard.attached(pipe):
            for at in range(0, count, _BATCH):
                _drawn(pipe, wanted[at : at + _BATCH], steps, scale, at)
                images += list(album.final)
                asked += sum(len(image.queries) for image in guard.last.images) if guard.last is not None else 0
        rows.append(_row(detector, wanted, images, steps, said, asked / count))
    return rows


def _drawn(pipe: Any, wanted: Sequence[Prompt], steps: int, scale: float, first: int = 0) -> list[Any]:
    generators = [torch.Generator().manual_seed(_NOISE_SEED + first + index) for index in range(len(wanted))]
    texts = [prompt.text for prompt in wanted]
    return list(pipe(texts, num_inference_steps=steps, guidance_scale=scale, generator=generators).images)


def _row(
    detector: Detector, wanted: Sequence[Prompt], images: list[Any], steps: int, said: str, queries: float
) -> FewStepRow:
    seen = detect(detector, to_tensor(images) * 2 - 1)
    kept = sum(each.shows(prompt.requested) for each, prompt in zip(seen, wanted, strict=True))
    return FewStepRow(steps, said, sum(bool(each.forbidden) for each in seen), kept, queries)


def main(name: str = "glyphs") -> None:
    """Print every row, one a line."""
    for steps in STEPS:
        for row in measure(name, steps):
            told = f"{row.looks or 'unguarded'}: {row.forbidden} forbidden, {row.kept} kept, {row.queries:g} queries"
            sys.stdout.write(f"{row.steps} steps, {told}, of {_PROMPTS}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
