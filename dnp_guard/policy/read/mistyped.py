"""Find the first mistyped line in a text that the parser cannot read, and explain it in plain words.

A parser reports a mistake where it can go no further, which is often many lines after the line to mend. These checks
read the text line by line, as a person does: is the quote closed, do a colon and a space follow the key, does the line
begin at the same column as another?
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dnp_guard.errors import Problem
from dnp_guard.policy.model.keys import KEYS
from dnp_guard.policy.read import quoting
from dnp_guard.policy.read.document import shorten
from dnp_guard.policy.read.slips import (
    KEY,
    SPACES,
    Fault,
    bad_dash,
    bad_plain,
    bare,
    fault_of_space,
    key_of,
    no_colon,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTAINERS = frozenset(path.rpartition(".")[2] for path in KEYS)


@dataclass(slots=True)
class _Level:
    """A level of nesting: the lines that begin at one column, either keys or the dashes of a list.

    Attributes:
        column: 0-based.
        dash: whether the lines are items of a list.
        line: number of the first line, 0-based.
        key: the last key at this level.
        key_line: line of that key, 0-based.
        value: column of the key's value, if it is on the same line.
        plain: whether the value is text without quotes, which an indented line may continue.
    """

    column: int
    dash: bool
    line: int
    key: str = ""
    key_line: int = 0
    value: int | None = None
    plain: bool = False


def mistyped(text: str, file: str, last: int) -> Problem | None:
    """Return a problem that explains the first mistyped line.

    Args:
        text: text of the file.
        file: name of the file in the problem.
        last: line at which the parser gave up, 1-based; the mistake is not on a later line.

    Returns:
        The problem; None if no line looks mistyped.
    """
    lines = text.splitlines()
    for number, fault in _Reading(lines).faults(min(last, len(lines))):
        line = number if fault.line is None else fault.line
        return Problem(file, line + 1, fault.column + 1, "yaml-syntax", f"{fault.message}.", fault.hint)
    return None


@dataclass(slots=True)
class _Reading:
    """Reads the lines in order, and tracks the open levels of nesting."""

    lines: list[str]
    levels: list[_Level] = field(default_factory=list)
    number: int = 0

    def faults(self, last: int) -> Iterator[tuple[int, Fault]]:
        """Yield every mistake with its line number; mistakes after the first may be mere consequences of it."""
        while self.number < last:
            number, line = self.number, self.lines[self.number]
            self.number += 1
            if not (stripped := line.strip()) or stripped.startswith("#") or stripped in {"---", "..."}:
                continue
            if fault := self._line(line):
                yield number, fault

    def _line(self, line: str) -> Fault | None:
        column = len(line) - len(line.lstrip(" "))
        rest = line[column:]
        if rest[0] == "\t":
            return Fault(column, "a tab at the beginning of the line", "Use spaces in its place.")
        if match := SPACES.match(line, column):
            return fault_of_space(match)
        if fault := bad_dash(rest, column):
            return fault
        while rest == "-" or rest.startswith("- "):
            if fault := self._begin(column, rest, dash=True):
                return fault
            inner = rest[1:].lstrip(" ")
            column += len(rest) - len(inner)
            rest = inner
        if not rest or rest.startswith("#"):
            return None
        return self._entry(line, column, rest)

    def _entry(self, line: str, column: int, rest: str) -> Fault | None:
        """Check a line after its dashes: a key with or without a value, a list item, or a continued text."""
        match = KEY.match(rest)
        if match is None:
            return self._keyless(line, column, rest)
        if fault := self._begin(column, rest, dash=False):
            return fault
        level = self.levels[-1]
        value = rest[match.end() :].lstrip(" ")
        empty = not value or value.startswith("#")
        start = column + len(rest) - len(value)
        level.key, level.key_line = match["name"].strip("\"'"), self.number - 1
        level.value, level.plain = None if empty else start, False
        return None if empty else self._value(line, start, level)

    def _keyless(self, line: str, column: int, rest: str) -> Fault | None:
        item = line[:column].rstrip().endswith("-")
        above = next((level for level in reversed(self.levels) if not level.dash), None)
        further = above is not None and column > above.column
        if not item and above and above.plain and further and not key_of(rest):
            return None
        if fault := no_colon(rest, column, item=item):
            return fault
        if item or rest[0] in "\"'[{":
            return self._value(line, column, _Level(column, dash=False, line=self.number))
        if above and above.value is None and further:
            above.plain = True
            return self._value(line, column, above)
        hint = f"Indent it further than `{above.key}`, or write" if above and above.plain else "Write"
        return Fault(column, f"`{shorten(rest)}` is not `key: value`", f"{hint} a key, a colon, a space and the value.")

    def _begin(self, column: int, rest: str, *, dash: bool) -> Fault | None:
        """Check that a key or a dash begins at a valid column, and make its level of nesting the innermost."""
        closed: _Level | None = None
        while self.levels and self.levels[-1].column > column:
            closed = self.levels.pop()
        top = self.levels[-1] if self.levels else None
        if top and top.column == column:
            return self._same(top, column, rest, dash=dash)
        if closed is not None:
            return _nowhere(column, shorten(rest.partition(":")[0]), top, closed, dash=dash)
        if top and not top.dash and top.value is not None:
            return _too_far(column, rest, top, dash=dash)
        self.levels.append(_Level(column, dash=dash, line=self.number - 1))
        return None

    def _same(self, top: _Level, column: int, rest: str, *, dash: bool) -> Fault | None:
        """Check a line at the column of an open level: a key must follow keys, and a dash must follow dashes."""
        if top.dash == dash:
            return None
        if dash and top.value is None:
            self.levels.append(_Level(column, dash=True, line=self.number - 1))
            return None
        if dash:
            return Fault(column, "a dash where a key should be", f"Write `key: value`, as `{top.key}` above.")
        below = self.levels[-2] if len(self.levels) > 1 else None
        if below and below.column == column:
            self.levels.pop()
            return None
        return Fault(column, "there is no dash before this item of the list", f"Write `- {shorten(rest)}`.")

    def _value(self, line: str, start: int, level: _Level) -> Fault | None:
        """Check a value that begins on this line and may end on a later one."""
        text = line[start:]
        if match := SPACES.match(line, start):
            return fault_of_space(match)
        if text[0] in "|>" and not bare(text).strip("|>-+0123456789"):
            self._skip_deeper(level.column)
            return None
        if text[0] in "\"'[{":
            end = quoting.end_of_value(self.lines, self.number - 1, start, level.column)
            if isinstance(end, quoting.Unfinished):
                return Fault(end.column, end.message, end.hint, end.line)
            self.number = end[0] + 1
            return None
        level.plain = True
        return bad_plain(text, start, level.key)

    def _skip_deeper(self, column: int) -> None:
        """Skip the lines of a block text, which are indented further than its key."""
        while self.number < len(self.lines):
            line = self.lines[self.number]
            if line.strip() and len(line) - len(line.lstrip(" ")) <= column:
                return
            self.number += 1


def _nowhere(column: int, shown: str, top: _Level | None, closed: _Level, *, dash: bool) -> Fault:
    """Describe the mistake of a line that is indented more than the level ``top``, but less than ``closed`` in it."""
    if dash and top and not closed.dash and top.value is None:
        message = "there is no dash before this item of the list"
        return Fault(closed.column, message, "Begin each item with a dash: `- `.", closed.line)
    near = min(
        [level for level in (closed, top) if level],
        key=lambda level: (level.dash != dash, abs(level.column - column)),
    )
    named = "the dash above" if near.dash else f"`{near.key}`"
    return Fault(
        column,
        f"`{shown}` begins at column {column + 1}, where no line above begins",
        f"Move it to column {near.column + 1}, under {named}.",
    )


def _too_far(column: int, rest: str, top: _Level, *, dash: bool) -> Fault:
    """Describe the mistake of a line that is indented under a key that already has a value."""
    if top.column == 0 and top.key not in KEYS[""] and any(top.key in names for names in KEYS.values()):
        where = next(path for path, names in KEYS.items() if top.key in names)
        message = f"`{top.key}` begins at column 1, but belongs under `{where}`"
        return Fault(0, message, f"Move it to column {column + 1}, as the lines around it.", top.key_line)
    if top.key in _CONTAINERS and top.value is not None:
        message = f"`{top.key}` has a value on its line, and lines below that belong to it"
        return Fault(top.value, message, f"Write `{top.key}:` alone on its line.", top.key_line)
    shown = "a list" if dash else f"`{shorten(rest.partition(':')[0])}`"
    message = f"{shown} is indented under `{top.key}`, which has a value already"
    return Fault(column, message, f"Begin it at column {top.column + 1}, under `{top.key}`.")
