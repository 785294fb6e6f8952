"""The rows of a run on disk: whole batches, each forced out before the next begins, so that a killed run goes on."""

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
    """What a run has measured so far, in one folder.

    Args:
        folder: made where it is not there.
        plan: what the run is; a folder that holds another is refused. ``date`` may differ and is the first one's.

    Raises:
        DnpGuardError: the folder holds another run, or what cannot be read.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = self._plan(dict(plan))
        _drop_torn_line(folder / ROWS)
        _drop_torn_line(folder / TIMINGS)

    def rows(self) -> list[Row]:
        """Every row, in the order in which they were appended.

        Raises:
            DnpGuardError: a line is no row.
        """
        return [_read(Row, values, where) for values, where in _lines(self.folder / ROWS)]

    def timings(self) -> list[Timing]:
        """Every timing; of a batch that was measured twice, the later one.

        Raises:
            DnpGuardError: a line is no timing.
        """
        found = [_read(Timing, values, where) for values, where in _lines(self.folder / TIMINGS)]
        return list({(each.cell, each.batch): each for each in found}.values())

    def keep(self, batches: Sequence[int]) -> int:
        """Cut off a batch that was not written whole.

        Args:
            batches: how many rows each batch of the plan has, in order.

        Returns:
            How many batches are whole.
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
        """Write a batch and force it to the disk; once the rows are there, the batch counts as done."""
        _append(self.folder / TIMINGS, [each.to_json() for each in timings])
        _append(self.folder / ROWS, [each.to_json() for each in rows])

    def image(self, cell: Cell, index: int) -> Path:
        """Where the image of a prompt is kept."""
        return image_file(self.folder, cell, index)

    def _plan(self, plan: dict[str, Any]) -> dict[str, Any]:
        path = self.folder / PLAN
        if not path.exists():
            write_whole(path, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
            return plan
        before = _read_plan(path)
        if difference := _difference(before, plan):
            raise DnpGuardError(f"{path} is of another run: {difference}", hint=_ELSEWHERE)
        return before


def image_file(folder: Path, cell: Cell, index: int) -> Path:
    """Where a run in a folder keeps the image of a prompt."""
    method = cell.method if cell.scale is None else f"{cell.method}@{cell.scale:g}"
    method += f"+{cell.categories}" if cell.categories is not None else ""
    return folder / "images" / cell.set / method / f"{index:04d}.png"


_ELSEWHERE = "Give another folder as --out, or begin anew with --again."


def discard(folder: Path, plan: Mapping[str, Any], rows: int) -> None:
    """Delete what a folder holds of a finished run, or of another one; a run that was cut short stays.

    Args:
        folder: which need not exist.
        plan: what the run is going to be.
        rows: how many it has when it is finished.

    Raises:
        DnpGuardError: the folder's plan cannot be read.
    """
    path, found = folder / PLAN, folder / ROWS
    if not path.exists():
        return
    finished = found.exists() and found.read_bytes().count(b"\n") >= rows
    if finished or _difference(_read_plan(path), plan):
        shutil.rmtree(folder / "images", ignore_errors=True)
        for name in (ROWS, TIMINGS, PLAN):  # the plan last: without it the rest would be taken for this run's
            (folder / name).unlink(missing_ok=True)


def require_same_images(folder: Path, plan: Mapping[str, Any]) -> None:
    """See that a folder holds the images of a plan, whoever judged them.

    Raises:
        DnpGuardError: it is of another run, or of none.
    """
    if not (folder / PLAN).exists():
        raise DnpGuardError(f"{folder} holds no run", hint="Name the folder that a run was written to, as its --out.")
    judging = ("detector", "clip", "judged_from", "keep_images", "version")
    before, now = ({k: v for k, v in each.items() if k not in judging} for each in (_read_plan(folder / PLAN), plan))
    if difference := _difference(before, now):
        raise DnpGuardError(f"{folder} holds other images: {difference}", hint="Name the options of that run.")


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DnpGuardError(f"{path}: {error}", hint="Delete the folder, or give another one as --out.") from error
    return plan


def _difference(before: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The first thing but the date in which two plans differ, in words; empty where they are the same."""
    now = json.loads(json.dumps(plan))  # what was written went through JSON, in which a tuple is a list
    other = [name for name in {**now, **before} if name != "date" and now.get(name) != before.get(name)]
    return f"{other[0]} was {before.get(other[0])!r} and is {now.get(other[0])!r}" if other else ""


def _append(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in documents)
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
    found = []
    # Prompts may hold separators that str.splitlines would split at.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            found.append((json.loads(line), f"{path}:{number}"))
        except ValueError as error:
            raise DnpGuardError(f"{path}:{number}: {error}", hint=_ELSEWHERE) from error
    return found


def _read(kind: Any, values: Any, where: str) -> Any:
    try:
        return kind.from_json(values)
    except (TypeError, KeyError, AttributeError) as error:
        raise DnpGuardError(f"{where}: {error}", hint=_ELSEWHERE) from error
