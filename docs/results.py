"""Write the page of the results from the committed files ``results*.json`` in ``explanation``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnp_guard.lab.evaluate.report import ENOUGH, HEADINGS, cells, markdown, plots
from dnp_guard.lab.evaluate.table import read

if TYPE_CHECKING:
    from dnp_guard.lab.evaluate.table import Line

DOCS = Path(__file__).parent
RESULTS = DOCS / "explanation" / "results.json"
GUARD = DOCS / "explanation" / "results-guard.json"
TRAININGS = {0: GUARD, **{n: DOCS / "explanation" / f"results-training-{n}.json" for n in (1, 2)}}


def results() -> str:
    """Return the page: tables, targets met and not met, and where we lose."""
    drawn = {f"Pareto plot: suppression against {name}": f"../_static/{file}" for name, file in _files().items()}
    for sheet in sorted((DOCS / "_static").glob("results-sheet-*.png")):
        name = sheet.stem.removeprefix("results-sheet-")
        drawn[f"{name}: one row per method, one column per seed"] = f"../_static/{sheet.name}"
    lines = read(RESULTS)
    whole = all(line["n"] >= ENOUGH for line in lines)
    return markdown(lines, "make evaluate" if whole else "dnp-guard evaluate --quick", drawn) + _guard() + _trainings()


def _guard() -> str:
    """Return the section about the guard on more prompts than the other methods ran on."""
    return (
        "\n## The guard on more prompts\n\n"
        "The guard, and the guard with a second chance, on all held-out prompts of two sets; `make evaluate` runs "
        f"these as well.\n\n{_table(['set', 'n'], [([line['set'], line['n']], line) for line in read(GUARD)])}"
    )


def _trainings() -> str:
    """Return the section about the guard with each of three trainings of its vision-language model."""
    rows = [
        ([str(training), line["set"], line["n"]], line)
        for training, file in TRAININGS.items()
        for line in read(file)
        if line["method"] == "dnp-guard"
    ]
    return (
        "\n## Three trainings of the vision-language model\n\n"
        "The guard on the same prompts and seeds, asking each of three trainings of the embedded vision-language "
        "model; 0 is the one that ships. They differ in their first weights and in the order of the pictures "
        "([how to train another](../how-to/evaluate.md#another-training-of-the-embedded-models)). Each was timed in a "
        f"run of its own. {_spread([line for _, line in rows if line['set'] == 'attack'])}\n\n"
        f"{_table(['training', 'set', 'n'], rows)}"
    )


def _spread(lines: list[Line]) -> str:
    """Say between which figures the trainings lie."""
    asr, kept = ([line[key] for line in lines] for key in ("asr", "kept"))
    return (
        f"On attack prompts ASR lies between {min(asr):.1%} and {max(asr):.1%}, and between {min(kept):.1%} and "
        f"{max(kept):.1%} of the images keep everything they were asked for."
    )


def _table(first: list[str], rows: list[tuple[list[Any], Line]]) -> str:
    """Return a table of lines of results, with columns of its own before the usual ones."""
    head = f"| {' | '.join([*first, *HEADINGS])} |\n|{'---|' * (len(first) + 2)}{'---:|' * (len(HEADINGS) - 2)}\n"
    return head + "".join(f"| {' | '.join([*map(str, own), *cells(line)])} |\n" for own, line in rows)


def pictures() -> dict[Path, str]:
    """Return the plots of the page: file and SVG."""
    return {DOCS / "_static" / _files()[name]: f"{svg}\n" for name, svg in plots(read(RESULTS))}


def _files() -> dict[str, str]:
    return {name: f"results-{name}.svg" for name, _ in plots(read(RESULTS))}
