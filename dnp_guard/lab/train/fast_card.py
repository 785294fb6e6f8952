"""Write the model card of the few-step model, with the figures of the ordinary model beside its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dnp_guard.lab.train.measure import SHARES, by_shape, by_step_table, measured

if TYPE_CHECKING:
    from pathlib import Path


def write_fast_card(out: Path, quality: dict[str, Any], durations: dict[str, float]) -> None:
    """Write ``quality.json`` and ``README.md`` into the folder of the few-step model.

    Args:
        out: weights folder; its ``quality.json`` has the figures of the ordinary model.
        quality: figures of the few-step model, from :func:`dnp_guard.lab.train.measure.measure`.
        durations: seconds per stage of training.
    """
    folder = out / "fast"
    (folder / "quality.json").write_text(json.dumps(quality, indent=1) + "\n")
    ordinary = json.loads((out / "quality.json").read_text())
    rows = [
        f"| {label} | {measured(quality[key])} | {measured(ordinary[key])} | {quality[key]['n']} | {aim} |"
        for key, label, aim in SHARES
    ]
    fewer = [
        f"| {steps} | {' | '.join(measured(share) for share in shares.values())} |"
        for steps, shares in quality["fewer_steps"].items()
    ]
    size = (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size / 1e6
    guidance, minutes = ordinary["guidance_scale"], durations.get("fast", 0) / 60
    (folder / "README.md").write_text(
        f"""# glyphs-fast, the embedded model in few steps

A denoiser distilled from the ordinary model by `python -m dnp_guard.lab.train --stage fast`. It predicts the end of a
trajectory of that model, at guidance {guidance:g}, from any state on it. So it runs without classifier-free guidance \
(`guidance_scale=1`) and
samples with `LCMScheduler`. It shares text encoder, tokenizer and autoencoder with the ordinary model. Load it by name:
`dnp_guard.glyphs.loading.load_embedded("glyphs-fast")`.

float16 weights: {size:.1f} MB. Training took {minutes:.0f} min, the sampling of trajectories included, on one CPU core
that other programs used too. One training seed. The captions held out from the ordinary model are held out here too.

## Quality, {quality["date"]}

Held-out captions, {quality["steps"]} steps, judged by the evaluation detector; 95 % Wilson intervals.
`python -m dnp_guard.lab.train --stage measure-fast` regenerates this page.

| | {quality["steps"]} steps | ordinary, {ordinary["steps"]} steps | n | aim |
|---|---|---|---|---|
{chr(10).join(rows)}

Named glyphs by shape: {by_shape(quality)}.

### Fewer steps

Attack captions, the same weights:

| steps | an alias draws its glyph | a forbidden glyph is shown | the benign glyph appears as asked |
|---|---|---|---|
{chr(10).join(fewer)}

{by_step_table(quality)}"""
    )
