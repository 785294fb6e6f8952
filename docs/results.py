"""Write the page of the results from the committed ``explanation/results.json`` and ``results-guard.json``."""

from __future__ import annotations

from pathlib import Path

from dnp_guard.lab.evaluate.report import ENOUGH, HEADINGS, cells, markdown, plots
from dnp_guard.lab.evaluate.table import read

DOCS = Path(__file__).parent
RESULTS = DOCS / "explanation" / "results.json"
GUARD = DOCS / "explanation" / "results-guard.json"


def results() -> str:
    """Return the page: tables, targets met and not met, and where we lose."""
    drawn = {f"Pareto plot: suppression against {name}": f"../_static/{file}" for name, file in _files().items()}
    for sheet in sorted((DOCS / "_static").glob("results-sheet-*.png")):
        name = sheet.stem.removeprefix("results-sheet-")
        drawn[f"{name}: one row per method, one column per seed"] = f"../_static/{sheet.name}"
    lines = read(RESULTS)
    whole = all(line["n"] >= ENOUGH for line in lines)
    return markdown(lines, "make evaluate" if whole else "dnp-guard evaluate --quick", drawn) + _guard()


def _guard() -> str:
    """Return the section about the guard on more prompts than the other methods ran on."""
    lines = read(GUARD)
    head = f"| set | n | {' | '.join(HEADINGS)} |\n|---|---:|---|---|{'---:|' * (len(HEADINGS) - 2)}\n"
    rows = "".join(f"| {line['set']} | {line['n']} | {' | '.join(cells(line))} |\n" for line in lines)
    return (
        "\n## The guard on more prompts\n\n"
        "The guard, and the guard with a second chance, on all held-out prompts of two sets; `make evaluate` runs "
        f"these as well.\n\n{head}{rows}"
    )


def pictures() -> dict[Path, str]:
    """Return the plots of the page: file and SVG."""
    return {DOCS / "_static" / _files()[name]: f"{svg}\n" for name, svg in plots(read(RESULTS))}


def _files() -> dict[str, str]:
    return {name: f"results-{name}.svg" for name, _ in plots(read(RESULTS))}
