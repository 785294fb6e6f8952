"""From one row an image to one row a method: shares and means with their 95 % intervals, and tests in pairs."""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.design import UNGUARDED
from dnp_guard.lab.evaluate.drift import frechet
from dnp_guard.lab.evaluate.intervals import bootstrap, bootstrap_ratio, jackknife, mcnemar, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    from dnp_guard.lab.evaluate.rows import Cell, Row, Timing

OURS, BENIGN = "dnp-guard", "benign"
Line = dict[str, Any]
"""One line of ``results.json``."""

_ENOUGH = 2


def table(
    rows: Iterable[Row],
    timings: Iterable[Timing],
    *,
    model: str,
    detector: str,
    categories: Sequence[str],
    seed: int,
    date: str,
    files: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[Line]:
    """One line a cell, in the order in which the cells were measured.

    Args:
        rows: of a run.
        timings: of the same run.
        model: that made the images.
        detector: name, version and threshold of what judged.
        categories: for the rate of each.
        seed: of the run, and of the resamples.
        date: of the run.
        files: by set, what its prompts were read from.
    """
    cells: dict[Cell, list[Row]] = defaultdict(list)
    for row in rows:
        cells[row.cell].append(row)
    clocks: dict[Cell, list[Timing]] = defaultdict(list)
    for timing in timings:
        clocks[timing.cell].append(timing)
    last = {"detector": detector, "seed": seed, "date": date}
    found = []
    right = next((own for cell, own in cells.items() if cell.set == BENIGN and cell.method == UNGUARDED), ())
    for cell, own in cells.items():
        looks = _appearance(own, right)
        line = {"model": model} | _measures(cell, own, categories, seed) | looks | _cost(own, clocks[cell], seed) | last
        if cell.set in files:
            line["prompts"] = dict(files[cell.set])
        ours = _ours(cells, cell)
        if ours is not None and cell.method not in {OURS, UNGUARDED}:
            line["against_ours"] = compare(own, ours, seed)
        found.append(line)
    return found


def _measures(cell: Cell, rows: Sequence[Row], names: Sequence[str], seed: int) -> Line:
    n = len(rows)
    clean = [row for row in rows if row.clean]
    asked = [row.kept for row in rows if row.kept is not None]
    handed = [row.kept_delivered for row in rows if row.kept_delivered is not None]
    held = sum(row.withheld for row in rows)
    judged = [row.hit for row in rows if row.hit is not None]
    ended = [row.hit_delivered for row in rows if row.hit_delivered is not None]
    distances = [row.feature_distance for row in clean if row.feature_distance is not None]
    scores = [row.clip for row in rows if row.clip is not None]
    probabilities = [row.probability for row in rows if row.probability is not None]
    fired = sum(row.intervened for row in clean)
    same = sum(row.identical for row in rows)
    return {
        **cell._asdict(),
        "n": n,
        "n_unjudged": n - len(judged),
        "asr": _share(judged),
        "asr_ci95": list(wilson(sum(judged), len(judged))) if judged else None,
        "asr_after_final": _share(ended),
        "asr_after_final_ci95": list(wilson(sum(ended), len(ended))) if ended else None,
        "tr": _mean(probabilities),
        "tr_ci95": _interval(probabilities, seed),
        "by_category": {name: sum(name in row.seen for row in rows) / max(len(judged), 1) for name in names},
        "by_prompt_category": _by_prompt_category(rows),
        "kept": _share(asked),
        "kept_ci95": list(wilson(sum(asked), len(asked))) if asked else None,
        "withheld": held / n,
        "withheld_ci95": list(wilson(held, n)),
        "delivered_kept": _share(handed),
        "delivered_kept_ci95": list(wilson(sum(handed), len(handed))) if handed else None,
        "attempts": fmean(row.attempts for row in rows),
        "n_clean": len(clean),
        "drift_rmse255": _mean([row.rmse255 for row in clean]),
        "drift_rmse255_ci95": _interval([row.rmse255 for row in clean], seed),
        "feature_distance": _mean(distances),
        "feature_distance_ci95": _interval(distances, seed),
        "clip": _mean(scores),
        "clip_ci95": _interval(scores, seed),
        "identical": same / n,
        "identical_ci95": list(wilson(same, n)),
        "intervened": sum(row.intervened for row in rows) / n,
        "false_interventions": _share([row.intervened for row in clean]),
        "false_interventions_ci95": list(wilson(fired, len(clean))) if clean else None,
        "degraded": sum(bool(row.degraded) for row in rows),
        "drawn_in_smaller_batches": sum(row.together is not None for row in rows),
    }


def _by_prompt_category(rows: Sequence[Row]) -> dict[str, Line]:
    """By category of the prompts' file, how many were judged and the share that shows what it must not."""
    found: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.category and row.hit is not None:
            found[row.category].append(row.hit)
    return {name: {"n": len(hits), "asr": _share(hits)} for name, hits in sorted(found.items())}


def _appearance(rows: Sequence[Row], right: Sequence[Row]) -> Line:
    """How right the images look: like images of benign prompts, and with glyphs that the detector is sure of."""
    clear = [row.clear for row in rows if row.clear is not None]
    line: Line = {
        "frechet_features": None,
        "frechet_features_ci95": None,
        "clear": _share(clear),
        "clear_ci95": list(wilson(sum(clear), len(clear))) if clear else None,
    }
    if min(len(rows), len(right)) <= _ENOUGH or not all(row.features for row in (*rows, *right)):
        return line
    benign = [row.features for row in right]

    def distance(features: ArrayLike) -> float:
        return frechet(features, benign)

    features = [row.features for row in rows]
    low, high = jackknife(distance, features)
    return line | {"frechet_features": distance(features), "frechet_features_ci95": [max(0.0, low), high]}


def _cost(rows: Sequence[Row], timings: Sequence[Timing], seed: int) -> Line:
    evaluations, queries = [row.evaluations for row in rows], [float(row.queries) for row in rows]
    over, under = [each.seconds for each in timings], [each.unguarded for each in timings]
    return {
        "queries": fmean(queries),
        "queries_ci95": _interval(queries, seed),
        "evaluations": fmean(evaluations),
        "evaluations_ci95": _interval(evaluations, seed),
        "time_ratio": sum(over) / sum(under) if timings else None,
        "time_ratio_ci95": list(bootstrap_ratio(over, under, seed)) if timings else None,
    }


def compare(rows: Sequence[Row], ours: Sequence[Row], seed: int) -> Line:
    """One method against ``dnp-guard``, image by image of the same prompts and seeds.

    Args:
        rows: of the method.
        ours: of the guard, in the same order.
        seed: of the resamples.

    Returns:
        For each share, in how many pairs only one of the two had it, and the p of McNemar's exact test; for each mean,
        the difference (theirs − ours) and its 95 % interval over resampled pairs.
    """
    pairs = list(zip(rows, ours, strict=True))
    found: Line = {"n": len(pairs)}
    for name, both in {
        "asr": [(a.hit, b.hit) for a, b in pairs if a.hit is not None and b.hit is not None],
        "kept": [(bool(a.kept), bool(b.kept)) for a, b in pairs],
    }.items():
        theirs_only, ours_only = both.count((True, False)), both.count((False, True))
        found[name] = {"theirs_only": theirs_only, "ours_only": ours_only, "p": mcnemar(theirs_only, ours_only)}
    clean = [(a.rmse255, b.rmse255) for a, b in pairs if a.clean and b.clean]
    for name, values in {
        "drift_rmse255": clean,
        "queries": [(float(a.queries), float(b.queries)) for a, b in pairs],
        "evaluations": [(a.evaluations, b.evaluations) for a, b in pairs],
    }.items():
        differences = [a - b for a, b in values]
        found[name] = {"difference": _mean(differences), "ci95": _interval(differences, seed)}
    return found


def merged(tables: Mapping[str, Sequence[Line]]) -> list[Line]:
    """Several tables as one.

    Args:
        tables: by the name of where each is from.

    Raises:
        DnpGuardError: they were judged by different detectors, versions or thresholds, or hold the same cell twice.
    """
    found: dict[tuple[Any, ...], tuple[str, Line]] = {}
    for name, lines in tables.items():
        for line in lines:
            first_name, first = next(iter(found.values()), (name, line))
            if line["detector"] != first["detector"]:
                raise DnpGuardError(
                    f"{name} was judged by {line['detector']!r} and {first_name} by {first['detector']!r}",
                    hint="A detector decides the number: judge both with the same one, or keep the tables apart.",
                )
            key = tuple(line.get(each) for each in ("model", "set", "method", "mode", "scale", "categories", "seed"))
            if key in found:
                raise DnpGuardError(
                    f"{name} and {found[key][0]} both have {line['method']} on {line['set']}", hint="Leave one out."
                )
            found[key] = name, line
    return [line for _, line in found.values()]


def read(path: Path) -> list[Line]:
    """Read a ``results.json``.

    Raises:
        DnpGuardError: it is no list of lines.
    """
    try:
        lines: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_MAKE) from error
    if not isinstance(lines, list) or not all(isinstance(line, dict) and "detector" in line for line in lines):
        raise DnpGuardError(f"{path}: it is no list of results", hint=_MAKE)
    return [upgraded(line) for line in lines]


def upgraded(line: Line) -> Line:
    """A line of this version; older ones tell less, of one model, and their Fréchet distance was from another set."""
    looks = dict.fromkeys(("frechet_features", "frechet_features_ci95", "clear", "clear_ci95"))
    ends = dict.fromkeys(("withheld", "withheld_ci95", "delivered_kept", "delivered_kept_ci95", "attempts"))
    return ends | (line if "model" in line else {"model": "glyphs", **line, **looks})


_MAKE = "Name a results.json that `dnp-guard evaluate` wrote."


def _ours(cells: Mapping[Cell, Sequence[Row]], cell: Cell) -> Sequence[Row] | None:
    mine = [
        rows
        for key, rows in cells.items()
        if (key.set, key.method, key.categories) == (cell.set, OURS, cell.categories)
    ]
    return mine[0] if mine else None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _interval(values: Sequence[float], seed: int) -> list[float] | None:
    return list(bootstrap(values, seed)) if values else None
