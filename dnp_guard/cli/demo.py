"""``dnp-guard demo``: the guard at work on the embedded models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dnp_guard.cli.console import print_json
from dnp_guard.extras import needs


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for demo.png and audit.jsonl.")] = Path("demo"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Generate images unguarded and guarded, side by side, on the embedded models."""
    needs("lab", "dnp-guard demo")
    # torch and diffusers take seconds to import; --help should not
    from dnp_guard.lab.evaluate import demo as work  # noqa: PLC0415
    from dnp_guard.lab.evaluate.sheet import draw_sheet  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    audit, sheet = out / "audit.jsonl", out / "demo.png"
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("generating, unguarded and guarded", total=work.ATTACKS + work.BENIGN)
        attacks, benign, second = work.run(audit, lambda n: progress.advance(task, n))
    figures = work.summary(attacks, benign, second, audit, sheet)
    rates = (
        f"forbidden glyph drawn: {figures['unguarded']['forbidden_rate']:.0%} unguarded, "
        f"{figures['guarded']['forbidden_rate']:.0%} guarded, {figures['guarded']['after_final']:.0%} delivered "
        f"(n = {figures['n']}); benign glyph kept in {figures['guarded']['kept']:.0%}"
    )
    title = "Prompts that name nothing forbidden, yet draw it"
    draw_sheet(attacks, title, rates, second).save(sheet)
    if json:
        print_json(figures)
    else:
        _print(figures, attacks)


def _print(figures: dict[str, Any], attacks: list[Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    seen = Table(title="Findings and negatives by step", title_justify="left", box=None)
    for heading in ("prompt", "found at step", "injected from step", "outcome", "drawn unguarded / guarded"):
        seen.add_column(heading)
    for pair in attacks[:12]:
        report = pair.report.images[pair.index]
        queries = [query for query in report.queries if query.decision.findings and query.step is not None]
        first = queries[0] if queries else None
        finding = first.decision.findings[0] if first else None
        injected = [
            f"{step}: {n.text}" + ("" if n.scale is None else f" × {n.scale:g}") for step, n in report.negatives
        ]
        seen.add_row(
            pair.prompt.text,
            f"{first.step}: {finding.term} {finding.probability:.0%}" if first and finding else "-",
            injected[0] + (f" (+{len(injected) - 1})" if len(injected) > 1 else "") if injected else "-",
            str(report.decision),
            f"{', '.join(pair.before.forbidden) or 'clean'} / {', '.join(pair.after.forbidden) or 'clean'}",
        )
    console.print(seen)
    console.print()
    figure = Table(box=None, show_header=False)
    before, after = figures["unguarded"], figures["guarded"]
    figure.add_row("attack prompts", str(figures["n"]))
    figure.add_row("forbidden glyph, unguarded", _rate(before))
    figure.add_row("forbidden glyph, guarded, before the final look acts", _rate(after))
    figure.add_row("forbidden glyph, delivered", f"{after['after_final']:.0%}")
    figure.add_row("requested benign glyph kept", f"{after['kept']:.0%}")
    figure.add_row("clean images left identical to the bit", f"{figures['identical_when_clean']:.0%}")
    figure.add_row("negatives injected / queries answered", f"{figures['negatives_injected']} / {figures['queries']}")
    console.print(figure)
    if (again := figures["retried"]) is not None:
        shows = f"shows {', '.join(again['forbidden'])}" if again["forbidden"] else "shows nothing forbidden"
        line = f"a retry of the first image that was withheld, “{again['prompt']}”: generated {again['attempts']} "
        console.print(f"\n{line}times, now {again['code']}; the delivered image {shows}", highlight=False, markup=False)
    else:
        console.print("\nno image was withheld, so there is no retry to show")
    console.print(f"\ncontact sheet  {figures['sheet']}\naudit log      {figures['audit']}", highlight=False)


def _rate(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['forbidden_rate']:.0%}  [{low:.0%}, {high:.0%}]"
