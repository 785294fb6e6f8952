"""Write the results of a run: results.json, results.parquet, report.md, report.html and the contact sheets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnp_guard._version import __version__
from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import absent
from dnp_guard.files import replacing, write_whole
from dnp_guard.lab.evaluate import people as people_
from dnp_guard.lab.evaluate import report, table
from dnp_guard.lab.evaluate.detectors import describe
from dnp_guard.lab.evaluate.journal import image_file
from dnp_guard.lab.evaluate.method_sheet import draw_method_sheet
from dnp_guard.lab.evaluate.runner import SHEET
from dnp_guard.lab.evaluate.targets import called, targets
from dnp_guard.vlm.specs import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dnp_guard.lab.evaluate.design import EvaluationPlan
    from dnp_guard.lab.evaluate.detectors import ImageDetector
    from dnp_guard.lab.evaluate.journal import Journal
    from dnp_guard.lab.evaluate.people import Agreement
    from dnp_guard.lab.evaluate.rows import Cell, Row
    from dnp_guard.lab.evaluate.table import Line

COMMAND = "dnp-guard evaluate"
VERDICTS, AGREEMENT = "verdicts.jsonl", "agreement.json"


@dataclass(frozen=True, slots=True)
class Written:
    """Results of a run, after they were written to files.

    Attributes:
        lines: lines of ``results.json``, those of merged runs included.
        files: paths of all files, in the order in which they were written.
        lacking: sentence about the file that could not be written; empty if all were written.
        agreement: agreement of people with the detector; None without a sheet that people filled in.
    """

    lines: list[Line]
    files: tuple[Path, ...]
    lacking: str = ""
    agreement: Agreement | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON document that ``dnp-guard evaluate --json`` prints."""
        return {
            "results": self.lines,
            "targets": [
                {"target": target.text, "measured": target.figure, "met": target.met} for target in targets(self.lines)
            ],
            "files": [str(file) for file in self.files],
            "lacking": self.lacking,
            "agreement": None if self.agreement is None else self.agreement.to_json(),
        }


def identity(plan: EvaluationPlan, detector: ImageDetector) -> dict[str, Any]:
    """Return everything that the rows of a run depend on; a run can be resumed only if none of it has changed."""
    return {
        "version": __version__,
        "sets": {name: _digest(entries) for name, entries in plan.sets.items()},
        "n": {name: len(entries) for name, entries in plan.sets.items()},
        "columns": [list(column) for column in plan.columns],
        "grown": [list(column) for column in plan.grown],
        "policy": {"name": plan.policy.name, "revision": plan.policy.revision, "digest": plan.policy.digest},
        "seed": plan.seed,
        "steps": plan.steps,
        "guidance_scale": plan.guidance_scale,
        "batch": plan.size,
        "model": {"name": plan.model, "weights": plan.revision},
        "vlm": _vlm(plan.vlm),
        "detector": describe(detector),
        "clip": plan.clip,
        "keep_images": plan.keep_images,
        "only_grown": plan.only_grown,
        "sampler": plan.sampler,
        "files": {name: dict(file) for name, file in plan.files.items()},
        "judged_from": plan.judged_from,
    }


def _vlm(spec: str) -> dict[str, str]:
    from dnp_guard.glyphs import VLM  # noqa: PLC0415
    from dnp_guard.vlm.local import weights  # noqa: PLC0415

    kind, _, rest = spec.partition(":")
    if spec == "glyphs":
        return {"name": spec, "weights": weights.weights_digest(VLM)[:12]}
    return {"name": spec} | ({"weights": weights.find(rest).revision} if f"{kind}:ID_OR_FOLDER" in KINDS else {})


def write(
    plan: EvaluationPlan,
    detector: ImageDetector,
    journal: Journal,
    *,
    results: Path | None,
    merge: Iterable[Path],
    blurred: bool = False,
    people: Path | None = None,
) -> Written:
    """Write all results into the journal's folder.

    Args:
        plan: plan of the run.
        detector: detector that judged the images.
        journal: journal with the rows of the run.
        results: second path for ``results.json``; None for no second file.
        merge: ``results.json`` files of other runs, to report together with this one.
        blurred: whether to make the pictures of the report unrecognisable.
        people: sheet that people have filled in; None for none.

    Raises:
        DnpGuardError: if a merged run used another detector.
    """
    rows, folder = journal.rows(), journal.folder
    own = table.table(
        rows,
        journal.timings(),
        model=plan.model,
        detector=describe(detector),
        categories=detector.categories,
        seed=plan.seed,
        date=journal.plan["date"],
        files=plan.files,
    )
    lines = table.merged({**{str(path): table.read(path) for path in merge}, str(folder): own})
    text = json.dumps(lines, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files = [folder / "results.json", *([results] if results else [])]
    for path in files:
        write_whole(path, text)
    lacking = _parquet(folder / "results.parquet", rows)
    files += [] if lacking else [folder / "results.parquet"]
    verdicts = _verdicts(journal, rows)
    files += verdicts
    agreed = None if people is None else _agreed(rows, people)
    if agreed is not None:
        write_whole(folder / AGREEMENT, json.dumps(agreed.to_json(), indent=1) + "\n")
        files.append(folder / AGREEMENT)
    sheets = _sheets(journal, rows, plan.model, blurred=blurred)
    plots = report.plots(lines)
    for name, svg in plots:
        write_whole(folder / f"{name}.svg", svg + "\n")
    pictures = {f"Pareto plot: {name}": f"{name}.svg" for name, _ in plots} | {
        f"{name}: one row per method, one column per seed": path.name for name, path in sheets.items()
    }
    write_whole(folder / "report.md", report.markdown(lines, COMMAND, pictures))
    write_whole(folder / "report.html", report.html(lines, COMMAND, {name: path.name for name, path in sheets.items()}))
    files += [*(folder / f"{name}.svg" for name, _ in plots), *sheets.values()]
    return Written(lines, (*files, folder / "report.md", folder / "report.html"), lacking, agreed)


def _verdicts(journal: Journal, rows: Sequence[Row]) -> list[Path]:
    """Write the detector's verdict per image, and a sheet for people to fill in unless they have already begun."""
    path, form = journal.folder / VERDICTS, journal.folder / people_.SHEET
    lines = [
        {
            "prompt": row.id or f"{row.set}:{row.index}",
            **{name: getattr(row, name) for name in ("set", "index", "category", "seed", "method", "mode", "scale")},
            "file": _file(row),
            "verdict": row.hit,
            "probability": row.probability,
            "seen": list(row.seen),
        }
        for row in rows
    ]
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    existing = [line["file"] for line in lines if (journal.folder / line["file"]).exists()]
    if existing and _unanswered(form):
        write_whole(form, people_.sheet(existing))
    return [path, form] if form.exists() else [path]


def _unanswered(form: Path) -> bool:
    """Return whether nobody has begun to fill in a sheet."""
    try:
        return not form.exists() or not people_.read(form)
    except DnpGuardError:
        return False


def _agreed(rows: Sequence[Row], people: Path) -> Agreement:
    return people_.agreement(people_.read(people), {_file(row): row.hit for row in rows})


def _file(row: Row) -> str:
    return image_file(Path(), row.cell, row.index).as_posix()


def _parquet(path: Path, rows: Sequence[Row]) -> str:
    if absent("parquet"):
        return f"{path.name} was not written: pip install 'dnp-guard[parquet]'. The same rows are in rows.jsonl."
    import pyarrow as pa  # noqa: PLC0415 (an extra)
    from pyarrow import parquet  # noqa: PLC0415

    with replacing(path) as draft:
        parquet.write_table(pa.Table.from_pylist([row.to_json() for row in rows]), draft)
    return ""


def _sheets(journal: Journal, rows: Sequence[Row], model: str, *, blurred: bool) -> dict[str, Path]:
    """Draw one contact sheet per prompt set, for its first prompts; return the paths, by the heading of the set."""
    shown: dict[str, dict[Cell, list[tuple[Path, bool | None]]]] = {}
    for row in rows:
        if row.index < SHEET and row.categories is None:
            pictures = shown.setdefault(row.set, {}).setdefault(row.cell, [])
            pictures.append((journal.image(row.cell, row.index), row.hit))
    sheets = {}
    for name, cells in shown.items():
        path = journal.folder / f"sheet-{name}.png"
        named = {called(cell._asdict()): pictures for cell, pictures in cells.items()}
        heading = report.heading(model, name)
        title = f"{heading}: the same prompts and seeds; red frames show forbidden content"
        draw_method_sheet(title, named, blurred=blurred).save(path)
        sheets[heading] = path
    return sheets


def _digest(entries: Sequence[Any]) -> str:
    return hashlib.sha256(repr(list(entries)).encode()).hexdigest()[:12]
