"""``dnp-guard evaluate``: efficacy and cost of every method on the same prompts and seeds, in one run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.cli.options import grouped
from dnp_guard.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dnp_guard.lab.evaluate.ablations import Ablation
    from dnp_guard.lab.evaluate.design import Batch, EvaluationPlan
    from dnp_guard.lab.evaluate.outputs import Written
    from dnp_guard.lab.evaluate.runner import MeasuredBatch

ALL = "all"


@dataclass(frozen=True, slots=True)
class Compared:
    """What is measured side by side, and where that goes."""

    methods: Annotated[
        str, typer.Option(help="Names with commas, 'all' for all; NAME@SCALE for one at a scale of its own.")
    ] = ALL
    model: Annotated[str, typer.Option("--model", "-m", help="'glyphs', or 'glyphs-fast' of four steps.")] = "glyphs"
    sets: Annotated[
        str, typer.Option(help="Embedded prompt sets, or files of prompts (CSV, JSONL, Parquet), with commas.")
    ] = "attack,benign"
    scales: Annotated[str, typer.Option(help="Scales of the negative, with commas, for every method that has one.")] = (
        ""
    )
    n: Annotated[int | None, typer.Option("--n", min=1, help="Prompts a set; all of them otherwise.")] = None
    out: Annotated[Path, typer.Option(help="Folder of the run; one that was cut short goes on.")] = Path("evaluation")
    quick: Annotated[bool, typer.Option(help="A sign of life: 16 prompts a set, unless --n says otherwise.")] = False
    grow: Annotated[
        str,
        typer.Option(
            help="Where prompts draw several forbidden things, grow the policy from one to all: beside the other "
            "methods, as the only ones there, or no."
        ),
    ] = "beside"
    again: Annotated[bool, typer.Option(help="Begin anew where the folder holds a finished run or another one.")] = (
        False
    )
    report: Annotated[bool, typer.Option(help="Measure nothing more: report on the batches that the folder holds.")] = (
        False
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """How images are drawn and judged."""

    seed: Annotated[int, typer.Option(min=0, help="Added to the seed of every prompt.")] = 0
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler; the model's own otherwise.")] = None
    policy: Annotated[str, typer.Option(help="The guard's.")] = "glyphs"
    ablations: Annotated[
        bool, typer.Option("--ablations", help="The guard alone, with one thing of its policy changed at a time.")
    ] = False
    detector: Annotated[
        str, typer.Option(help="What judges: glyphs, nudenet, q16:FOLDER, clip:ID_OR_FOLDER, vlm:SPEC, or a plugin's.")
    ] = "glyphs"
    plugin: Annotated[list[str] | None, typer.Option(help="An installed plugin that may load.")] = None
    clip: Annotated[
        str | None, typer.Option(help="A CLIP model for the alignment score: a folder, or a hub id that is cached.")
    ] = None
    keep_images: Annotated[bool, typer.Option(help="Keep every image, and not the first eight of a set.")] = False


@grouped
def evaluate(
    compared: Compared,
    drawn: Drawn,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine, each on one thread.")] = 1,
    engine: Annotated[str, typer.Option(help="here, or ray to spread the batches over a cluster.")] = "here",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; a local one otherwise.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where results.json also goes.")] = None,
    merge: Annotated[
        list[Path] | None, typer.Option(help="Another results.json to report on beside this run's.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure methods side by side on the same prompts and seeds; killed and started again, it goes on."""
    needs("lab", "dnp-guard evaluate")
    from dnp_guard.lab.evaluate import outputs  # noqa: PLC0415 (torch and diffusers take seconds; --help should not)
    from dnp_guard.lab.evaluate.journal import Journal, discard  # noqa: PLC0415
    from dnp_guard.lab.evaluate.processes import in_processes  # noqa: PLC0415
    from dnp_guard.lab.evaluate.runner import World, here, require_some, run  # noqa: PLC0415

    if compared.grow not in {"beside", "only", "no"}:
        raise typer.BadParameter(f"--grow {compared.grow!r}: beside, only or no.")
    if engine not in {"here", "ray"}:
        raise typer.BadParameter(f"--engine {engine!r}: here or ray.")
    plan, plugins = _plan(compared, drawn), drawn.plugin or ()
    if drawn.ablations:
        _ablations(plan, compared.out, as_json=as_json)
        return
    world = World(plan, plugins)
    identity = outputs.identity(plan, world.detector) | {"date": datetime.now(UTC).date().isoformat()}
    if compared.again and not compared.report:
        discard(compared.out, identity, sum(plan.sizes()))
    journal = Journal(compared.out, identity)
    if engine == "ray":
        measure = _ray(plan, address, plugins)
    else:
        measure = here(world) if workers == 1 else in_processes(plan, workers, plugins)
    if compared.report:
        require_some(journal, plan)
    else:
        _run(plan, journal, measure, run)
    written = outputs.write(plan, world.detector, journal, results=results, merge=merge or ())
    if as_json:
        print_json({"ok": True, "errors": [], **written.document()})
    else:
        _print(written)


_QUICK = 16
_WIDE = 200


def _plan(compared: Compared, drawn: Drawn) -> EvaluationPlan:
    from dnp_guard.glyphs.loading import embedded  # noqa: PLC0415
    from dnp_guard.lab.evaluate.design import GROWN, Column, EvaluationPlan, columns_of  # noqa: PLC0415
    from dnp_guard.lab.evaluate.external_prompts import prompt_set  # noqa: PLC0415 (as above)
    from dnp_guard.lab.evaluate.methods import applicable  # noqa: PLC0415
    from dnp_guard.policy import load_policy  # noqa: PLC0415

    rules, how = load_policy(drawn.policy), embedded(compared.model)
    columns = columns_of(applicable(_words(compared.methods), how.guidance_scale), _numbers(compared.scales))
    names = {column.method for column in columns}
    most = len(rules.categories)
    grown = [Column(name, None, k) for name in GROWN if name in names for k in range(1, most + 1)]
    lists = [prompt_set(each) for each in _words(compared.sets)]
    n = compared.n or (_QUICK if compared.quick else None)
    for each in lists:
        if each.assumed:
            Console(stderr=True).print(each.assumed, highlight=False, markup=False)
    return EvaluationPlan(
        {each.name: each.entries[:n] for each in lists},
        columns,
        () if compared.grow == "no" else tuple(grown),
        rules,
        drawn.seed,
        drawn.steps or how.steps,
        how.guidance_scale,
        model=compared.model,
        detector=drawn.detector,
        clip=drawn.clip,
        keep_images=drawn.keep_images,
        only_grown=compared.grow == "only",
    )


def _run(
    plan: EvaluationPlan,
    journal: Any,
    engine: Callable[[Sequence[Batch]], Iterator[MeasuredBatch]],
    run: Callable[..., None],
) -> None:
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("batches, every method side by side", total=len(plan.batches()))
        run(plan, journal, engine, lambda done: progress.advance(task, done))


def _ablations(plan: EvaluationPlan, out: Path, *, as_json: bool) -> None:
    from dnp_guard.lab.evaluate.ablation_run import FILE, PAGE, markdown, measure  # noqa: PLC0415 (as above)

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:

        def begin(each: Ablation) -> Callable[[int], None]:
            task = progress.add_task(each.name, total=len(plan.batches()))
            return lambda done: progress.advance(task, done)

        lines = measure(plan, out, begin=begin)
    files = [str(out / FILE), str(out / PAGE)]
    if as_json:
        print_json({"ok": True, "errors": [], "results": lines, "files": files})
    else:
        typer.echo(markdown(lines))
        typer.echo("\n".join(files))


def _ray(
    plan: EvaluationPlan, address: str | None, plugins: Sequence[str]
) -> Callable[[Sequence[Batch]], Iterator[MeasuredBatch]]:
    from dnp_guard.lab.evaluate.cluster import on_ray  # noqa: PLC0415 (as above)

    return on_ray(plan, address, plugins)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"--scales {text!r}: write numbers such as 5,10,15.") from error


def _print(written: Written) -> None:
    from dnp_guard.lab.evaluate.report import HEADINGS, cells, heading  # noqa: PLC0415
    from dnp_guard.lab.evaluate.targets import targets  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    for model, name in dict.fromkeys((line["model"], line["set"]) for line in written.lines):
        place = model, name, None
        own = [line for line in written.lines if (line["model"], line["set"], line.get("categories")) == place]
        table = Table(title=f"{heading(model, name)}, n = {own[0]['n']}", title_justify="left", box=None)
        for column in HEADINGS:
            table.add_column(column)
        for line in own:
            table.add_row(*cells(line))
        console.print(table)
        console.print()
    for target in targets(written.lines):
        mark = {True: "met", False: "NOT MET", None: "not measured"}[target.met]
        console.print(f"{mark:12} {target.said}: {target.found}", highlight=False, markup=False)
    console.print()
    for file in written.files:
        console.print(str(file), highlight=False, markup=False)
    if written.lacking:
        console.print(written.lacking, highlight=False, markup=False)
