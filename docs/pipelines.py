"""The page of the pipelines and schedulers, from what ``make matrix`` has run."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import diffusers

from dnp_guard.hosts.diffusers.prediction import SPACES

MATRIX = Path(__file__).parent / "reference" / "matrix.json"

BENCH = Path(__file__).parent / "reference" / "bench_capture.json"
"""The medians of ``tests/bench/bench_capture.py``, in milliseconds, by test."""

_OTHERWISE = ("it is not steered", "its tiny one")
"""How the reason of a class begins that was not refused and not steered either."""

_NAMED = {
    "Stable Diffusion 1.5 and 2": "StableDiffusionPipeline",
    "Latent consistency (LCM)": "LatentConsistencyModelPipeline",
    "Stable Diffusion XL (Turbo, Lightning, LCM LoRA)": "StableDiffusionXLPipeline",
    "Stable Diffusion XL, modular": "StableDiffusionXLModularPipeline",
    "Stable Diffusion 3.5": "StableDiffusion3Pipeline",
    "Flux dev, schnell, Krea": "FluxPipeline",
    "Flux Kontext": "FluxKontextPipeline",
    "Flux 2": "Flux2Pipeline",
    "Flux 2 Klein": "Flux2KleinPipeline",
    "Flux 2 Klein Base": "Flux2KleinBaseModularPipeline",
    "Flux 3": "Flux3ModularPipeline",
    "Krea 2": "Krea2Pipeline",
    "Krea 2 Turbo": "Krea2TurboModularPipeline",
    "Qwen-Image": "QwenImagePipeline",
    "Qwen-Image 2.1": "QwenImage21Pipeline",
    "Qwen-Image 2.1 Turbo": "QwenImage21TurboModularPipeline",
    "Qwen-Image-Edit": "QwenImageEditPipeline",
    "Qwen-Image-Edit Plus (2509, 2511)": "QwenImageEditPlusPipeline",
    "Z-Image (Turbo)": "ZImagePipeline",
    "Wan 2.1 and 2.2": "WanPipeline",
    "HunyuanImage": "HunyuanImagePipeline",
    "Wan 2.2, image to video": "WanImageToVideoPipeline",
    "HunyuanVideo": "HunyuanVideoPipeline",
    "HunyuanVideo 1.5": "HunyuanVideo15Pipeline",
    "LTX": "LTXPipeline",
    "LTX-2": "LTX2Pipeline",
    "LTX-2, image to video": "LTX2ImageToVideoPipeline",
    "LTX-2.5": "LTX25ModularPipeline",
    "Kandinsky 5": "Kandinsky5T2VPipeline",
    "Chroma": "ChromaPipeline",
    "Sana": "SanaPipeline",
    "Lumina 2": "Lumina2Pipeline",
    "HiDream": "HiDreamImagePipeline",
    "CogView 4": "CogView4Pipeline",
    "Kolors": "KolorsPipeline",
    "Anima": "AnimaModularPipeline",
    "PixArt": "PixArtSigmaPipeline",
    "Ideogram 4": "Ideogram4Pipeline",
}
"""Models people use, with their classes."""

_PAGE = """\
# Pipelines

No table says which pipeline can be steered: for each call the guard asks the pipeline itself. It runs the pipeline's
own call on a copy up to the first step, with no part evaluated again, and compares what the denoiser is given with what
it was given in the call. The user's own prompt has to give the same again, to the bit; other words in place of the
negative prompt, or of the prompt where a call has no guidance, may change nothing but the arguments that a prompt
decides. The guard asks the pipeline's own arithmetic what it makes of its branches. A call for which this cannot be
shown raises `CannotSteer` before the denoiser's first evaluation returns to the pipeline, with the reason. Modular
pipelines, with a guider or without, and classes of your own are asked in the same way.

`make matrix` runs every class of diffusers {version} of which a tiny pipeline of random weights can be built, and
writes `matrix.json` beside this page. One image of the batch is steered at `scale: {scale}` and moves by at least
{changed} of a pixel, the others keep every bit, one injection is recorded, nothing is left behind, and a guard that
finds nothing leaves every bit. A run that is cut short goes on where it was.

**{steered} of {all} classes were steered**, and {refused} were refused with the reason found out. {otherwise} came to
something else, which is listed with the refused ones. Of {untried} no tiny pipeline could be built, so that nothing is
said of them before they are called.

## Models by name

| model | class | what was run |
|---|---|---|
{named}

## Steered

{classes}

Without classifier-free guidance, or with distilled guidance alone, `separate` pushes away from the prompt's own
prediction: ε_c − s(ε_n − ε_c). Under `guidance_rescale` and under normalisation the negative enters before it; under
guidance that is not linear in its branches (APG, CFG-Zero*) it is added to what was guided. With a ControlNet the
guard's words go to the denoiser alone; the ControlNet keeps the user's negative prompt. `replace` needs a call whose
negative prompt changes what the denoiser is given.

Under FirstBlockCache, TaylorSeer and MagCache a negative's evaluations are cached apart from the call's own. Pyramid
Attention Broadcast, FasterCache and TextKVCache cannot keep them apart, and a call under one of them is refused.

Videos are looked at by their first, middle and last frame; the strictest of them applies.

`make bench` measures the costs of asking (`tests/bench/bench_capture.py`; medians on tiny pipelines, three images, one
thread of a machine that others used). A call is proven once, in {proven}. A negative is captured once per call, in
{captured}, and a look is decoded in {decoded}. No denoiser is evaluated for any of it.

| pipeline | 4 steps, plain | 4 steps, guarded without a look before the end |
|---|---|---|
{costs}

## Refused

{others}

## Not run

{reasons}

## Schedulers

The clean image is predicted under these, with any of their prediction types, and no others:

{schedulers}
"""


def pipelines() -> str:
    """Return the page of the pipelines: what was run, and what came of it."""
    rows = json.loads(MATRIX.read_text(encoding="utf-8"))
    steered = [row["class"] for row in rows if row["steerable"]]
    refused = [row for row in rows if not row["steerable"] and row.get("tried")]
    untried = [row for row in rows if not row["steerable"] and not row.get("tried")]
    otherwise = [row for row in refused if row.get("failed") or row["reason"].startswith(_OTHERWISE)]
    known = {row["class"]: row for row in rows}
    return _PAGE.format(
        version=diffusers.__version__,
        scale=15,
        changed="0.0001",
        steered=len(steered),
        all=len(rows),
        refused=len(refused) - len(otherwise),
        otherwise=len(otherwise),
        untried=len(untried),
        **_costs(),
        named="\n".join(f"| {model} | `{name}` | {_run(known.get(name))} |" for model, name in _NAMED.items()),
        classes=_listed(steered),
        others=_by_reason(refused),
        reasons=_by_reason(untried),
        schedulers=_listed(sorted(SPACES)),
    )


def _costs() -> dict[str, str]:
    """Return the costs of asking a pipeline: a range for each part of it, and a table of whole calls."""
    median = json.loads(BENCH.read_text(encoding="utf-8"))
    tests = {
        "proven": "test_a_call_is_proven",
        "captured": "test_a_negative_is_captured",
        "decoded": "test_a_look_is_decoded",
    }
    times = {name: [time for test, time in median.items() if test.startswith(start)] for name, start in tests.items()}
    calls = [test for test in median if test.startswith("test_a_call[") and test.endswith("-plain]")]
    rows = [
        f"| `{test[len('test_a_call[') : -len('-plain]')]}` | {median[test]:.0f} ms "
        f"| {median[test.replace('-plain]', '-guarded, no look]')]:.0f} ms |"
        for test in calls
    ]
    return {name: f"{min(of_part):.0f} to {max(of_part):.0f} ms" for name, of_part in times.items()} | {
        "costs": "\n".join(rows)
    }


def _run(row: dict[str, Any] | None) -> str:
    if row is None or not row["steerable"]:
        return f"not steered: {row['reason']}" if row and row.get("tried") else "no tiny one could be built"
    images = "image 1 of 3 steered, 0 and 2 to the bit" if row["images"] > 1 else "the one image of a call steered"
    if row.get("of_several"):
        images += f"; several are refused: {row['of_several']}"
    return f"a tiny one of random weights: {images} (moved by {row['changed_by']:.2g}), idle to the bit"


def _by_reason(rows: list[dict[str, Any]]) -> str:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(row["reason"] or row.get("failed", ""), []).append(row["class"])
    return "\n\n".join(f"**Because {reason}:**\n{_listed(names)}" for reason, names in sorted(reasons.items()))


def _listed(names: list[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in names), width=120, break_long_words=False)
