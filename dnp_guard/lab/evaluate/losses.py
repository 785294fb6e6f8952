"""Where another method beats the guard: every set and measure, and every row that is better."""

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
    """One column of the results.

    Attributes:
        key: in ``results.json``.
        said: its name in a sentence.
        lower: whether less of it is better.
        shown: a value as it is printed.
    """

    key: str
    said: str
    lower: bool
    shown: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Loss:
    """A measure of a set in which others are better.

    Attributes:
        model: that made the images.
        set: name of the prompt set.
        categories: how many the policy has, where that is what varies.
        said: the measure, with the guard's own value.
        better: the others, best first; a star marks one beyond the guard's 95 % interval.
    """

    model: str
    set: str
    categories: int | None
    said: str
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
    """Every measure of every set in which some row is better than the guard's; the unguarded ones never are.

    Args:
        lines: of ``results.json``.
    """
    found = []
    for ours in lines:
        if ours["method"] == OURS and ours is _first(lines, ours):
            others = [line for line in lines if _rival(line, ours)]
            found += [loss for measure in MEASURES if (loss := _loss(measure, ours, others))]
    return found


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
    said = f"{measure.said} {measure.shown(mine)}"
    return Loss(ours["model"], ours["set"], ours.get("categories"), said, tuple(shown))


def _first(lines: Iterable[Line], ours: Line) -> Line:
    """The guard's first row of a set, which is at its own scale where several were run."""
    return next(line for line in lines if line["method"] == OURS and _place(line) == _place(ours))


def _rival(line: Line, ours: Line) -> bool:
    return line["method"] not in {OURS, UNGUARDED} and _place(line) == _place(ours)


def _place(line: Line) -> tuple[object, ...]:
    return line["model"], line["set"], line.get("categories")
