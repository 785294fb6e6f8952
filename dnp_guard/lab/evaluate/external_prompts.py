"""Read prompt sets by name, or from files in the layouts of published benchmarks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs
from dnp_guard.lab.evaluate.prompt_sets import SETS, Entry, embedded_set
from dnp_guard.lab.world.captions import Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prompt": ("adv_prompt", "sensitive prompt", "prompt", "caption", "text", "instruction"),
        "seed": ("evaluation_seed", "sd_seed", "seed"),
        "guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance"),
        "category": ("category", "categories", "class", "risk_category", "label"),
        "id": ("id", "prompt_id", "case_number", "coco_id"),
        "image": (),
    }
)
"""Known names of columns, per field of an entry; the first name that a file has is used.

- MMA-Diffusion has ``adv_prompt``, beside columns with the harmless and the target prompt.
- One of the Ring-A-Bell files has ``sensitive prompt``.
- I2P, UnlearnDiffAtk, P4D and the lists of COCO captions have ``prompt``, ``evaluation_seed`` and
  ``evaluation_guidance``; I2P as first published has ``sd_seed`` and ``sd_guidance_scale``.
- COCO's own annotations have ``caption``; UniSAFE has ``instruction``.
- Pictures to edit are read only from a column that the user names.
"""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PromptList:
    """A prompt set, and a record of what was read.

    Attributes:
        name: name of the set, or of the file without its suffix.
        entries: prompts of the set; if a file has no seeds, prompt i has seed i.
        assumed: sentence about the columns that were read and the values that were assumed; empty for an embedded set.
        file: SHA-256 of the file and the columns that were read; empty for an embedded set.
    """

    name: str
    entries: tuple[Entry, ...]
    assumed: str = ""
    file: Mapping[str, Any] = field(default_factory=dict)


def mapping(text: str) -> dict[str, str]:
    """Read a mapping of fields to columns, written as ``prompt=COLUMN,seed=COLUMN``.

    Raises:
        DnpGuardError: if a part is not such a pair, or its field is not in :data:`COLUMNS`.
    """
    columns = {}
    for part in filter(None, text.split(",")):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if name not in COLUMNS or not equals or not column:
            raise DnpGuardError(
                f"{part!r} maps no column", hint=f"Write NAME=COLUMN, with a NAME of {', '.join(COLUMNS)}."
            )
        columns[name] = column
    return columns


def prompt_set(spec: str, columns: Mapping[str, str] = MappingProxyType({})) -> PromptList:
    """Read an embedded set, or a file of prompts.

    Args:
        spec: name of an embedded set, or a path that ends in one of :data:`SUFFIXES`.
        columns: column of the file per field, in place of :data:`COLUMNS`.

    Raises:
        DnpGuardError: if there is no such set, or a line of the file cannot be read.
        MissingExtra: if the file is Parquet and pyarrow is not installed.
    """
    path = Path(spec)
    if spec not in SETS and path.suffix and _kind(path) not in SUFFIXES:
        raise DnpGuardError(f"{path}: prompts are not read from {path.suffix} files", hint=_HINT)
    if spec in SETS or not path.suffix:
        return PromptList(spec, tuple(embedded_set(spec)))
    rows = _rows(path)
    if not rows:
        raise DnpGuardError(f"{path}: no prompt is listed", hint=_HINT)
    read = _columns(rows, columns)
    entries = tuple(_entry(path, index, row, where, read) for index, (where, row) in enumerate(rows))
    seed, guidance = read.get("seed"), read.get("guidance")
    others = "".join(f", {name} from {read[name]!r}" for name in ("category", "id", "image") if name in read)
    assumed = (
        f"{path}: prompts from {read['prompt']!r}, seeds {f'from {seed!r}' if seed else 'by line, from 0'}, "
        f"guidance {f'from {guidance!r}' if guidance else 'the same for all'}{others}"
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PromptList(path.stem, entries, assumed, {"sha256": digest, "columns": read})


def _columns(rows: Sequence[tuple[str, Mapping[str, Any]]], columns: Mapping[str, str]) -> dict[str, str]:
    """Return, for every field that a file has, the name of its column."""
    present = {name: None for _, row in rows for name in row}
    for name, column in columns.items():
        if column not in present:
            raise DnpGuardError(
                f"{rows[0][0]}: there is no column {column!r} for {name}",
                hint=f"The file has {', '.join(map(str, present))}.",
            )
    columns_read = {name: columns.get(name) or _first(known, present) for name, known in COLUMNS.items()}
    if columns_read["prompt"] is None:
        raise DnpGuardError(
            f"{rows[0][0]}: there is no column {', '.join(map(repr, COLUMNS['prompt']))}; it has "
            f"{', '.join(map(repr, present))}",
            hint="Name the column of prompts: --columns prompt=COLUMN",
        )
    return {name: column for name, column in columns_read.items() if column is not None}


def _entry(path: Path, index: int, row: Mapping[str, Any], where: str, read: Mapping[str, str]) -> Entry:
    text = _text(row, read["prompt"], where)
    # A column may have an empty name: pandas writes its index into such a column.
    listed, shown = (_name(row, read[name], where) if name in read else "" for name in ("id", "image"))
    picture = path.parent / shown if shown else None
    if picture is not None and not picture.is_file():
        raise DnpGuardError(f"{where}: {picture} is no file", hint="Put the pictures beside the prompts' file.")
    return Entry(
        Prompt(text, "", ()),
        _seed(row, read["seed"], where) if "seed" in read else index,
        _scale(row, read["guidance"], where) if "guidance" in read else None,
        listed or hashlib.sha256(text.encode()).hexdigest()[:12],
        _category(row.get(read["category"])) if "category" in read else "",
        "" if picture is None else str(picture),
    )


def _kind(path: Path) -> str:
    """Return the suffix of a file, in lower case."""
    return path.suffix.lower()


_HINT = "Give a CSV, TSV, JSON, JSONL or Parquet file with a column of prompts; name other columns by --columns."


def _category(value: Any) -> str:
    """Return the category of a prompt as text; in T2I-RiskyPrompt, it is a mapping from categories to reasons."""
    if value is None or isinstance(value, str):
        return value or ""
    return ", ".join(map(str, value)) if isinstance(value, list | dict) else str(value)


def _rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the rows of a file that are not empty, as pairs of a place, such as ``prompts.csv:2``, and the row."""
    try:
        if _kind(path) == ".parquet":
            return [(f"{path}:row {number}", row) for number, row in enumerate(_parquet(path), 1)]
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_HINT) from error
    if _kind(path) in {".csv", ".tsv"}:
        return _csv(path, text)
    if _kind(path) == ".json":
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
    reader = csv.DictReader(
        io.StringIO(text, newline=""), strict=True, delimiter="\t" if _kind(path) == ".tsv" else ","
    )
    rows: list[tuple[str, Mapping[str, Any]]] = []
    begin = 2
    try:
        for row in reader:
            if None in row:
                raise DnpGuardError(f"{path}:{begin}: more cells than the header has", hint=_HINT)
            rows.append((f"{path}:{begin}", row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DnpGuardError(f"{path}:{begin}: {error}", hint=_HINT) from error
    return rows


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
        raise DnpGuardError(f"{where}: {column!r} is empty", hint="Remove the line, or write its prompt.")
    return value


def _name(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return a cell of a row as text; empty if the cell is empty."""
    value = row.get(column)
    if isinstance(value, dict | list | bytes):
        raise DnpGuardError(
            f"{where}: {column!r} holds a {type(value).__name__}, no name",
            hint="Write pictures to files beside the prompts, and their names into the column.",
        )
    return "" if value is None else str(value)


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
