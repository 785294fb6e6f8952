"""``dnp-guard generate``: guarded images from any diffusers model."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from dnp_guard.cli.console import print_json
from dnp_guard.extras import needs

if TYPE_CHECKING:
    from dnp_guard.types import Report


def generate(
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="Prompt of an image; repeatable.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="'glyphs', 'glyphs-fast', a folder, or a cached hub id.")
    ] = "glyphs",
    vlm: Annotated[
        str, typer.Option("--vlm", help="Backend: 'glyphs', transformers:ID_OR_FOLDER, scripted:FILE.")
    ] = "glyphs",
    second_opinion: Annotated[
        str | None, typer.Option("--second-opinion", help="Second backend, queried too; a finding of either applies.")
    ] = None,
    final_vlm: Annotated[
        str | None, typer.Option("--final-vlm", help="Backend for finished images, in place of --vlm.")
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help="Policy file, or name of a shipped policy.")] = "glyphs",
    out: Annotated[Path, typer.Option("--out", help="Folder for the images and the audit log.")] = Path("generated"),
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Denoising steps; 25 by default, 4 for 'glyphs-fast'.")
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option("--guidance-scale", min=0, help="Guidance scale; 5 by default, 1 for 'glyphs-fast'."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed; image i uses seed + i.")] = 0,
    negative_prompt: Annotated[str, typer.Option("--negative-prompt", help="Your own negative prompt.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Generate guarded images with any diffusers model that can be steered."""
    needs("diffusers", "dnp-guard generate")
    # torch and diffusers take seconds to import; --help should not
    from dnp_guard.glyphs.loading import MODELS  # noqa: PLC0415
    from dnp_guard.guard import Guard  # noqa: PLC0415
    from dnp_guard.hosts.diffusers.loading import load_model  # noqa: PLC0415
    from dnp_guard.vlm.combined import composed  # noqa: PLC0415

    pipe, usual = load_model(model), MODELS.get(model, MODELS["glyphs"])
    steps = usual.steps if steps is None else steps
    out.mkdir(parents=True, exist_ok=True)
    audit = out / "audit.jsonl"
    with closing(composed(vlm, second_opinion, final_vlm)) as backend, Guard(policy, vlm=backend, audit=audit) as guard:
        pipe.callback_on_step_end = guard
        images = _drawn(
            pipe,
            prompt,
            seed,
            negative_prompt=[negative_prompt] * len(prompt) if negative_prompt else None,
            num_inference_steps=steps,
            guidance_scale=usual.guidance_scale if guidance_scale is None else guidance_scale,
        )
        report = guard.last
    assert report is not None  # noqa: S101 (a guarded call always reports)
    files = [out / f"{seed + index}.png" for index in range(len(prompt))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    if json:
        print_json(_document(report, prompt, files, audit))
    else:
        _print(report, prompt, files)


def _drawn(pipe: Any, prompts: list[str], seed: int, **settings: Any) -> list[Any]:
    """Generate the images of some prompts, and show the progress."""
    import torch  # noqa: PLC0415 (as above)

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("denoising", total=settings["num_inference_steps"])

        def advance(*_: Any) -> dict[str, Any]:
            progress.advance(task)
            return {}

        generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
        images: list[Any] = pipe(prompts, generator=generators, callback_on_step_end=advance, **settings).images
    return images


def _document(report: Report, prompts: list[str], files: list[Path], audit: Path) -> dict[str, Any]:
    images = [
        {
            "prompt": prompt,
            "file": str(file),
            "decision": image.decision,
            "would": image.would,
            "why": image.why,
            "negatives": [{"from_step": step, "text": n.text, "scale": n.scale} for step, n in image.negatives],
            "queries": len(image.queries),
        }
        for prompt, file, image in zip(prompts, files, report.images, strict=True)
    ]
    return {
        "request": report.request,
        "decision": report.decision,
        "policy": {"name": report.policy, "digest": report.digest},
        "images": images,
        "degraded": list(report.degraded),
        "audit": str(audit),
    }


def _print(report: Report, prompts: list[str], files: list[Path]) -> None:
    console = Console(markup=False)
    for prompt, file, image in zip(prompts, files, report.images, strict=True):
        decision = image.decision if image.would is None else f"shadow, would have been {image.would}"
        console.print(f"{file}  {decision}: {image.why}  “{prompt}”", highlight=False)
        for step, negative in image.negatives:
            scale = "" if negative.scale is None else f" × {negative.scale:g}"
            console.print(f"  from step {step}: −{negative.text}{scale}", highlight=False)
    for reason in report.degraded:
        console.print(f"  degraded: {reason}", highlight=False)
