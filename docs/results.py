"""The page of the results, from the committed ``explanation/results.json``."""

from __future__ import annotations

from pathlib import Path

from dnp_guard.lab.evaluate.report import ENOUGH, markdown, plots
from dnp_guard.lab.evaluate.table import read

DOCS = Path(__file__).parent
RESULTS = DOCS / "explanation" / "results.json"


def results() -> str:
    """Return the page: tables, targets met and not met, and where we lose."""
    drawn = {f"Pareto plot: suppression against {name}": f"../_static/{file}" for name, file in _files().items()}
    for sheet in sorted((DOCS / "_static").glob("results-sheet-*.png")):
        name = sheet.stem.removeprefix("results-sheet-")
        drawn[f"{name}: one row per method, one column per seed"] = f"../_static/{sheet.name}"
    lines = read(RESULTS)
    whole = all(line["n"] >= ENOUGH for line in lines)
    return markdown(lines, "make evaluate" if whole else "dnp-guard evaluate --quick", drawn)


def pictures() -> dict[Path, str]:
    """Return the plots of the page: file and SVG."""
    return {DOCS / "_static" / _files()[name]: f"{svg}\n" for name, svg in plots(read(RESULTS))}


def _files() -> dict[str, str]:
    return {name: f"results-{name}.svg" for name, _ in plots(read(RESULTS))}
