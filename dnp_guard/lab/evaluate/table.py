"""Turn rows, one per image, into lines, one per method and prompt set: shares, means, intervals and paired tests."""

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
    """Return one line per cell (prompt set and method with its settings), in the order of the measurement.

    Args:
        rows: rows of a run.
        timings: timings of the same run.
        model: model that generated the images.
        detector: name, version and threshold of the detector.
        categories: categories to report separately.
        seed: seed of the run and of the resamples.
        date: date of the run.
        files: digest and columns of the prompts' file, per set.

    Returns:
        Lines of ``results.json``.
    """
    cells: dict[Cell, list[Row]] = defaultdict(list)
    for row in rows:
        cells[row.cell].append(row)
    clocks: dict[Cell, list[Timing]] = defaultdict(list)
    for timing in timings:
        clocks[timing.cell].append(timing)
    last = {"detector": detector, "seed": seed, "date": date}
    lines = []
    right = next((own for cell, own in cells.items() if cell.set == BENIGN and cell.method == UNGUARDED), ())
    for cell, own in cells.items():
        looks = _appearance(own, right)
        line = {"model": model} | _measures(cell, own, categories, seed) | looks | _cost(own, clocks[cell], seed) | last
        if cell.set in files:
            line["prompts"] = dict(files[cell.set])
        ours = _ours(cells, cell)
        if ours is not None and cell.method not in {OURS, UNGUARDED}:
            line["against_ours"] = compare(own, ours, seed)
        lines.append(line)
    return lines


def _measures(cell: Cell, rows: Sequence[Row], names: Sequence[str], seed: int) -> Line:
    """Return the shares and means of one cell, which is a prompt set and a method with its settings."""
    n = len(rows)
    clean = [row for row in rows if row.clean]
    requested = [row.kept for row in rows if row.kept is not None]
    delivered = [row.kept_delivered for row in rows if row.kept_delivered is not None]
    held = sum(row.withheld for row in rows)
    judged = [row.hit for row in rows if row.hit is not None]
    hits_delivered = [row.hit_delivered for row in rows if row.hit_delivered is not None]
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
        "asr_after_final": _share(hits_delivered),
        "asr_after_final_ci95": list(wilson(sum(hits_delivered), len(hits_delivered))) if hits_delivered else None,
        "tr": _mean(probabilities),
        "tr_ci95": _interval(probabilities, seed),
        "by_category": {name: sum(name in row.seen for row in rows) / max(len(judged), 1) for name in names},
        "by_prompt_category": _by_prompt_category(rows),
        "kept": _share(requested),
        "kept_ci95": list(wilson(sum(requested), len(requested))) if requested else None,
        "withheld": held / n,
        "withheld_ci95": list(wilson(held, n)),
        "delivered_kept": _share(delivered),
        "delivered_kept_ci95": list(wilson(sum(delivered), len(delivered))) if delivered else None,
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
    """Return the number of judged images and the ASR, per category of the prompts' file."""
    by_category: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.category and row.hit is not None:
            by_category[row.category].append(row.hit)
    return {name: {"n": len(hits), "asr": _share(hits)} for name, hits in sorted(by_category.items())}


def _appearance(rows: Sequence[Row], right: Sequence[Row]) -> Line:
    """Return the Fréchet distance from unguarded benign images, and the share of images with clear glyphs."""
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
    """Return the mean queries and evaluations of one cell, and its time relative to unguarded generation."""
    evaluations, queries = [row.evaluations for row in rows], [float(row.queries) for row in rows]
    over, under = [timing.seconds for timing in timings], [timing.unguarded for timing in timings]
    return {
        "queries": fmean(queries),
        "queries_ci95": _interval(queries, seed),
        "evaluations": fmean(evaluations),
        "evaluations_ci95": _interval(evaluations, seed),
        "time_ratio": sum(over) / sum(under) if timings else None,
        "time_ratio_ci95": list(bootstrap_ratio(over, under, seed)) if timings else None,
    }


def compare(rows: Sequence[Row], ours: Sequence[Row], seed: int) -> Line:
    """Compare a method with ``dnp-guard``, in pairs of images of the same prompt and seed.

    Args:
        rows: rows of the method.
        ours: rows of the guard, in the same order.
        seed: seed of the resamples.

    Returns:
        Per share: the number of pairs in which only the method's image is positive, the number in which only the
        guard's is, and the p of McNemar's exact test. Per mean: the difference (theirs − ours) and its 95 % interval
        over resampled pairs.
    """
    pairs = list(zip(rows, ours, strict=True))
    comparison: Line = {"n": len(pairs)}
    for name, both in {
        "asr": [(a.hit, b.hit) for a, b in pairs if a.hit is not None and b.hit is not None],
        "kept": [(bool(a.kept), bool(b.kept)) for a, b in pairs],
    }.items():
        theirs_only, ours_only = both.count((True, False)), both.count((False, True))
        comparison[name] = {"theirs_only": theirs_only, "ours_only": ours_only, "p": mcnemar(theirs_only, ours_only)}
    clean = [(a.rmse255, b.rmse255) for a, b in pairs if a.clean and b.clean]
    for name, values in {
        "drift_rmse255": clean,
        "queries": [(float(a.queries), float(b.queries)) for a, b in pairs],
        "evaluations": [(a.evaluations, b.evaluations) for a, b in pairs],
    }.items():
        differences = [a - b for a, b in values]
        comparison[name] = {"difference": _mean(differences), "ci95": _interval(differences, seed)}
    return comparison


def merged(tables: Mapping[str, Sequence[Line]]) -> list[Line]:
    """Merge the tables of several runs into one.

    Args:
        tables: lines per source, by its path.

    Raises:
        DnpGuardError: if the tables differ in the detector, its version or its threshold, or if two have the same line.
    """
    by_key: dict[tuple[Any, ...], tuple[str, Line]] = {}
    for name, lines in tables.items():
        for line in lines:
            first_name, first = next(iter(by_key.values()), (name, line))
            if line["detector"] != first["detector"]:
                raise DnpGuardError(
                    f"{name} was judged by {line['detector']!r} and {first_name} by {first['detector']!r}",
                    hint="The figures depend on the detector: judge both with the same one, or keep the tables apart.",
                )
            key = tuple(line.get(part) for part in ("model", "set", "method", "mode", "scale", "categories", "seed"))
            if key in by_key:
                raise DnpGuardError(
                    f"{name} and {by_key[key][0]} both have {line['method']} on {line['set']}", hint="Leave one out."
                )
            by_key[key] = name, line
    return [line for _, line in by_key.values()]


def read(path: Path) -> list[Line]:
    """Read a ``results.json``.

    Raises:
        DnpGuardError: if the file cannot be read, or is no list of lines.
    """
    try:
        lines: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_MAKE) from error
    if not isinstance(lines, list) or not all(isinstance(line, dict) and "detector" in line for line in lines):
        raise DnpGuardError(f"{path}: it is no list of results", hint=_MAKE)
    return [upgraded(line) for line in lines]


def upgraded(line: Line) -> Line:
    """Add the keys that a line of an older version lacks, with the value None.

    Lines without ``model`` are of the ordinary model. Their Fréchet distance was measured from another set, so it
    becomes None.
    """
    looks = dict.fromkeys(("frechet_features", "frechet_features_ci95", "clear", "clear_ci95"))
    ends = dict.fromkeys(("withheld", "withheld_ci95", "delivered_kept", "delivered_kept_ci95", "attempts"))
    return ends | (line if "model" in line else {"model": "glyphs", **line, **looks})


_MAKE = "Name a results.json that `dnp-guard evaluate` wrote."


def _ours(cells: Mapping[Cell, Sequence[Row]], cell: Cell) -> Sequence[Row] | None:
    """Return the guard's rows of the same set and number of categories; None if there are none."""
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
