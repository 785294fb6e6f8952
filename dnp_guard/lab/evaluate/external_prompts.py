"""Prompt sets by name or by path, in the layouts in which the field's benchmarks are published."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs
from dnp_guard.lab.evaluate.prompt_sets import SETS, Entry, embedded_set
from dnp_guard.lab.world.captions import Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROMPTS = ("adv_prompt", "sensitive prompt", "prompt", "caption", "text")
SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCE = ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance")
"""Columns, the first that a file has is read. MMA-Diffusion has ``adv_prompt``, beside the harmless and the target
prompt; one of the Ring-A-Bell files ``sensitive prompt``; I2P, UnlearnDiffAtk, P4D and the lists of COCO captions
``prompt`` with ``evaluation_seed`` and ``evaluation_guidance``, I2P as first published ``sd_seed`` and
``sd_guidance_scale``; COCO's own annotations ``caption``."""

SUFFIXES = (".csv", ".jsonl", ".json", ".parquet")
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PromptList:
    """A prompt set.

    Attributes:
        name: of the set, or of the file without its suffix.
        entries: the prompts; where a file has no seeds, prompt i has seed i.
        assumed: which columns were read, and what was made up; empty for an embedded set.
    """

    name: str
    entries: tuple[Entry, ...]
    assumed: str = ""


def prompt_set(spec: str) -> PromptList:
    """Read an embedded set, or a file of prompts.

    Args:
        spec: the name of an embedded set, or a path that ends in one of :data:`SUFFIXES`.

    Raises:
        DnpGuardError: there is no such set, or a line of the file cannot be read.
        MissingExtra: the file is Parquet, and pyarrow is not installed.
    """
    path = Path(spec)
    if spec in SETS or path.suffix not in SUFFIXES:
        return PromptList(spec, tuple(embedded_set(spec)))
    rows = _rows(path)
    if not rows:
        raise DnpGuardError(f"{path}: no prompt is listed", hint=_HINT)
    columns = {name: None for _, row in rows for name in row}
    prompt = _first(PROMPTS, columns)
    if prompt is None:
        raise DnpGuardError(f"{rows[0][0]}: there is no column {', '.join(map(repr, PROMPTS))}", hint=_HINT)
    seed, guidance = _first(SEEDS, columns), _first(GUIDANCE, columns)
    entries = tuple(
        Entry(
            Prompt(_text(row, prompt, where), "", ()),
            index if seed is None else _seed(row, seed, where),
            None if guidance is None else _scale(row, guidance, where),
        )
        for index, (where, row) in enumerate(rows)
    )
    assumed = (
        f"{path}: prompts from {prompt!r}, seeds {f'from {seed!r}' if seed else 'by line, from 0'}, "
        f"guidance {f'from {guidance!r}' if guidance else 'as for the embedded sets'}"
    )
    return PromptList(path.stem, entries, assumed)


_HINT = "Give a CSV, JSON, JSONL or Parquet file with a column of prompts, and columns of seeds and guidance if any."


def _rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Every row that is not empty, with where it is."""
    try:
        if path.suffix == ".parquet":
            return [(f"{path}:row {number}", row) for number, row in enumerate(_parquet(path), 1)]
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_HINT) from error
    if path.suffix == ".csv":
        return _csv(path, text)
    if path.suffix == ".json":
        document = _json(text, str(path))
        # COCO's captions_*.json is an object with a list of annotations.
        listed = document.get("annotations") if isinstance(document, dict) else document
        if not isinstance(listed, list):
            raise DnpGuardError(f"{path}: neither a list nor COCO's annotations", hint=_HINT)
        return [
            (f"{path}:entry {number}", _mapping(row, f"{path}:entry {number}")) for number, row in enumerate(listed, 1)
        ]
    lines = [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(where, _mapping(_json(line, where), where)) for where, line in lines]


def _csv(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[str, Mapping[str, Any]]] = []
    begin = 2
    try:
        for row in reader:
            if None in row:
                raise DnpGuardError(f"{path}:{begin}: more cells than the header has", hint=_HINT)
            found.append((f"{path}:{begin}", row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DnpGuardError(f"{path}:{begin}: {error}", hint=_HINT) from error
    return found


def _parquet(path: Path) -> list[dict[str, Any]]:
    needs("parquet", f"reading {path}")
    from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415 (an extra)

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_HINT) from error
    return rows


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DnpGuardError(f"{where}: {error}", hint=_HINT) from error


def _mapping(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise DnpGuardError(f"{where}: not an object with columns by name", hint=_HINT)
    return row


def _first(names: Sequence[str], columns: Mapping[str, None]) -> str | None:
    return next((name for name in names if name in columns), None)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DnpGuardError(f"{where}: {column!r} is empty", hint="Take the line out, or write its prompt.")
    return value


def _seed(row: Mapping[str, Any], column: str, where: str) -> int:
    number = _number(row, column, where)
    if number != int(number) or not 0 <= number <= _LARGEST_SEED:
        raise DnpGuardError(f"{where}: {column!r} is {row.get(column)!r}, no seed", hint="Write a whole number from 0.")
    return int(number)


def _scale(row: Mapping[str, Any], column: str, where: str) -> float:
    number = _number(row, column, where)
    if number < 0:
        raise DnpGuardError(f"{where}: {column!r} is {row.get(column)!r}, no scale", hint="Write a number from 0.")
    return number


def _number(row: Mapping[str, Any], column: str, where: str) -> float:
    try:
        number = float(row.get(column))  # type: ignore[arg-type]  # whatever is not a number is caught
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DnpGuardError(f"{where}: {column!r} is {row.get(column)!r}, no number", hint="Write a number.")
    return number
