"""Measure the guard with one thing changed at a time: one run per ablation, and one table of all ablations."""

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
for shares and the bootstrap's for means; this table does not tell rows apart whose intervals overlap. ASR, *after
final*, *kept*, *drift* and *time ×* are defined with the [results](results.md). Everything ran on one processor, so
*no waiting* could not hide its queries behind denoising. A row used the policy of its date.

| row | change |
|---|---|
{says}
"""


def measure(
    plan: EvaluationPlan,
    out: Path,
    ablations: Sequence[Ablation] = ABLATIONS,
    begin: Callable[[Ablation], Callable[[int], None]] = lambda _: lambda _: None,
) -> list[Line]:
    """Measure those ablations whose results are not in a folder yet, and write the table of all.

    Args:
        plan: sets, seeds and policy of the run; its methods are not used.
        out: folder for the table, with one subfolder per ablation.
        ablations: ablations to measure.
        begin: function that is called with every ablation before it is measured; it returns a function that is called
            with the number of batches finished since its last call.

    Returns:
        Lines of ``results.json``, with the key ``ablation`` added.
    """
    lines: list[Line] = []
    for row in ablations:
        changed = replace(plan, policy=row.of(plan.policy), columns=(Column(UNGUARDED), Column(table.OURS)), grown=())
        world = World(changed)
        identity = outputs.identity(changed, world.detector) | {"date": datetime.now(UTC).date().isoformat()}
        journal = Journal(out / folder_of(row), identity)
        run(changed, journal, here(world), begin(row))
        lines += [{"ablation": row.name, **line} for line in _lines(changed, world, journal)]
    write_whole(out / FILE, json.dumps(lines, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_whole(out / PAGE, markdown(lines, ablations))
    return lines


def folder_of(ablation: Ablation) -> str:
    """Return the name of an ablation's folder, in lower case with hyphens.

    >>> from dnp_guard.lab.evaluate.ablations import ablation
    >>> folder_of(ablation("no waiting"))
    'no-waiting'
    """
    return re.sub(r"[^a-z0-9]+", "-", ablation.name.lower()).strip("-")


def read(path: Path) -> list[Line]:
    """Read the lines that :func:`measure` wrote.

    Raises:
        DnpGuardError: if the file cannot be read.
    """
    try:
        lines: list[Line] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DnpGuardError(f"{path}: no table of ablations", hint=f"Make one with `{COMMAND}`.") from error
    return [table.upgraded(line) for line in lines]


def markdown(lines: Sequence[Line], ablations: Iterable[Ablation] = ABLATIONS) -> str:
    """Return the results of all ablations as a page of Markdown."""
    measured = dict.fromkeys(line["ablation"] for line in lines)
    says = "\n".join(f"| {row.name} | {row.says} |" for row in ablations if row.name in measured)
    sets = dict.fromkeys(line["set"] for line in lines)
    command = f"{COMMAND} --sets {','.join(sets)} --n {max(line['n'] for line in lines)} --grow no"
    return _TEXT.format(command=command, says=says) + "\n" + tables(lines)


def tables(lines: Sequence[Line], heading: str = "##") -> str:
    """Return the results of all ablations in Markdown, as one table per prompt set.

    Args:
        lines: lines from :func:`measure`.
        heading: Markdown mark of the headings, such as ``##``.
    """
    parts = []
    headings = ("row", *HEADINGS[2:], "measured")
    for name in dict.fromkeys(line["set"] for line in lines):
        own = [line for line in lines if line["set"] == name]
        rows = ["| " + " | ".join([line["ablation"], *cells(line)[2:], line["date"]]) + " |" for line in own]
        parts += [
            f"\n{heading} {name}\n",
            f"n = {own[0]['n']} per row.\n",
            f"| {' | '.join(headings)} |",
            "|---|" + "---:|" * (len(headings) - 1),
            *rows,
        ]
    return "\n".join(parts) + "\n"


def _lines(plan: EvaluationPlan, world: World, journal: Journal) -> list[dict[str, Any]]:
    """Return the lines of ``results.json`` about the guard, from the run of one ablation."""
    lines = table.table(
        journal.rows(),
        journal.timings(),
        model=plan.model,
        detector=describe(world.detector),
        categories=world.detector.categories,
        seed=plan.seed,
        date=journal.plan["date"],
    )
    return [line for line in lines if line["method"] == table.OURS]
