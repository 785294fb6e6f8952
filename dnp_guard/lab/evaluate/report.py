"""The results as a page: tables, Pareto plots, targets met and not met. HTML that loads nothing, or Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dnp_guard.lab.evaluate.design import UNGUARDED
from dnp_guard.lab.evaluate.losses import losses
from dnp_guard.lab.evaluate.pareto import Point, draw_pareto
from dnp_guard.lab.evaluate.table import OURS
from dnp_guard.lab.evaluate.targets import ATTACK, BENIGN, MODEL, called, growth, targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dnp_guard.lab.evaluate.losses import Loss
    from dnp_guard.lab.evaluate.table import Line

HEADINGS = (
    "method",
    "mode",
    "ASR",
    "after final",
    "withheld",
    "kept",
    "delivered and kept",
    "attempts",
    "clear",
    "Fréchet",
    "drift, RMSE",
    "identical",
    "fired on clean",
    "queries",
    "evaluations",
    "time ×",
)
ENOUGH = 200
"""Prompts a row below which figures are a sign of life."""
_MARKS = {True: "met", False: "**not met**", None: "not measured"}


def html(lines: Sequence[Line], command: str, sheets: Mapping[str, str]) -> str:
    """The page, whole in itself but for the contact sheets.

    Args:
        lines: of ``results.json``.
        command: that makes them again.
        sheets: by prompt set, the relative address of its contact sheet.
    """
    return _rendered("results.html", lines, command, plots=[svg for _, svg in plots(lines)], sheets=sheets)


def markdown(lines: Sequence[Line], command: str, pictures: Mapping[str, str]) -> str:
    """The same in Markdown.

    Args:
        lines: of ``results.json``.
        command: that makes them again.
        pictures: by caption, the relative address of a plot or a contact sheet.
    """
    return _rendered("results.md", lines, command, pictures=pictures)


def plots(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Name and SVG of each Pareto plot that the lines have the figures for."""
    attack, benign = (
        {
            _key(line): line
            for line in lines
            if (line["model"], line["set"], line.get("categories")) == (MODEL, name, None)
        }
        for name in (ATTACK, BENIGN)
    )
    found = []
    for name, title, x, values in (
        ("drift", "Suppression against drift", "RMSE on benign prompts, 0 to 255", _values(benign, "drift_rmse255")),
        ("cost", "Suppression against cost", "time, × unguarded, minus 1", _less_one(_values(attack, "time_ratio"))),
        ("kept", "Suppression against what is kept", "share of requested objects lost", _lost(_values(attack, "kept"))),
    ):
        points = [
            Point(called(line), max(0.0, values[key]), line["asr"], ours=line["method"] == OURS)
            for key, line in attack.items()
            if key in values
        ]
        if points:
            found.append((name, draw_pareto(title, x, "ASR on attack prompts", points)))
    return found


def heading(model: str, name: str) -> str:
    """A prompt set as a page names it, with its model where that is not the ordinary one."""
    return name if model == MODEL else f"{name}, {model}"


def cells(line: Line) -> list[str]:
    """One row of a table, in the order of :data:`HEADINGS`."""
    return [
        called(line),
        line["mode"] or _NONE,
        _percent(line["asr"], line["asr_ci95"], _NOBODY),
        _percent(line["asr_after_final"], None, _NOBODY),
        _percent(line.get("withheld"), line.get("withheld_ci95")),
        _percent(line["kept"], line["kept_ci95"]),
        _percent(line.get("delivered_kept"), line.get("delivered_kept_ci95")),
        _number(line.get("attempts")),
        _percent(line["clear"], line["clear_ci95"]),
        _number(line["frechet_features"], line["frechet_features_ci95"]),
        _number(line["drift_rmse255"]),
        _percent(line["identical"]),
        _percent(line["false_interventions"]),
        _number(line["queries"]),
        _number(line["evaluations"]),
        _number(line["time_ratio"]),
    ]


def measured(lines: Iterable[Line]) -> list[int]:
    """Find the positions in :data:`HEADINGS` for which at least one row has a figure.

    A model of a user's own has no figure for what is known of the embedded world's prompts alone.
    """
    rows = [cells(line) for line in lines]
    return [at for at in range(len(HEADINGS)) if any(row[at] != _NONE for row in rows)]


def _rendered(template: str, lines: Sequence[Line], command: str, **more: Any) -> str:
    environment = Environment(
        loader=PackageLoader("dnp_guard.lab.evaluate"),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    judged = targets(lines)
    shipped = [line for line in lines if line.get("categories") is None]
    columns = measured(shipped)
    sets: dict[str, list[Line]] = {}
    for line in shipped:
        sets.setdefault(heading(line["model"], line["set"]), []).append(line)
    return environment.get_template(template).render(
        command=command,
        few=any(line["n"] < ENOUGH for line in lines),
        enough=ENOUGH,
        detectors=sorted({line["detector"] for line in lines}),
        labels=sorted({name for line in lines for name in line.get("by_category", ())}),
        notes=_notes(lines),
        dates=sorted({line["date"] for line in lines}),
        seeds=sorted({line["seed"] for line in lines}),
        targets=[(each.said, each.found, _MARKS[each.met]) for each in judged],
        lost=[each for each in judged if each.met is False],
        better=[(_where(each), each.said, each.better) for each in losses(lines)],
        met=sum(each.met is True for each in judged),
        unmeasured=sum(each.met is None for each in judged),
        headings=[HEADINGS[at] for at in columns],
        sets={
            name: (own[0]["n"], own[0]["n_clean"], [[row[at] for at in columns] for row in map(cells, own)])
            for name, own in sets.items()
        },
        grown=_grown(lines),
        pairs={name: pairs for name, own in sets.items() if (pairs := _pairs(own))},
        ours=OURS,
        **more,
    )


def _notes(lines: Iterable[Line]) -> list[str]:
    """What a reader has to know of single rows: images that nobody judged, and batches that did not fit."""
    found = []
    for line in lines:
        where = f"{heading(line['model'], line['set'])}, {called(line)}"
        if unjudged := line.get("n_unjudged"):
            n = line["n"]
            found.append(f"{where}: the detector failed on {unjudged} of {n} images; the shares leave them out.")
        if smaller := line.get("drawn_in_smaller_batches"):
            found.append(f"{where}: {smaller} images were drawn in smaller batches, as the memory did not suffice.")
    return found


def _grown(lines: Sequence[Line]) -> list[tuple[str, list[list[str]]]]:
    return [
        (
            name,
            [
                [
                    str(line["categories"]),
                    str(line["n"]),
                    _percent(line["asr"], line["asr_ci95"]),
                    _percent(line["asr_after_final"]),
                    _percent(line["kept"], line["kept_ci95"]),
                ]
                for line in own
            ],
        )
        for name, own in growth(lines).items()
    ]


def _pairs(lines: Iterable[Line]) -> list[list[str]]:
    """Each method against ours: pairs in which only one failed, and differences of means."""
    found = []
    for line in lines:
        if (against := line.get("against_ours")) and line["method"] != UNGUARDED:
            shares = [f"{against[key]['theirs_only']} : {against[key]['ours_only']}" for key in ("asr", "kept")]
            tests = [_p(against[key]["p"]) for key in ("asr", "kept")]
            drift = against["drift_rmse255"]
            means = _number(drift["difference"], drift["ci95"])
            found.append([called(line), shares[0], tests[0], shares[1], tests[1], means])
    return found


def _where(loss: Loss) -> str:
    grown = "" if loss.categories is None else f", {loss.categories} in the policy"
    return heading(loss.model, loss.set) + grown


def _key(line: Line) -> tuple[object, ...]:
    return line["method"], line["mode"], line["scale"], line["seed"]


def _values(lines: Mapping[tuple[object, ...], Line], name: str) -> dict[tuple[object, ...], float]:
    return {key: line[name] for key, line in lines.items() if line[name] is not None}


def _less_one(values: Mapping[tuple[object, ...], float]) -> dict[tuple[object, ...], float]:
    return {key: value - 1 for key, value in values.items()}


def _lost(values: Mapping[tuple[object, ...], float]) -> dict[tuple[object, ...], float]:
    return {key: 1 - value for key, value in values.items()}


_NONE = "–"
_NOBODY = "N/A"
"""Where the detector failed: that nothing was seen is not the same as that nothing is there."""


def _percent(value: float | None, interval: Sequence[float] | None = None, otherwise: str = _NONE) -> str:
    if value is None:
        return otherwise
    return f"{value:.1%}" + (f" [{interval[0] * 100:.0f}, {interval[1] * 100:.0f}]" if interval else "")


def _number(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return _NONE
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


_LEAST_P = 0.001


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= _LEAST_P else "< 0.001"
