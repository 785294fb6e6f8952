"""Format the results of a run as a page, in HTML or Markdown: tables, Pareto plots, and targets met and missed."""

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
"""Number of prompts per row below which the page warns that they are too few for a result."""
_MARKS = {True: "met", False: "**not met**", None: "not measured"}


def html(lines: Sequence[Line], command: str, sheets: Mapping[str, str]) -> str:
    """Return the report as a page of HTML; it loads no files except the contact sheets.

    Args:
        lines: lines of ``results.json``.
        command: command that measures them again.
        sheets: relative address of the contact sheet, per prompt set.
    """
    return _rendered("results.html", lines, command, plots=[svg for _, svg in plots(lines)], sheets=sheets)


def markdown(lines: Sequence[Line], command: str, pictures: Mapping[str, str]) -> str:
    """Return the report as a page of Markdown.

    Args:
        lines: lines of ``results.json``.
        command: command that measures them again.
        pictures: relative address of a plot or a contact sheet, per caption.
    """
    return _rendered("results.md", lines, command, pictures=pictures)


def plots(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Draw those Pareto plots whose figures are in the lines of ``results.json``; return their names and SVGs."""
    attack, benign = (
        {
            _key(line): line
            for line in lines
            if (line["model"], line["set"], line.get("categories")) == (MODEL, name, None)
        }
        for name in (ATTACK, BENIGN)
    )
    drawn = []
    for name, title, x, values in (
        ("drift", "Suppression against drift", "RMSE on benign prompts, 0 to 255", _values(benign, "drift_rmse255")),
        ("cost", "Suppression against cost", "time, × unguarded, minus 1", _less_one(_values(attack, "time_ratio"))),
        ("kept", "Suppression against kept objects", "share of requested objects lost", _lost(_values(attack, "kept"))),
    ):
        points = [
            Point(called(line), max(0.0, values[key]), line["asr"], ours=line["method"] == OURS)
            for key, line in attack.items()
            if key in values
        ]
        if points:
            drawn.append((name, draw_pareto(title, x, "ASR on attack prompts", points)))
    return drawn


def heading(model: str, name: str) -> str:
    """Return the heading of a prompt set; it names the model too, unless that is the ordinary model ``glyphs``."""
    return name if model == MODEL else f"{name}, {model}"


def cells(line: Line) -> list[str]:
    """Return the table cells of one line of ``results.json``, in the order of :data:`HEADINGS`."""
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
    """Return the columns, as positions in :data:`HEADINGS`, in which at least one line has a figure.

    Some columns, such as *kept*, have figures only for embedded prompts, whose requested content is known.
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
        targets=[(target.text, target.figure, _MARKS[target.met]) for target in judged],
        lost=[target for target in judged if target.met is False],
        better=[(_where(loss), loss.own, loss.better) for loss in losses(lines)],
        met=sum(target.met is True for target in judged),
        unmeasured=sum(target.met is None for target in judged),
        headings=[HEADINGS[at] for at in columns],
        sets={
            name: (own[0]["n"], own[0]["n_clean"], [[row[at] for at in columns] for row in map(cells, own)])
            for name, own in sets.items()
        },
        kinds={name: (list(map(called, own)), rows) for name, own in sets.items() if (rows := _kinds(own))},
        grown=_grown(lines),
        pairs={name: pairs for name, own in sets.items() if (pairs := _pairs(own))},
        ours=OURS,
        **more,
    )


def _notes(lines: Iterable[Line]) -> list[str]:
    """Return notes about single rows: about images that were not judged, and batches that did not fit into memory."""
    notes = []
    for line in lines:
        where = f"{heading(line['model'], line['set'])}, {called(line)}"
        if unjudged := line.get("n_unjudged"):
            n = line["n"]
            notes.append(f"{where}: the detector failed on {unjudged} of {n} images; the shares leave them out.")
        if smaller := line.get("drawn_in_smaller_batches"):
            notes.append(f"{where}: {smaller} images were generated in smaller batches, as memory ran out.")
    return notes


def _kinds(lines: Sequence[Line]) -> list[list[str]]:
    """Return a row per category of a file's prompts: its name, then per method the ASR and the images judged."""
    found = [line.get("by_prompt_category") or {} for line in lines]
    return [
        [name, *(f"{_percent(of[name]['asr'])} of {of[name]['n']}" if name in of else _NOBODY for of in found)]
        for name in sorted({name for of in found for name in of})
    ]


def _grown(lines: Sequence[Line]) -> list[tuple[str, list[list[str]]]]:
    """Return, per method, the table cells of the runs with policies of one category, of two, and so on."""
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
    """Return table cells that compare methods with the guard image by image: discordant pairs, mean differences."""
    rows = []
    for line in lines:
        if (against := line.get("against_ours")) and line["method"] != UNGUARDED:
            shares = [f"{against[key]['theirs_only']} : {against[key]['ours_only']}" for key in ("asr", "kept")]
            tests = [_p(against[key]["p"]) for key in ("asr", "kept")]
            drift = against["drift_rmse255"]
            means = _number(drift["difference"], drift["ci95"])
            rows.append([called(line), shares[0], tests[0], shares[1], tests[1], means])
    return rows


def _where(loss: Loss) -> str:
    grown = "" if loss.categories is None else f", policy of {loss.categories}"
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
"""Cell of a share if the detector failed on all images; a share of zero would mean that it saw nothing in them."""


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
