"""``dnp-guard bench``: the cost of the guard, as a ratio to unguarded generations of the same run."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs
from dnp_guard.policy import load_policy

GLYPHS = "glyphs"


def bench(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, or cached hub id; glyphs by default.")
    ] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="Instead of a model: sd15, sdxl, flux, or one of these with the prefix tiny-.")
    ] = None,
    vlm: Annotated[
        str | None,
        typer.Option(
            help="Backend to time with your own model, such as detector:nudenet; fixed answers replace the backend's."
        ),
    ] = None,
    policy: Annotated[str, typer.Option(help="Policy of the guard.")] = GLYPHS,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,4,16",
    steps: Annotated[int, typer.Option(min=2, help="Sampler steps.")] = 25,
    guidance: Annotated[float, typer.Option(min=0, help="Scale of classifier-free guidance.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Timed generations per kind, after one warm-up.")] = 5,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("bench.json"),
    as_json: AsJson = False,
) -> None:
    """Time unguarded and guarded generations, and the published VL-DNP method, with the stages and the peak memory."""
    needs("lab", "dnp-guard bench")
    from dnp_guard.lab.evaluate import cost  # noqa: PLC0415 (torch and diffusers take seconds; --help should not)

    if random_weights is not None and (model or vlm):
        raise typer.BadParameter("--random-weights includes a model and a backend; leave --model and --vlm out.")
    sizes = _sizes(batches)
    rules = load_policy(policy)
    pipe, asked = _models(model or GLYPHS, random_weights, vlm, device)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        kinds = len(cost.kinds_of(pipe))
        task = progress.add_task("generating, each kind in turn", total=kinds * len(sizes) * (rounds + 1))
        rows = cost.measure(
            pipe,
            asked,
            batches=sizes,
            steps=steps,
            rounds=rounds,
            policy=rules,
            guidance_scale=guidance,
            advance=lambda: progress.advance(task),
        )
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": cost.machine(pipe),
        "model": random_weights or model or GLYPHS,
        "weights": "random, in the published architecture" if random_weights else _weights(model or GLYPHS),
        "policy": policy,
        "vlm": vlm or ("a LLaVA of random weights" if random_weights else GLYPHS),
        "steps": steps,
        "rounds": rounds,
        "rows": [row.to_json() for row in rows],
    }
    out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        print_json({"ok": True, "file": str(out), "errors": [], **document})
    else:
        _print(document, out)


def _sizes(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise typer.BadParameter(f"--batches {text!r}: write numbers such as 1,4,16.")
    return [int(word) for word in words]


def _weights(model: str) -> str:
    return "embedded" if model == GLYPHS else "its own"


def _models(model: str, random_weights: str | None, vlm: str | None, device: str) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415 (as above)

    if device not in {"cpu", "cuda"}:
        raise typer.BadParameter(f"--device {device!r}: cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda: torch finds no GPU here.")
    if random_weights is not None:
        return _random(random_weights, device)
    if model == GLYPHS and vlm is None:
        from dnp_guard.glyphs import VLM  # noqa: PLC0415
        from dnp_guard.glyphs.loading import load_pipeline  # noqa: PLC0415

        return load_pipeline().to(device), VLM
    if vlm is None:
        raise DnpGuardError(
            "--model needs a backend for the guard's queries",
            hint="Name one with --vlm, and a --policy that it can answer.",
        )
    from dnp_guard.lab.evaluate.model import load  # noqa: PLC0415
    from dnp_guard.vlm.plugin import build  # noqa: PLC0415

    return load(model).to(device), build(vlm)


def _random(model: str, device: str) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415 (as above)

    from dnp_guard.lab.evaluate.random_models import llava, pipeline  # noqa: PLC0415

    # Half precision on a GPU, the usual choice there; CPUs are slow at it.
    half = torch.bfloat16 if "flux" in model else torch.float16
    dtype = half if device == "cuda" else torch.float32
    pipe = pipeline(model).to(device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    network, processor = llava(tiny=model.startswith("tiny"))
    return pipe, (network.to(device, dtype=dtype), processor)


_HEADINGS = (
    "batch",
    "kind",
    "seconds",
    "ratio",
    "95 %",
    "steps/s",
    "GPU s",
    "per unqueried step",
    "peak, MiB",
    "stages, ms",
)


def _print(document: dict[str, Any], out: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    machine = document["machine"]
    table = Table(title=f"{document['model']} on {machine['device']}, {machine['processor']}", box=None)
    for heading in _HEADINGS:
        table.add_column(heading)
    for row in document["rows"]:
        low, high = row["ratio_ci95"]
        table.add_row(
            str(row["batch"]),
            row["kind"],
            f"{row['seconds']:.3f}",
            f"{row['ratio']:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{row['steps_per_second']:.2f}",
            f"{row['gpu_seconds']:.3f}" if row["gpu_seconds"] is not None else "",
            f"{row['step_ratio']:.3f}" if row["step_ratio"] is not None else "",
            f"{row['peak_mib']:.0f}" if row["peak_mib"] is not None else "",
            ", ".join(f"{name} {value * 1000:.0f}" for name, value in row["stages"].items()),
        )
    console.print(table)
    console.print(f"\n{out}", highlight=False, markup=False)
