"""Measure the guard with one thing changed at a time: a run of its own for each ablation, and one table of all."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.files import write_whole
from dnp_guard.lab.evaluate import outputs, table
from dnp_guard.lab.evaluate.ablations import ABLATIONS
from dnp_guard.lab.evaluate.design import UNGUARDED, Column
from dnp_guard.lab.evaluate.detectors import describe
from dnp_guard.lab.evaluate.journal import Journal
from dnp_guard.lab.evaluate.report import HEADINGS, cells
from dnp_guard.lab.evaluate.runner import World, here, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from dnp_guard.lab.evaluate.ablations import Ablation
    from dnp_guard.lab.evaluate.design import EvaluationPlan
    from dnp_guard.lab.evaluate.table import Line

FILE, PAGE = "ablations.json", "ablations.md"
COMMAND = "dnp-guard evaluate --ablations"

_TEXT = """\
# What each part does

The guard with one thing changed at a time, on the embedded models under the policy `glyphs`:
`{command}`.

Every row is measured beside the unguarded images of the same seeds. Figures in brackets are 95 % intervals, Wilson's
for shares and the bootstrap's for means; rows whose intervals overlap are not told apart by this table. ASR, *after
final*, *kept*, *drift* and *time ×* are those of the [results](results.md). The time is that of one processor for
everything, so that *no waiting* has nothing to hide behind. A row is of the policy as it was on its date.

| row | what is changed |
|---|---|
{says}
"""


def measure(
    plan: EvaluationPlan,
    out: Path,
    ablations: Sequence[Ablation] = ABLATIONS,
    begin: Callable[[Ablation], Callable[[int], None]] = lambda _: lambda _: None,
) -> list[Line]:
    """Measure what the folder does not hold yet, and write the table of all.

    Args:
        plan: gives sets, seeds and policy; its methods do not count.
        out: a folder in it for each ablation, and the table.
        ablations: which.
        begin: hears of each before it is measured, and gives what hears of its batches.

    Returns:
        Lines as of ``results.json``, each with its ``ablation``.
    """
    found: list[Line] = []
    for each in ablations:
        of = replace(plan, policy=each.of(plan.policy), columns=(Column(UNGUARDED), Column(table.OURS)), grown=())
        world = World(of)
        identity = outputs.identity(of, world.detector) | {"date": datetime.now(UTC).date().isoformat()}
        journal = Journal(out / folder_of(each), identity)
        run(of, journal, here(world), begin(each))
        found += [{"ablation": each.name, **line} for line in _lines(of, world, journal)]
    write_whole(out / FILE, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_whole(out / PAGE, markdown(found, ablations))
    return found


def folder_of(ablation: Ablation) -> str:
    """The name of an ablation's folder.

    >>> from dnp_guard.lab.evaluate.ablations import ablation
    >>> folder_of(ablation("no waiting"))
    'no-waiting'
    """
    return re.sub(r"[^a-z0-9]+", "-", ablation.name.lower()).strip("-")


def read(path: Path) -> list[Line]:
    """The lines that :func:`measure` wrote.

    Raises:
        DnpGuardError: they cannot be read.
    """
    try:
        lines: list[Line] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DnpGuardError(f"{path}: no table of ablations", hint=f"Make one with `{COMMAND}`.") from error
    return [table.upgraded(line) for line in lines]


def markdown(lines: Sequence[Line], ablations: Iterable[Ablation] = ABLATIONS) -> str:
    """The table as a page."""
    measured = dict.fromkeys(line["ablation"] for line in lines)
    says = "\n".join(f"| {each.name} | {each.says} |" for each in ablations if each.name in measured)
    sets = dict.fromkeys(line["set"] for line in lines)
    command = f"{COMMAND} --sets {','.join(sets)} --n {max(line['n'] for line in lines)} --grow no"
    return _TEXT.format(command=command, says=says) + "\n" + tables(lines)


def tables(lines: Sequence[Line], heading: str = "##") -> str:
    """A table for each prompt set.

    Args:
        lines: as of :func:`measure`.
        heading: what a set's name is marked with.
    """
    parts = []
    headings = ("row", *HEADINGS[2:], "measured")
    for name in dict.fromkeys(line["set"] for line in lines):
        own = [line for line in lines if line["set"] == name]
        rows = ["| " + " | ".join([line["ablation"], *cells(line)[2:], line["date"]]) + " |" for line in own]
        parts += [
            f"\n{heading} {name}\n",
            f"n = {own[0]['n']} a row.\n",
            f"| {' | '.join(headings)} |",
            "|---|" + "---:|" * (len(headings) - 1),
            *rows,
        ]
    return "\n".join(parts) + "\n"


def _lines(plan: EvaluationPlan, world: World, journal: Journal) -> list[dict[str, Any]]:
    """The guard's lines of a run."""
    found = table.table(
        journal.rows(),
        journal.timings(),
        model=plan.model,
        detector=describe(world.detector),
        categories=world.detector.categories,
        seed=plan.seed,
        date=journal.plan["date"],
    )
    return [line for line in found if line["method"] == table.OURS]
