"""``dnp-guard distill``: train a latent probe, a small network that decides which queries are unnecessary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs

if TYPE_CHECKING:
    from dnp_guard.lab.distill.examples import Example
    from dnp_guard.policy import Policy

_MISSES = (0.01, 0.02, 0.05)


def distill(
    *,
    out: Annotated[Path, typer.Option("--out", help="File of the probe, safetensors.")] = Path("probe.safetensors"),
    policy: Annotated[str, typer.Option("--policy", help="Policy file, or name of a shipped policy.")] = "glyphs",
    model: Annotated[str, typer.Option("--model", "-m", help="'glyphs', a folder, or a cached hub id.")] = "glyphs",
    vlm: Annotated[str, typer.Option("--vlm", help="Backend that answers in the run.")] = "glyphs",
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="File with one prompt per line; 'glyphs' has its own prompts.")
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=10, help="Number of prompts, if 'glyphs' supplies them.")
    ] = 960,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 25,
    guidance_scale: Annotated[float, typer.Option("--guidance-scale", min=0, help="Guidance scale.")] = 5.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed; image i uses seed + i.")] = 0,
    log: Annotated[
        Path | None, typer.Option("--from", help="Learn from this audit log instead of a run; needs --latents.")
    ] = None,
    latents: Annotated[
        Path | None,
        typer.Option("--latents", help="Folder that dnp_guard.lab.distill.archive.Latents wrote beside the log."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a latent probe on the findings of a vision-language model, so that `queries.skip_probe` can skip queries.

    Six tenths of the images train the probe, two tenths choose its thresholds, and two tenths check them.
    """
    needs("lab", "dnp-guard distill")
    # torch and diffusers take seconds to import; --help should not
    from dnp_guard.lab.distill import training  # noqa: PLC0415
    from dnp_guard.policy import load_policy  # noqa: PLC0415
    from dnp_guard.preview.probe import save  # noqa: PLC0415

    of = load_policy(policy)
    if (log is None) != (latents is None):
        raise DnpGuardError("--from and --latents go together", hint="Give both, or neither to start a run.")
    if log is not None and latents is not None:
        looks, vlm_info, space = _recorded(log, latents, of, model)
    else:
        chosen = _prompts(prompts, model, images, seed)
        looks, vlm_info, space = _run(of, model, vlm, chosen, steps, guidance_scale, seed)
    probe = training.train(looks, of, space, vlm_info, seed=seed)
    checked = [training.check(probe, looks, miss) for miss in _MISSES]
    save(probe, out)
    if as_json:
        print_json({"probe": str(out), "looks": len(looks), "checked": [asdict(check) for check in checked]})
        return
    typer.echo(f"{out}  from {len(looks)} queries; on images held out from training:")
    for check in checked:
        typer.echo(
            f"  max_miss {check.max_miss:g}: {check.skipped} of {check.clean} queries without a finding are skipped, "
            f"and {check.missed} of {check.found} with a finding"
        )


def _recorded(log: Path, latents: Path, policy: Policy, model: str) -> tuple[list[Example], tuple[str, str], str]:
    from dnp_guard.hosts.diffusers.loading import load_model  # noqa: PLC0415 (as above)
    from dnp_guard.lab.distill.archive import read  # noqa: PLC0415
    from dnp_guard.preview.probe import space_of  # noqa: PLC0415

    looks, vlm = read(log, latents, policy)
    return looks, vlm, space_of(load_model(model).vae)


def _run(
    policy: Policy, model: str, vlm: str, prompts: list[str], steps: int, guidance_scale: float, seed: int
) -> tuple[list[Example], tuple[str, str], str]:
    from dnp_guard.hosts.diffusers.loading import load_model  # noqa: PLC0415 (as above)
    from dnp_guard.lab.distill.own_run import watch  # noqa: PLC0415
    from dnp_guard.preview.probe import space_of  # noqa: PLC0415
    from dnp_guard.vlm.plugin import build  # noqa: PLC0415

    pipe: Any = load_model(model)
    backend = build(vlm)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("querying", total=len(prompts))
        looks = watch(
            pipe,
            backend,
            policy,
            prompts,
            steps=steps,
            seed=seed,
            guidance_scale=guidance_scale,
            advance=lambda done: progress.advance(task, done),
        )
    info = backend.info
    return looks, (info.name, info.revision), space_of(pipe.vae)


def _prompts(file: Path | None, model: str, images: int, seed: int) -> list[str]:
    if file is not None:
        try:
            return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DnpGuardError(
                f"{file}: cannot be read: {error}", hint="Give a text file with one prompt per line."
            ) from error
    if model != "glyphs":
        raise DnpGuardError(
            f"no prompts to run {model} with",
            hint="Give --prompts FILE, with prompts that draw the policy's categories and prompts that do not.",
        )
    from dnp_guard.lab.world.captions import mixed  # noqa: PLC0415 (imports numpy)

    return mixed(images, seed)
