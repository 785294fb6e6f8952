"""Keep the rows of a run on disk, batch by batch, so that a killed run can be resumed."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.files import write_whole
from dnp_guard.lab.evaluate.rows import Row, Timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dnp_guard.lab.evaluate.rows import Cell

PLAN, ROWS, TIMINGS = "plan.json", "rows.jsonl", "timings.jsonl"


class Journal:
    """Folder with the results of a run so far: one row per image and one timing per batch and method.

    Args:
        folder: folder of the run; created if it does not exist.
        plan: identity of the run. Only its ``date`` may differ from the plan in the folder, whose date is kept.

    Raises:
        DnpGuardError: if the folder holds another run, or its plan cannot be read.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = self._plan(dict(plan))
        _drop_torn_line(folder / ROWS)
        _drop_torn_line(folder / TIMINGS)

    def rows(self) -> list[Row]:
        """Read all rows, in the order in which they were appended.

        Raises:
            DnpGuardError: if a line is no row.
        """
        return [_read(Row, values, where) for values, where in _lines(self.folder / ROWS)]

    def timings(self) -> list[Timing]:
        """Read all timings; if a method was timed twice on a batch, only its later timing.

        Raises:
            DnpGuardError: if a line is no timing.
        """
        timings = [_read(Timing, values, where) for values, where in _lines(self.folder / TIMINGS)]
        return list({(timing.cell, timing.batch): timing for timing in timings}.values())

    def keep(self, batches: Sequence[int]) -> int:
        """Remove the rows of the last batch if it was not written completely.

        Args:
            batches: number of rows per batch of the plan, in order.

        Returns:
            The number of complete batches.
        """
        lines = (self.folder / ROWS).read_bytes().splitlines(keepends=True) if (self.folder / ROWS).exists() else []
        whole = rows = 0
        while whole < len(batches) and rows + batches[whole] <= len(lines):
            rows += batches[whole]
            whole += 1
        if rows < len(lines):
            os.truncate(self.folder / ROWS, sum(map(len, lines[:rows])))
        return whole

    def append(self, rows: Iterable[Row], timings: Iterable[Timing]) -> None:
        """Append the results of a batch, and flush them to the disk; the rows come last, and mark the batch as done."""
        _append(self.folder / TIMINGS, [timing.to_json() for timing in timings])
        _append(self.folder / ROWS, [row.to_json() for row in rows])

    def image(self, cell: Cell, index: int) -> Path:
        """Return the path for a prompt's image in the folder of the run, by the cell (method and prompt set)."""
        return image_file(self.folder, cell, index)

    def _plan(self, plan: dict[str, Any]) -> dict[str, Any]:
        path = self.folder / PLAN
        if not path.exists():
            write_whole(path, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
            return plan
        before = _read_plan(path)
        if difference := _difference(before, plan):
            raise DnpGuardError(f"{path} belongs to another run: {difference}", hint=_ELSEWHERE)
        return before


def image_file(folder: Path, cell: Cell, index: int) -> Path:
    """Return the path for a prompt's image in the folder of a run, such as ``images/attack/vl-dnp@15/0000.png``."""
    method = cell.method if cell.scale is None else f"{cell.method}@{cell.scale:g}"
    method += f"+{cell.categories}" if cell.categories is not None else ""
    return folder / "images" / cell.set / method / f"{index:04d}.png"


_ELSEWHERE = "Give another folder as --out, or start over with --again."


def discard(folder: Path, plan: Mapping[str, Any], rows: int) -> None:
    """Delete the run in a folder, unless it is this run and has not finished.

    Args:
        folder: folder of the run; need not exist.
        plan: identity of this run.
        rows: number of rows of this run when it is finished.

    Raises:
        DnpGuardError: if the folder's plan cannot be read.
    """
    path, written = folder / PLAN, folder / ROWS
    if not path.exists():
        return
    finished = written.exists() and written.read_bytes().count(b"\n") >= rows
    if finished or _difference(_read_plan(path), plan):
        shutil.rmtree(folder / "images", ignore_errors=True)
        for name in (ROWS, TIMINGS, PLAN):  # the plan last: rows without it would seem to be this run's
            (folder / name).unlink(missing_ok=True)


def require_same_images(folder: Path, plan: Mapping[str, Any]) -> None:
    """Check that a folder holds the images of a plan; the detector that judged them may be another one.

    Raises:
        DnpGuardError: if the folder holds another run, or none.
    """
    if not (folder / PLAN).exists():
        raise DnpGuardError(f"{folder} holds no run", hint="Name the folder of a run, which its --out gave.")
    judging = ("detector", "clip", "judged_from", "keep_images", "version")
    before, now = (
        {key: value for key, value in document.items() if key not in judging}
        for document in (_read_plan(folder / PLAN), plan)
    )
    if difference := _difference(before, now):
        raise DnpGuardError(f"{folder} holds other images: {difference}", hint="Name the options of that run.")


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DnpGuardError(f"{path}: {error}", hint="Delete the folder, or give another folder as --out.") from error
    return plan


def _difference(before: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Describe the first difference of two plans, apart from the date; empty if there is none."""
    now = json.loads(json.dumps(plan))  # the plan on disk went through JSON, which turns tuples into lists
    other = [name for name in {**now, **before} if name != "date" and now.get(name) != before.get(name)]
    return f"{other[0]} was {before.get(other[0])!r} and is {now.get(other[0])!r}" if other else ""


def _append(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n" for document in documents)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _drop_torn_line(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)


def _lines(path: Path) -> list[tuple[Any, str]]:
    if not path.exists():
        return []
    documents = []
    # Prompts may hold separators at which str.splitlines would split.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            documents.append((json.loads(line), f"{path}:{number}"))
        except ValueError as error:
            raise DnpGuardError(f"{path}:{number}: {error}", hint=_ELSEWHERE) from error
    return documents


def _read(kind: Any, values: Any, where: str) -> Any:
    try:
        return kind.from_json(values)
    except (TypeError, KeyError, AttributeError) as error:
        raise DnpGuardError(f"{where}: {error}", hint=_ELSEWHERE) from error
