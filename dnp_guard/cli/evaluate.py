"""``dnp-guard evaluate``: efficacy and cost of safety methods on the same prompts and seeds, in one run."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.cli.evaluate_options import Compared, Drawn
from dnp_guard.cli.options import grouped
from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dnp_guard.lab.evaluate.ablations import Ablation
    from dnp_guard.lab.evaluate.design import Batch, EvaluationPlan
    from dnp_guard.lab.evaluate.outputs import Written
    from dnp_guard.lab.evaluate.runner import MeasuredBatch


@grouped
def evaluate(
    compared: Compared,
    drawn: Drawn,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, with one thread per process.")] = 1,
    engine: Annotated[str, typer.Option(help="here, or ray to distribute the batches over a cluster.")] = "here",
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster; a local one by default.")] = None,
    results: Annotated[Path | None, typer.Option(help="File for another copy of results.json.")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="Another results.json to include in the report.")] = None,
    *,
    people: Annotated[
        Path | None,
        typer.Option(help="A completed people.csv of this run, to measure how well people agree with the detector."),
    ] = None,
    unblurred: Annotated[
        bool, typer.Option("--unblurred", help="Show the images of your own model without blurring.")
    ] = (False),
    as_json: AsJson = False,
) -> None:
    """Measure safety methods side by side on the same prompts and seeds; an interrupted run can be continued."""
    needs("lab", "dnp-guard evaluate")
    from dnp_guard.cli.evaluate_plan import planned  # noqa: PLC0415 (torch and diffusers take seconds; --help should not)
    from dnp_guard.lab.evaluate import outputs  # noqa: PLC0415
    from dnp_guard.lab.evaluate.journal import Journal, discard, require_same_images  # noqa: PLC0415
    from dnp_guard.lab.evaluate.processes import in_processes  # noqa: PLC0415
    from dnp_guard.lab.evaluate.runner import World, here, require_some, run  # noqa: PLC0415

    _check(compared, engine)
    plan, plugins = planned(compared, drawn), drawn.plugin or ()
    if drawn.ablations:
        _ablations(plan, compared.out, as_json=as_json)
        return
    folder = compared.out if plan.keep_images else None
    world = World(plan, plugins, folder)
    identity = outputs.identity(plan, world.detector) | {"date": datetime.now(UTC).date().isoformat()}
    if compared.rejudge is not None:
        require_same_images(compared.rejudge, identity)
    if compared.again and not compared.report:
        discard(compared.out, identity, sum(plan.sizes()))
    journal = Journal(compared.out, identity)
    if engine == "ray":
        measure = _ray(plan, address, plugins)
    else:
        measure = here(world) if workers == 1 else in_processes(plan, workers, plugins, folder)
    if compared.report:
        require_some(journal, plan)
    else:
        _run(plan, journal, measure, run)
    written = outputs.write(
        plan,
        world.detector,
        journal,
        results=results,
        merge=merge or (),
        blurred=not plan.embedded and not unblurred,
        people=people,
    )
    _print(written, as_json=as_json)


_WIDE = 400


def _check(compared: Compared, engine: str) -> None:
    if compared.grow not in {"beside", "only", "no"}:
        raise typer.BadParameter(f"--grow {compared.grow!r}: beside, only or no.")
    if engine not in {"here", "ray"}:
        raise typer.BadParameter(f"--engine {engine!r}: here or ray.")
    if compared.rejudge is not None and compared.rejudge.resolve() == compared.out.resolve():
        raise DnpGuardError(f"{compared.out} is the run to judge again", hint="Give another folder with --out.")


def _run(
    plan: EvaluationPlan,
    journal: Any,
    engine: Callable[[Sequence[Batch]], Iterator[MeasuredBatch]],
    run: Callable[..., None],
) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, speed_estimate_period=float("inf")
    ) as progress:
        run(plan, journal, engine, advancing(progress, plan.sizes()))


def advancing(progress: Progress, sizes: Sequence[int]) -> Callable[[int], None]:
    """Return a function that advances a progress bar by a number of finished batches.

    Args:
        progress: display for the progress bar.
        sizes: number of images per batch, in order.
    """
    task, left = progress.add_task("images of all methods", total=sum(sizes)), iter(sizes)
    return lambda batches: progress.advance(task, sum(islice(left, batches)))


def _ablations(plan: EvaluationPlan, out: Path, *, as_json: bool) -> None:
    from dnp_guard.lab.evaluate.ablation_run import FILE, PAGE, markdown, measure  # noqa: PLC0415 (as above)

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:

        def begin(ablation: Ablation) -> Callable[[int], None]:
            task = progress.add_task(ablation.name, total=len(plan.batches()))
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


def _print(written: Written, *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": True, "errors": [], **written.document()})
        return

    from dnp_guard.cli.evaluate_tables import print_tables  # noqa: PLC0415 (as above)
    from dnp_guard.lab.evaluate.targets import targets  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    print_tables(console, written.lines)
    for target in targets(written.lines):
        mark = {True: "met", False: "NOT MET", None: "not measured"}[target.met]
        console.print(f"{mark:12} {target.text}: {target.figure}", highlight=False, markup=False)
    console.print()
    if written.agreement is not None:
        agreement = written.agreement
        kappa = "–" if agreement.kappa is None else f"{agreement.kappa:.2f}"
        text = (
            f"people agree with the detector on {agreement.agree:.1%} of {agreement.n} images, kappa {kappa}: it missed"
        )
        console.print(f"{text} {agreement.missed}, and raised {agreement.false_alarms} false alarms", highlight=False)
    for file in written.files:
        console.print(str(file), highlight=False, markup=False)
    if written.lacking:
        console.print(written.lacking, highlight=False, markup=False)
