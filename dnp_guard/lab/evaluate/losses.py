"""Find the prompt sets and measures for which another method is better than the guard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.lab.evaluate.design import KNOWING, UNGUARDED
from dnp_guard.lab.evaluate.table import OURS
from dnp_guard.lab.evaluate.targets import called

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dnp_guard.lab.evaluate.table import Line


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the results by which methods are compared.

    Attributes:
        key: key in ``results.json``.
        title: name of the measure.
        lower: whether lower values are better.
        shown: function that formats a value.
    """

    key: str
    title: str
    lower: bool
    shown: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Loss:
    """A measure by which other methods are better than the guard on a prompt set.

    Attributes:
        model: model that generated the images.
        set: name of the prompt set.
        categories: number of categories of the policy, in rows that vary it; else None.
        own: name of the measure, with the guard's value.
        better: other methods with their values, best first; a star marks a value beyond the guard's 95 % interval.
    """

    model: str
    set: str
    categories: int | None
    own: str
    better: tuple[str, ...]


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _number(value: float) -> str:
    return f"{value:.2f}"


MEASURES = (
    Measure("asr", "ASR", lower=True, shown=_percent),
    Measure("asr_after_final", "ASR after the final look", lower=True, shown=_percent),
    Measure("kept", "kept", lower=False, shown=_percent),
    Measure("drift_rmse255", "drift", lower=True, shown=_number),
    Measure("frechet_features", "Fréchet distance", lower=True, shown=_number),
    Measure("clear", "clear", lower=False, shown=_percent),
    Measure("time_ratio", "time ×", lower=True, shown=_number),
)


def losses(lines: Sequence[Line]) -> list[Loss]:
    """Return every measure, per prompt set, by which a method other than ``unguarded`` is better than the guard.

    Args:
        lines: lines of ``results.json``.
    """
    beaten = []
    for ours in lines:
        if ours["method"] == OURS and ours is _first(lines, ours):
            others = [line for line in lines if _rival(line, ours)]
            beaten += [loss for measure in MEASURES if (loss := _loss(measure, ours, others))]
    return beaten


def _loss(measure: Measure, ours: Line, others: Iterable[Line]) -> Loss | None:
    mine = ours.get(measure.key)
    if mine is None:
        return None
    sign = 1 if measure.lower else -1
    better = [line for line in others if line.get(measure.key) is not None and sign * line[measure.key] < sign * mine]
    better.sort(key=lambda line: sign * line[measure.key])
    if not better:
        return None
    interval = ours.get(f"{measure.key}_ci95")
    end = interval[0 if measure.lower else 1] if interval else mine
    shown = [
        f"{called(line)} {measure.shown(line[measure.key])}"
        + ("*" if sign * line[measure.key] < sign * end else "")
        + (" (told the answer)" if line["method"] in KNOWING else "")
        for line in better
    ]
    own = f"{measure.title} {measure.shown(mine)}"
    return Loss(ours["model"], ours["set"], ours.get("categories"), own, tuple(shown))


def _first(lines: Iterable[Line], ours: Line) -> Line:
    """Return the guard's line for the same model and set, the first one if the guard ran at several scales."""
    return next(line for line in lines if line["method"] == OURS and _place(line) == _place(ours))


def _rival(line: Line, ours: Line) -> bool:
    return line["method"] not in {OURS, UNGUARDED} and _place(line) == _place(ours)


def _place(line: Line) -> tuple[object, ...]:
    return line["model"], line["set"], line.get("categories")
