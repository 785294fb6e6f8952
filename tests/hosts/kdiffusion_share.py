"""Measure how often every k-diffusion sampler draws a forbidden glyph: ``python -m tests.hosts.kdiffusion_share``.

Attack prompts are drawn unguarded and guarded, with the same noise, and an independent detector counts the images with
a forbidden glyph. Benign prompts are drawn unguarded and with a backend that finds nothing; the images must be equal
bit for bit. The command writes ``docs/reference/kdiffusion.json``. With names of samplers as arguments, it measures
steering in attention space with these samplers, prints the results, and writes nothing.
"""

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from dnp_guard import Guard
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.evaluate.album import Album
from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.evaluate.intervals import wilson
from dnp_guard.lab.world.captions import prompts
from dnp_guard.preview.autoencoder import to_tensor
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.ksampling import SAMPLERS, SCALE, STEPS, run, target

N = 48
PROMPT_SEED = 2026
NOISE_SEED = 10_000
OUT = Path(__file__).parents[2] / "docs" / "reference" / "kdiffusion.json"


def share(count, n):
    return {"share": count / n, "ci95": [round(end, 4) for end in wilson(count, n)]}


def measured(name, pipe, detector, network=None):
    """Measure one sampler.

    Args:
        name: name of the sampler.
        pipe: the embedded pipeline.
        detector: the detector of forbidden glyphs.
        network: the UNet, to steer in attention space; None for the policy's other mode.

    Returns:
        Shares of images with a forbidden glyph (unguarded, steered, delivered), the share of identical benign images,
        and the number of model evaluations relative to the unguarded run.
    """
    host, denoiser, words = target(pipe, network=network)
    sigmas, album = denoiser.sigmas(STEPS), Album()
    attacks, benign = ([prompt.text for prompt in prompts(kind, N, PROMPT_SEED)] for kind in ("attack", "benign"))
    forbidden = lambda made: sum(bool(seen.forbidden) for seen in detect(detector, to_tensor(made) * 2 - 1))  # noqa: E731

    plain = run(name, host, words, sigmas, attacks, NOISE_SEED)
    alone = denoiser.images
    with Guard("glyphs", vlm="glyphs", plugins=[album]) as guard, guard.attached(host):
        delivered = run(name, host, words, sigmas, attacks, NOISE_SEED)
    guarded = denoiser.images - alone
    idle = run(name, host, words, sigmas, benign, NOISE_SEED)
    with Guard("glyphs", vlm=ScriptedBackend({})) as guard, guard.attached(host):
        watched = run(name, host, words, sigmas, benign, NOISE_SEED)
    same = sum(bool((np.asarray(a) == np.asarray(b)).all()) for a, b in zip(idle, watched, strict=True))
    return {
        "unguarded": share(forbidden(plain), N),
        "steered": share(forbidden(album.final), N),
        "delivered": share(forbidden(delivered), N),
        "identical_when_nothing_is_found": same / N,
        "evaluations": round(guarded / alone, 3),
    }


def table(measurement):
    """Format a measurement as the Markdown table of the documentation."""

    def cell(row):
        low, high = (round(100 * end) for end in row["ci95"])
        return f"{round(100 * row['share'])} % [{low}, {high}]"

    lines = ["| sampler | unguarded | steered | delivered | evaluations |", "|---|---|---|---|---|"]
    for name, row in measurement["samplers"].items():
        cells = (cell(row[key]) for key in ("unguarded", "steered", "delivered"))
        lines.append(f"| `{name}` | {' | '.join(cells)} | × {row['evaluations']:.2f} |")
    return "\n".join(lines)


def main():
    pipe, detector = load_pipeline(), load_detector()
    if sys.argv[1:]:
        print(table({"samplers": {name: measured(name, pipe, detector, pipe.unet) for name in sys.argv[1:]}}))  # noqa: T201
        return
    rows = {}
    for name in SAMPLERS:
        rows[name] = measured(name, pipe, detector)
        print(name, json.dumps(rows[name]), flush=True)  # noqa: T201 (a script prints its results)
    made_with = {package: metadata.version(package) for package in ("k-diffusion", "torch", "diffusers")}
    setting = {"n": N, "steps": STEPS, "cond_scale": SCALE, "prompt_seed": PROMPT_SEED, "noise_seed": NOISE_SEED}
    measurement = {**setting, "versions": made_with, "samplers": rows}
    OUT.write_text(json.dumps(measurement, indent=1) + "\n", encoding="utf-8")
    print(table(measurement))  # noqa: T201 (as above)


if __name__ == "__main__":
    main()
